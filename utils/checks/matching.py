"""Find a learner's layers in a reference, and give the reference the learner's numbers."""

import copy
import itertools
from collections import Counter

import torch
from torch import nn

from .trace import Trace

LIMIT = 48  # ways in which layers of the same shape are matched with the reference's


def candidates(subject, number):
    """Ways to give the learner's numbers to the reference: (pairs of tensors, the reference with the learner's numbers)."""
    blank = reference_of(subject, number).to(subject.x.dtype).eval()
    theirs = traced(blank, subject.x)[1].layers()
    mine = subject.trace.layers()
    alike = Counter(map(_form, mine)) == Counter(map(_form, theirs)) and all(
        step.weight.is_leaf for step in mine if step.weight is not None
    )
    ways = _by_layers(mine, theirs) if alike else _by_shape(subject.model, blank)
    for pairs in itertools.islice(ways, subject.case.ways):
        reference, places = copy.deepcopy(blank), _tensors(blank)
        copies = _tensors(reference)
        pairs = [(m, copies[_index(places, r)]) for m, r in pairs]
        with torch.no_grad():
            for m, r in pairs:
                r.copy_(m.view(r.shape))
        yield pairs, reference


def _index(tensors, one):
    return next(i for i, tensor in enumerate(tensors) if tensor is one)


def _tensors(model):
    return [*model.parameters(), *model.buffers()]


def _form(step):
    return step.kind, tuple(step.weight.shape) if step.weight is not None else None, step.settings.get("bias") is not None


def _by_layers(mine, theirs):
    """Pair steps of the same form. First in the order of their use, with each BN beside its own convolution; then all other ways."""
    groups = {}
    for step in theirs:
        groups.setdefault(_form(step), ([], []))[0].append(step)
    for step in mine:
        groups[_form(step)][1].append(step)
    layers = [group for form, group in groups.items() if form[0] != "norm"]
    norms = [group for form, group in groups.items() if form[0] == "norm"]
    for way in itertools.product(*(_orders(m) for _, m in layers)):
        pairs = [pair for (r, _), m in zip(layers, way, strict=True) for pair in zip(m, r, strict=True)]
        partner = {id(m): id(r) for m, r in pairs}
        first = [_beside(r, m, partner) for r, m in norms]
        others = (way for way in itertools.product(*(_orders(m) for _, m in norms)) if [*map(list, way)] != first)
        for norm_way in itertools.chain([first], others):
            both = pairs + [pair for (r, _), m in zip(norms, norm_way, strict=True) for pair in zip(m, r, strict=True)]
            found = [pair for m, r in both for pair in _of_step(m, r)]
            if all(m is not None and r is not None and m.shape == r.shape for m, r in found):
                yield found


def _orders(some):
    """All orders of a few things; of many, which only a deep network has, just that of their use."""
    return itertools.permutations(some) if len(some) <= 6 else [some]


def _beside(right, mine, partner):
    """The learner's norms in the order of the reference's: each next to the partner of its convolution."""
    left, result = list(mine), []
    for norm in right:
        before = {id(step) for step in norm.before()}
        best = next((m for m in left if {partner.get(id(step)) for step in m.before()} & before), left[0])
        left.remove(best)
        result.append(best)
    return result


def _of_step(mine, right):
    for name in ("weight", "bias", "running_mean", "running_var"):
        a, b = mine.settings.get(name), right.settings.get(name)
        if a is not None or b is not None:
            yield a, b


def _by_shape(model, reference):
    """Pair tensors by their sizes, for networks that are written without PyTorch's own layers, or that don't show their steps."""
    units = [[unit for module in network.modules() if (unit := _unit(module))] for network in (model, reference)]
    yield from itertools.islice(_permuted(*units, lambda unit: [tensor.numel() for tensor in unit]), LIMIT)
    tensors = [[[tensor] for unit in network for tensor in unit] for network in units]
    yield from itertools.islice(_permuted(*tensors, lambda unit: unit[0].numel()), LIMIT)


def _unit(module):
    """The tensors that a module itself owns, parameters first; no counters."""
    found = [*module.parameters(recurse=False), *(b for b in module.buffers(recurse=False) if b.dim())]
    return found if len(found) < 5 else []


def _permuted(mine, theirs, size):
    """All ways to pair lists of tensors that have the same sizes."""
    groups = {}
    for side, units in enumerate((theirs, mine)):
        for unit in units:
            groups.setdefault(str(size(unit)), ([], []))[side].append(unit)
    if any(len(r) != len(m) for r, m in groups.values()):
        return
    for way in itertools.product(*(_orders(m) for _, m in groups.values())):
        pairs = [pair for (r, _), m in zip(groups.values(), way, strict=True) for pair in zip(m, r, strict=True)]
        yield [pair for m, r in pairs for pair in zip(m, r, strict=True)]


@torch.no_grad()
def take_weights(network, source, x):
    """Give a network the weights and running statistics of `source`, which has the same layers under other names, or made in another order.

    Two layers belong together if they have the same form and read what layers that belong together give. x: a small input for both.
    Raises ValueError if a layer has no partner.
    """
    known = {}
    mine, theirs = (_places(model, x, known) for model in (network, source))
    if mine.keys() != theirs.keys():
        raise ValueError("these two networks do not have the same layers")
    for place, step in mine.items():
        for tensor, right in _of_step(step, theirs[place]):
            if tensor is not None:
                tensor.copy_(right)


def _places(model, x, known):
    """{place: layer}; a place stands in `known` for a layer's form and the places of the layers before it."""
    places, mode = {}, model.training
    trace = traced(model.eval(), x)[1]
    model.train(mode)
    for step in trace.layers():
        key = _form(step), frozenset(places[id(before)] for before in step.before())
        places[id(step)] = known.setdefault(key, len(known))
    return {places[id(step)]: step for step in trace.layers()}


@torch.no_grad()
def disturb(model, trace):
    """Give parameters and running statistics numbers with which no step is invisible: a new BN has γ = 1, β = 0, mean 0, variance 1."""
    norms = {id(step.settings[name]): name for step in trace.layers("norm") for name in ("weight", "bias", "running_mean", "running_var")
             if step.settings.get(name) is not None}  # fmt: skip
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        role = norms.get(id(tensor), "")
        if not tensor.is_floating_point() or not tensor.dim() or not (role or isinstance(tensor, nn.Parameter)):
            if "var" in name and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
            elif "mean" in name and tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5)
        elif role == "running_var":
            tensor.uniform_(0.5, 1.5)
        elif role in ("running_mean", "bias"):
            tensor.uniform_(-0.5, 0.5)
        elif role == "weight" or tensor.dim() == 1 and "bias" not in name:
            tensor.uniform_(0.5, 1.5).mul_(min(1, 3 / max(1, len(trace.layers("norm"))) ** 0.5))  # a deep network must not explode
            tensor[::2] *= -1
        elif tensor.dim() == 1:
            tensor.uniform_(-0.5, 0.5)
        else:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)


def reference_of(subject, number):
    return subject.case.references[number]()


def traced(model, x):
    with torch.no_grad(), Trace(model, x) as trace:
        return model(x), trace


def attempt(function, *args):
    try:
        return function(*args)
    except (RuntimeError, ValueError, AttributeError, TypeError, IndexError):  # a variation that doesn't fit these shapes
        return None


def close(a, b, tolerance=1e-4):
    if a is None or b is None or a.shape != b.shape:
        return False
    a, b = (t.detach() if t.is_floating_point() else t.detach().double() for t in (a, b))
    b = b.to(a.dtype)
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max())) if a.numel() else True
