"""Compare a learner's network with a reference that gets the learner's own parameters: in everything that it does.

    cases = [Case("ResidualBlock", (8, 16), {"stride": 2}, references=[lambda: blocks.ResidualBlock(8, 16, 2)], shapes=[(2, 8, 9, 6)]), …]
    yield from network(answer, cases, {"order": "the output is relu(BN(…) + shortcut(x))"}, mistakes=[(hint, function(reference, x)), …])

The learner's layers are found by what they do (trace.py), and their numbers are copied into the reference's layers. If the reference then
gives the same outputs, running statistics and gradients, the answer is right, however it is written. If not, the first reason in the
order of CLAIMS is said. mistakes: variations of the reference; the one that behaves like the answer names the cause. They are written with
the reference's layers: lambda r, x: r.bn2(r.conv2(F.relu(r.bn1(r.conv1(x))))) + r.shortcut(x).
"""

import copy
import functools
import itertools
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from . import guard
from .guard import Failed
from .trace import LAYERS, Trace

CLAIMS = {  # in the order in which they are looked at
    "runs": "it is built and called without an error, and returns a tensor",
    "shape": "the output has the right shape",
    "own": "its layers are registered, its own, and each is used once",
    "calls": "a call changes neither the input nor a mode, and in evaluation each image counts on its own",
    "layers": "the layers are the right ones",
    "order": "the output is the right one",
    "training": "in training mode it does the same, and its BNs learn their running statistics",
    "gradient": "gradients reach the input and every parameter",
}
LIMIT = 48  # ways in which layers of the same shape are matched with the reference's


@dataclass
class Case:
    name: str
    arguments: tuple
    keywords: dict
    references: list  # functions that make the accepted networks
    shapes: list  # of inputs; everything is compared on the first
    values: str = "normal"
    seen: dict = field(default_factory=dict)
    ways: int = LIMIT  # how many ways of matching are tried

    def __str__(self):
        return f"{self.name}({', '.join([*map(str, self.arguments), *(f'{k}={v!r}' for k, v in self.keywords.items())])})"


class Subject:
    """One network that the answer has made, with what is known about it."""

    def __init__(self, answer, case):
        self.answer, self.case, self.model = answer, case, None
        self.x = torch.randn(case.shapes[0])

    def call(self, x, model=None, training=False, doing=None, trace=False):
        """(output, trace): run the learner's network."""
        model = model or self.model
        model.train(training)
        try:
            return self._call(x, model, doing, trace)
        finally:
            self.other_mode = [name or "the network itself" for name, m in model.named_modules() if m.training != training]
            model.train()  # layers that all networks of an answer share (one nn.ReLU for all) are as new

    def _call(self, x, model, doing, trace):
        watch, doing = Trace(model, x), doing or f"{self.case} on an input of shape {tuple(x.shape)}"
        try:
            out = self.answer.run(model, x, doing=doing, trace=watch)
        except Failed as failed:
            hint = _paths(self, watch, x)
            hints = [f"Found: {doing} fails: {hint}"] if hint else failed.hints
            done = [f"{watch.name(step)} {step.shape}" for step in watch.steps if step.kind not in ("add_", "__getitem__")]
            steps = ["Up to there, this was computed: " + ", ".join(done)] if 0 < len(done) < 30 else []
            raise Failed(failed.claim, *hints, *steps, error=failed.error) from failed
        return (out, watch) if trace else out


def network(answer, cases, claims, mistakes=(), advice=None, random=False):
    """The claims of a network that is made by answer(*case.arguments, **case.keywords).

    claims: other texts than those of CLAIMS. advice: what to say where a layer differs in its "stride", "bias", … (see FIELDS).
    random: in training mode it does something random, which isn't compared. Returns the networks if all is well, with .model and .match.
    """
    answer.advice, answer.random = advice or {}, random
    subjects = [Subject(answer, case) for case in cases]
    todo = dict(STAGES)
    if random:
        todo.pop("training")
    claims = CLAIMS | claims
    while todo:
        key = next(iter(todo))
        stage, hints = todo.pop(key), None
        for subject in subjects:
            try:
                hints = stage(subject, mistakes)
            except Failed as failed:
                hints = failed.hints
            if hints:
                break
        if key == "layers" and hints and (named := _order_first(subjects, mistakes)):
            yield claims[key], None, ""  # the layers differ because their order does
            key, hints = "order", named
            todo.pop("order")
        yield claims[key], not hints, _as_tuple(hints)
        if hints:
            for rest in todo:
                yield claims[rest], None, ""
            return None
    return subjects


def _order_first(subjects, mistakes):
    """The known mistake of a network that has all layers, while others of the same answer have not."""
    for subject in subjects:
        if getattr(subject, "alike", False) and not subject.match:
            hints = order(subject, mistakes)
            if subject.named:
                return hints
    return None


# ---- the stages: each returns hints, or nothing if all is well ------------------------------------------------------


def runs(subject, mistakes):
    answer, case = subject.answer, subject.case
    if isinstance(answer.thing, nn.Module):
        return f"Found: a network that is built already.\nHand over the class itself, without brackets: {case.name}, not {case.name}(…)."
    if not callable(answer.thing):
        return f"Found: a {type(answer.thing).__name__}, and no class."
    subject.model = model = answer(*case.arguments, **case.keywords)
    if not isinstance(model, nn.Module):
        return f"Found: {case} is of the type {type(model).__name__}.\nA network is a subclass of nn.Module: class {case.name}(nn.Module)."
    subject.early = {name for name, _ in model.named_parameters()}
    subject.born_training = all(m.training for m in model.modules())
    out, subject.trace = subject.call(subject.x.clone(), trace=True)
    subject.out = out
    if out is None:
        return "Found: `forward` returns None.\nIts last line needs `return`."
    if isinstance(out, (tuple, list, dict)):
        return f"Found: `forward` returns a {type(out).__name__} of {len(out)}.\nReturn one tensor, the result."
    if not isinstance(out, torch.Tensor):
        return f"Found: `forward` returns a {type(out).__name__}.\nReturn a tensor."


def shape(subject, mistakes):
    for shape in subject.case.shapes:
        expected = tuple(_reference(subject, 0).eval()(torch.zeros(shape)).shape)
        out = subject.call(torch.randn(shape))
        found = tuple(out.shape)
        if found != expected:
            subject.out = out
            text = f"Found: {subject.case} makes {tuple(shape)} to {found}; expected {expected}."
            return text + "\n" + _shape_advice(found, expected, subject)
        if out.dtype != torch.float32:
            return f"Found: the output is {out.dtype}; expected torch.float32, as the input."


def own(subject, mistakes):
    model, trace, case = subject.model, subject.trace, subject.case
    registered = {id(p): name for name, p in model.named_parameters()}
    used = [(step, tensor) for step in trace.layers() for tensor in (step.weight, step.settings.get("bias")) if tensor is not None]
    outside = [step for step, tensor in used if id(tensor) not in registered and tensor.is_leaf]
    if outside:
        return _unregistered(subject, outside[0])
    late = [name for name in registered.values() if name not in subject.early]
    if late:
        return (
            f"Found: `{late[0]}` does not exist before the first call: `forward` makes it.\n"
            "An optimizer that is made before that call never sees it, and .to(device) doesn't move it. Make all layers in `__init__`."
        )
    frozen = [registered[id(t)] for _, t in used if not t.requires_grad]
    if frozen:
        return f"Found: `{frozen[0]}` has requires_grad=False.\nIt would never learn."
    other = subject.answer(*case.arguments, **case.keywords)
    common = {id(p) for p in other.parameters()} & set(registered)
    if common:
        name = registered[common.pop()]
        return (
            f"Found: two networks made by {case} share their parameters, `{name}` for one.\n"
            "Layers made at class level, outside the class or as a default argument exist once for all: make them in `__init__`."
        )
    weights = Counter(id(step.weight) for step in trace.layers() if step.weight is not None)
    twice = [step for step in trace.layers() if weights[id(step.weight)] > 1]
    if twice:
        what = {"norm": "Each BN keeps the statistics of what it reads, so each place needs a BN of its own."}
        return f"Found: {case} uses `{trace.name(twice[0])}` {weights[id(twice[0].weight)]} times in one call.\n" + what.get(
            twice[0].kind, "Each place needs a layer of its own, with its own weights."
        )


def calls(subject, mistakes):
    model, case = subject.model, subject.case
    if not subject.born_training:
        return "Found: a new network is in evaluation mode.\nLeave .eval() out of `__init__`: whoever uses the network sets the mode."
    for training in (True, False):
        x = torch.randn(case.shapes[0])
        given = x.clone()
        subject.call(given, training=training)
        if not torch.equal(given, x):
            return (
                f"Found: after a call, the input of {case} has other numbers than before.\n"
                "Something works in place on x (+=, relu_, inplace=True), and whatever reads x later reads the changed x."
            )
        if subject.other_mode:
            name = subject.other_mode[0]
            word = "training" if training else "evaluation"
            return (
                f"Found: a call in {word} mode leaves {name} in the other mode.\n"
                "`forward` must not call .train() or .eval(): whoever uses the network sets the mode."
            )
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(max(3, case.shapes[0][0]), *case.shapes[0][1:])
    (out, trace), again = subject.call(x.clone(), trace=True), subject.call(x.clone())
    if moved := {"cpu", "cuda", "numpy"} & trace.names:
        advice = "A network works where its input and its parameters are: leave that to whoever uses it."
        return f"Found: `forward` calls .{moved.pop()}().\n{advice}"
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, state[name])]
    if changed:
        return f"Found: a call in evaluation mode changes `{changed[0]}`.\nIn evaluation nothing is learnt: is a mode or a flag fixed?"
    dropping = [step for step in trace.steps if "dropout" in step.kind and step.settings.get("training", True)]
    if not close(out, again) and dropping:
        return (
            "Found: in evaluation mode, dropout still drops: two calls with the same input give different outputs.\n"
            "nn.Dropout stops by itself; F.dropout needs training=self.training."
        )
    if not close(out, again):
        return (
            "Found: in evaluation mode, two calls with the same input give different outputs.\n"
            "Is something random, or kept from the call before?"
        )
    alone = torch.cat([subject.call(image[None].clone()) for image in x])
    if alone.shape != out.shape or not close(out, alone, 1e-3):
        found = "Found: in evaluation mode, the output for an image depends on the other images of its batch.\n"
        batch = [step for step in trace.layers("norm") if step.settings.get("training") or step.settings["running_mean"] is None]
        if batch:
            return f"{found}`{trace.name(batch[0])}` uses the mean and variance of the batch. {FLAG}"
        return found + "Something works along dimension 0, that of the images (softmax(0), mean(0), …), or uses the mean of the batch."
    step = next((s for s in trace.layers("norm") if s.settings.get("training") and s.settings["running_mean"] is not None), None)
    if step:
        return f"Found: in evaluation mode, `{trace.name(step)}` computes as in training.\n{FLAG}"
    known = {id(t) for t in [*model.parameters(), *model.buffers()]} | trace.outputs
    if trace.touched - known and (hint := _other_device(subject)):  # it computes with tensors from elsewhere
        return hint


def layers(subject, mistakes):
    """Match with the references. Right outputs settle it; else a difference in the layers is the reason to give."""
    if hint := _idle(subject):
        return hint
    try:
        double = copy.deepcopy(subject.model).double()
        subject.call(subject.x.double(), double)
        subject.model, subject.x = double, subject.x.double()
    except (Failed, RuntimeError, TypeError):
        subject.tolerance = 2e-3  # something in it needs float32
    subject.tolerance = getattr(subject, "tolerance", 1e-6)
    disturb(subject.model, subject.call(subject.x.clone(), trace=True)[1])
    subject.out, subject.trace = subject.call(subject.x.clone(), trace=True)
    subject.match, subject.tried = None, []
    for number in range(len(subject.case.references)):
        for pairs, reference in candidates(subject, number):
            subject.tried.append((pairs, reference))
            if close(reference.eval()(subject.x), subject.out, subject.tolerance):
                subject.match = pairs, reference
                return
    found = [step for step in subject.trace.layers()]
    options = []
    for number in range(len(subject.case.references)):
        expected = _traced(_reference(subject, number).to(subject.x.dtype).eval(), subject.x)[1].layers()
        options.append(differences(found, expected, subject.trace, subject.case, subject.answer.advice))
    subject.alike = not all(options)
    if not subject.alike:
        return min(options, key=lambda hints: hints[0])[1:]


def order(subject, mistakes):
    if subject.match:
        return
    subject.named = True
    with torch.no_grad():
        for (hint, function), (_, reference) in itertools.product([*GENERAL, *mistakes], subject.tried[:6]):
            if close(_attempt(function, reference.eval(), subject.x), subject.out, subject.tolerance):
                return _found(subject, hint)
    subject.named = False
    return _found(subject, _other_steps(subject))


def training(subject, mistakes):
    pairs, reference = subject.match
    for number in range(2):
        x = torch.randn(subject.x.shape, dtype=subject.x.dtype) + number
        torch.manual_seed(number)
        out, trace = subject.call(x.clone(), training=True, trace=True)
        still = [step for step in trace.layers("norm") if not step.settings.get("training")]
        if still:
            return f"Found: in training mode, `{trace.name(still[0])}` computes as in evaluation.\n{FLAG}"
        for step in trace.steps:
            if "dropout" in step.kind and step.settings.get("training", True) and step.settings.get("p", 0.5):
                return f"Found: in training mode, there is a {step.describe()}.\nThis network has no dropout: leave it out."
            if "norm" in step.kind and step.kind != "norm":
                return f"Found: `{trace.name(step)}` is a layer of the kind {step.kind}.\nThis network has BatchNorm2d."
        calm = reference.eval()(x)
        torch.manual_seed(number)
        expected = reference.train()(x)
        if not isinstance(out, torch.Tensor) or out.shape != expected.shape:
            return "Found: in training mode, the output is of another shape or type than in evaluation."
        if not close(out, expected, 10 * subject.tolerance):
            if close(out, calm, 10 * subject.tolerance):
                return (
                    "Found: in training mode, the network does the same as in evaluation.\n"
                    "BN must use the mean and variance of the batch then: is it called with training=False, or set to .eval()?"
                )
            for hint, function in mistakes:
                if close(_attempt(function, copy.deepcopy(reference).train(), x), out, 10 * subject.tolerance):
                    return f"Found: in training mode, the output differs.\n{hint}"
            return "Found: in training mode, the output is another one; in evaluation, it is right.\nWhat depends on self.training?"
    names = {id(t): name for name, t in [*subject.model.named_parameters(), *subject.model.named_buffers()]}
    for mine, right in pairs:
        if not mine.requires_grad and not close(mine.view(right.shape), right, 10 * subject.tolerance):
            name = names.get(id(mine), "the running statistics")
            return (
                f"Found: after two steps of training, `{name}` has other numbers than with nn.BatchNorm2d and its defaults.\n"
                "Is `momentum` (0.1) changed, is the layer called more than once, or are the statistics not learnt?"
            )
    if hint := _state_dict(subject):
        return hint


def gradient(subject, mistakes):
    pairs, reference = subject.match
    x = torch.randn(subject.x.shape, dtype=subject.x.dtype)
    names = {id(p): name for name, p in subject.model.named_parameters()}
    pairs = [(mine, right) for mine, right in pairs if right.requires_grad]

    def gradients(function, parameters):
        leaf = x.clone().requires_grad_()
        out = function(leaf * 1)
        if not out.requires_grad:
            return None
        weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
        return torch.autograd.grad((out * weights).sum(), [leaf, *parameters], allow_unused=True)

    subject.model.train(not subject.answer.random), reference.train(not subject.answer.random)
    torch.manual_seed(0)
    mine = subject.answer.run(gradients, subject.model, [m for m, _ in pairs], doing="the backward pass")
    if mine is None:
        return f"Found: the output has no gradient at all.\n{_cut(subject)}"
    torch.manual_seed(0)
    right = gradients(reference, [r for _, r in pairs])
    whose = ["the input", *(f"`{names.get(id(m), 'a parameter')}`" for m, _ in pairs)]
    mine = [m if m is None or r is None else m.reshape(r.shape) for m, r in zip(mine, right, strict=True)]
    none = [name for name, m, r in zip(whose, mine, right, strict=True) if m is None and r is not None]
    wrong = none or [n for n, m, r in zip(whose, mine, right, strict=True) if r is not None and not close(m, r, 100 * subject.tolerance)]
    if not wrong:
        return
    found = f"Found: {'no' if none else 'a wrong'} gradient reaches {wrong[0]}" + (f", nor {len(wrong) - 1} others." if none[1:] else ".")
    expected = reference(x)
    for hint, function in mistakes:
        if not close(_attempt(function, reference, x), expected, subject.tolerance):
            continue
        torch.manual_seed(0)
        other = gradients(functools.partial(function, reference), [r for _, r in pairs])
        if other and all(_same(a, b, subject.tolerance) for a, b in zip(mine, other, strict=True)):
            return f"{found}\n{hint}"
    return f"{found}\n{_cut(subject)}"


FLAG = (
    "A BN uses its batch in training and its running statistics in evaluation. nn.BatchNorm2d does so, with its defaults; "
    "F.batch_norm needs training=self.training."
)


def _cut(subject):
    """Where the way back is cut, as far as it can be seen."""
    ways = {"detach": ".detach()", "detach_": ".detach_()", "data": ".data", "item": ".item()", "tolist": ".tolist()", "numpy": ".numpy()"}
    used = [text for name, text in ways.items() if name in subject.trace.names]
    if "_set_grad_enabled" in subject.trace.names:
        used.append("torch.no_grad()")
    return f"{' and '.join(used) or 'Something'} in `forward` cuts the way back: whatever lies before it doesn't learn from the loss."


STAGES = {
    "runs": runs, "shape": shape, "own": own, "calls": calls, "layers": layers, "order": order, "training": training, "gradient": gradient,
}  # fmt: skip


# ---- matching -------------------------------------------------------------------------------------------------------


def candidates(subject, number):
    """Ways to give the learner's numbers to the reference: (pairs of tensors, the reference with the learner's numbers)."""
    blank = _reference(subject, number).to(subject.x.dtype).eval()
    theirs = _traced(blank, subject.x)[1].layers()
    mine = subject.trace.layers()
    alike = Counter(map(_form, mine)) == Counter(map(_form, theirs)) and all(
        step.weight.is_leaf for step in mine if step.weight is not None
    )
    ways = _by_layers(mine, theirs) if alike else _by_shape(subject.model, blank)
    for pairs in itertools.islice(ways, subject.case.ways):
        reference, places = copy.deepcopy(blank), _tensors(blank)
        copies = _tensors(reference)
        pairs = [(m, copies[places_index(places, r)]) for m, r in pairs]
        with torch.no_grad():
            for m, r in pairs:
                r.copy_(m.view(r.shape))
        yield pairs, reference


def places_index(tensors, one):
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
    """Pair all tensors by their shapes, for networks that are written without PyTorch's own layers and functions."""
    groups, parameters = {}, list(reference.named_parameters())
    buffers = [(name, b) for name, b in reference.named_buffers() if b.dim()]
    for kind, theirs, mine in (
        ("parameter", parameters, list(model.parameters())),
        ("buffer", buffers, [b for b in model.buffers() if b.dim()]),
    ):
        for _, tensor in theirs:
            groups.setdefault((kind, tensor.numel()), ([], []))[0].append(tensor)
        for tensor in mine:
            groups.setdefault((kind, tensor.numel()), ([], []))[1].append(tensor)
    if any(len(r) != len(m) for r, m in groups.values()):
        return
    for way in itertools.product(*(_orders(m) for _, m in groups.values())):
        pairs = [pair for (r, _), m in zip(groups.values(), way, strict=True) for pair in zip(m, r, strict=True)]
        yield pairs


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


# ---- what differs ---------------------------------------------------------------------------------------------------


def differences(found, expected, trace, case, more):
    """[how many differences, hint, …] between two lists of layers; [] if there is none."""
    left, missing = list(found), []
    for step in expected:
        same = next((m for m in left if _key(m) == _key(step)), None)
        if same is None:
            missing.append(step)
        else:
            left.remove(same)
    if not left and not missing:
        return []
    listed = f"Found: {case} has {_list(found)}.\nExpected: {_list(expected)}."
    count = len(left) + len(missing)
    kinds = [Counter(step.kind for step in steps) for steps in (found, expected)]
    if kinds[0] == kinds[1]:  # as many layers of each kind: pair those that differ, in their order
        order = {kind: ([s for s in missing if s.kind == kind], [s for s in left if s.kind == kind]) for kind in kinds[0]}
        pairs = [pair for rights, wrongs in order.values() for pair in zip(rights, wrongs, strict=True)]
        alone = [pair for pair in itertools.product(missing, left) if len(_difference(*map(_key, pair))) == 1]
        pairs = [pair for pair in pairs if pair in alone] or alone or pairs
        right, wrong = pairs[0]
        field_name = next(name for name in FIELDS if name in _difference(_key(right), _key(wrong)))
        advice = more.get(field_name) or FIELDS[field_name]
        text = f"Found: {case}: `{trace.name(wrong)}` is a {wrong.describe()}; expected {right.describe()}."
        return [count, f"{text}\n{advice(right, wrong) if callable(advice) else advice}", listed]
    others = sorted({step.kind for step in left} - {step.kind for step in expected})
    if others and missing:
        wanted = "BatchNorm2d" if "norm" in others[0] else " and ".join(KIND_NAMES[kind] for kind in kinds[1])
        text = f"Found: {case} has a {others[0]} layer.\nThe exercise wants {wanted}."
    elif missing and not left:
        text = f"Found: in {case}, there is no {_list(missing)}.\n"
        convs = [step for step in found if step.kind == "conv"]
        read = [id(conv) for step in found if step.kind == "norm" for conv in step.before(("conv",))]
        width = missing[0].given[0].shape[1]
        bare = [f"`{trace.name(conv)}`" for conv in convs if id(conv) not in read and conv.weight.shape[0] == width]
        if kinds[0]["norm"] < kinds[1]["norm"] and bare:
            text += f"No BN reads what {' and '.join(bare)} {'give' if bare[1:] else 'gives'}."
        else:
            text += more.get("missing", lambda step: "")(missing[0])
    elif left and not missing:
        named = left
        if all(step.kind == "norm" for step in left):  # which one it is shows by what it reads
            same = [_key(step) for step in left]
            odd = [step for step in found if step.reads and step.reads[0].kind != "conv" and _key(step) in same]
            odd = odd if len([step for step in found if _key(step) in same]) > len(left) else left
            named = (odd or left)[: len(left)]
        names = ", ".join(f"`{trace.name(step)}`, which reads {trace.formula(step.given[0]) or 'the main path'}" for step in named[:2])
        text = f"Found: {case} has {_list(left)} too many: {names}.\n{more.get('extra', lambda step: '')(named[0])}"
    else:
        text = f"Found: {case} has {_list(left)}; expected {_list(missing)} instead."
    listed = listed.replace("Found: ", "In all, ", 1)
    return [count, text if len(found) > 12 else f"{text}\n{listed.splitlines()[0]}", listed]


KIND_NAMES = {"conv": "convolutions", "norm": "BatchNorm2d", "linear": "linear layers"}
FIELDS = {
    "bias": lambda right, wrong: (
        "Set bias=False: the BN after a convolution subtracts any bias again."
        if right.settings.get("bias") is None
        else "Leave `bias` at its default, True."
    ),
    "stride": lambda right, wrong: "The stride is another one: which convolution has the block's stride, and does it reach it?",
    "padding": lambda right, wrong: "The padding is another one: (kernel − 1) / 2 keeps height and width.",
    "dilation": lambda right, wrong: "Leave `dilation` at 1.",
    "groups": lambda right, wrong: "`groups` cuts a convolution into parts that don't see each other.",
    "kernel": lambda right, wrong: "The kernel has another size.",
    "in": lambda right, wrong: "It reads another number of channels.",
    "out": lambda right, wrong: "It gives another number of channels.",
    "affine": lambda right, wrong: "Leave `affine` at its default: the BN has a weight and a bias to learn.",
    "statistics": lambda right, wrong: "Leave `track_running_stats` at its default: evaluation needs the running statistics.",
    "eps": lambda right, wrong: "Leave `eps` at its default, 1e-5.",
}


def _difference(a, b):
    """Which settings of two layers differ; the padding only counts where the kernel is the same."""
    differ = {k for k in a if a[k] != b[k]} if a.keys() == b.keys() else {"kind"}
    return differ - {"padding"} if differ & {"kernel", "dilation"} else differ


def _key(step):
    settings, weight = step.settings, step.weight
    if step.kind == "conv":
        padding = settings["padding"]
        if padding == "same" or step.reads and step.reads[0].kind == "pad":
            padding = (weight.shape[2] - 1) // 2  # as far as it can be told
        elif padding == "valid":
            padding = 0
        two = {name: _two(settings[name]) for name in ("stride", "dilation")}
        channels = weight.shape[1] * settings["groups"]
        return {"kind": "conv", "kernel": tuple(weight.shape[2:]), "in": channels, "out": weight.shape[0], **two, "padding": _two(padding),
                "groups": settings["groups"], "bias": settings["bias"] is not None}  # fmt: skip
    if step.kind == "linear":
        return {"kind": "linear", "in": weight.shape[1], "out": weight.shape[0], "bias": settings["bias"] is not None}
    if step.kind == "norm":
        kept = settings["running_mean"] is not None
        return {
            "kind": "norm",
            "in": step.given[0].shape[1],
            "affine": weight is not None,
            "statistics": kept,
            "eps": settings.get("eps", 1e-5),
        }
    return {"kind": step.kind}


def _two(value):
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(v) for v in (value if len(value) == 2 else value[:1] * 2))


def _list(steps):
    return "; ".join(f"{n} × {text}" if n > 1 else text for text, n in Counter(step.describe() for step in steps).items()) or "no layers"


def _paths(subject, trace, x):
    """What to say where two tensors can't be added because of their shapes; None if something else went wrong."""
    if not trace.failed or trace.failed[0] not in ("add", "add_", "__radd__", "__iadd__") or len(trace.failed[1]) != 2:
        return None
    expected = tuple(_attempt(_reference(subject, 0).eval(), torch.zeros(x.shape)).shape)
    sides = [(trace.formula(tensor) or "one path", tuple(tensor.shape), trace.step(tensor)) for tensor in trace.failed[2]]
    text = " and ".join(f"{name}, of shape {shape}" for name, shape, _ in sides)
    text = f"{text} are added.\nBoth must be {expected}. "
    for name, shape, step in sides:
        if shape == expected or step is None:
            continue
        if name == "x":
            return (
                f"{text}The shortcut is x itself here, but this block changes the shape: wherever stride != 1 or in_channels != "
                "out_channels, it needs a projection, with the block's stride and output channels."
            )
        convs, before = _path(step), [s for s in _path(step) if _two(s.settings["stride"]) != (1, 1)]
        listed = f"`{name}` has {_list(convs)}" if convs else f"`{name}` has no convolution"
        if len(shape) != 4 or shape[1] != expected[1]:
            return f"{text}{listed}: look at its channels."
        small = any(0 < e - h <= 4 for e, h in zip(expected[2:], shape[2:], strict=True))
        if small and any(conv.settings["padding"] in (0, (0, 0)) and conv.weight.shape[2] > 1 for conv in convs):
            return f"{text}{listed}: a 3×3 convolution without padding=1 makes the image smaller."
        numbers = [conv for conv in convs if not isinstance(conv.settings["padding"], str)]
        if shape[2] > expected[2] and any(_two(conv.settings["padding"])[0] > conv.weight.shape[2] // 2 for conv in numbers):
            return f"{text}{listed}: a padding is too large. A 3×3 convolution has padding=1, a 1×1 convolution none."
        if shape[2] > expected[2]:
            return f"{text}{listed}: the block's stride is missing on this path."
        if len(before) > 1:
            return f"{text}{listed}: the stride is there twice. One convolution of each path has it."
        return f"{text}{listed}: look at stride and padding; (2, 2) pixels pooled are rounded down, a convolution with stride rounds up."
    return None


def _path(step):
    """The convolutions on the way to a step, without those behind an addition."""
    found, todo = [], [step]
    while todo:
        step = todo.pop()
        if step.kind == "conv" and step not in found:
            found.append(step)
        todo += step.reads
    return found[::-1]


def _found(subject, hint):
    """A hint with the formula of what was found, in the learner's own names, and of what is expected."""
    formula = subject.trace.formula(subject.out)
    if not formula:
        return f"Found: {subject.case} gives another output.\n{hint}"
    lines = f"Found: {subject.case} computes {formula}\n{hint}"
    if subject.tried:
        pairs, reference = subject.tried[0]
        out, trace = _traced(reference.eval(), subject.x)
        names = {id(p): name for name, p in subject.model.named_parameters()}
        theirs = {id(r): names.get(id(m), "").rpartition(".")[0] for m, r in pairs}
        plain = trace.name
        trace.name = lambda step: theirs.get(id(step.weight)) or plain(step)
        expected = trace.formula(out)
        if expected:
            return lines, f"Found: {formula}\nExpected: {expected}"
    return lines


def _other_steps(subject):
    """What differs if no known mistake behaves like the answer: the number of steps of some kind, or only their order."""
    if subject.tried:
        _, trace = _traced(subject.tried[0][1].eval(), subject.x)
        expected = Counter(step.kind for step in trace.steps if step.kind not in LAYERS)
        found = Counter(step.kind for step in subject.trace.steps if step.kind not in LAYERS)
        names = {"relu": "ReLU", "add": "addition", "cat": "torch.cat"}
        for kind in ("relu", "add", "max-pooling", "average pooling", "adaptive average pooling", "cat"):
            if found[kind] != expected[kind] and found[kind] + expected[kind]:
                return f"It has {found[kind]} × {names.get(kind, kind)}; expected {expected[kind]}."
        extra = [kind for kind in found if kind not in expected and kind not in ("view", "reshape", "flatten", "__getitem__", "mean")]
        if extra:
            return f"There is something that doesn't belong there: {', '.join(map(str, extra))}."
        for number, (mine, right) in enumerate(zip(subject.trace.steps, trace.steps, strict=False), start=1):
            if mine.kind != right.kind:
                return f"The order of the steps differs: step {number} is {mine.describe()}; expected {right.describe()}."
    return "The layers are the right ones, but their order or what they read differs."


GENERAL = [
    (
        "In evaluation it does what it should do in training: BN must use its running statistics then.",
        lambda r, x: copy.deepcopy(r).train()(x),
    ),
    ("A softmax follows at the end: leave it out, the loss has one.", lambda r, x: r(x).softmax(1)),
    ("A log-softmax follows at the end: leave it out, the loss has one.", lambda r, x: r(x).log_softmax(1)),
    ("A sigmoid follows at the end: leave it out.", lambda r, x: r(x).sigmoid()),
]


def _unregistered(subject, step):
    model, case = subject.model, subject.case
    what = step.describe()
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, (list, tuple, dict)) and not key.startswith("_"):
                inside = list(value.values()) if isinstance(value, dict) else list(value)
                if any(isinstance(part, nn.Module) for part in _flat(inside)):
                    kind, better = type(value).__name__, "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
                    return (
                        f"Found: `self.{key}` is a Python {kind}, so PyTorch doesn't know the layers in it ({what}, for one).\n"
                        f"model.parameters() leaves them out: they would never learn. Use {better} or nn.Sequential."
                    )
    again = subject.call(subject.x.clone(), trace=True)[1].layers()
    if not any(step.weight is other.weight for other in again):
        return (
            f"Found: `forward` of {case} makes a layer anew in every call ({what}).\n"
            "It starts with other weights each time and never learns. Make all layers in `__init__`."
        )
    if not isinstance(step.weight, nn.Parameter):
        return f"Found: the weights of a layer ({what}) are a plain tensor.\nnn.Parameter(…) makes a tensor one that is learnt."
    return (
        f"Found: a layer ({what}) doesn't belong to the network: model.parameters() leaves it out.\n"
        "Make it in `__init__` and keep it as self.something."
    )


def _flat(values):
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _shape_advice(found, expected, subject):
    if not subject.out.is_floating_point():
        return "Return the numbers that the last layer gives, without argmax."
    if found == tuple(size for size in expected if size != 1):
        return "squeeze() drops every dimension of size 1, that of a single image, too: leave it out."
    if len(found) != len(expected):
        return f"Expected {len(expected)} dimensions, found {len(found)}."
    if found[0] != expected[0]:
        return "The first dimension is the number of images: it must stay as it is."
    if len(found) == 2:
        if not subject.case.arguments and not subject.case.keywords:
            return f"Without an argument there are {expected[1]} classes. Is the default another one, or the last layer left out?"
        return "The second number is that of the classes: the last layer must take it from the argument."
    if found[1] != expected[1]:
        joined = any(step.kind == "cat" for step in subject.trace.steps)
        return "The number of channels differs." + (" torch.cat puts the paths side by side: here they are added." if joined else "")
    given, keywords = subject.case.shapes[0], subject.case.keywords
    if len(given) == 4 and found[2:] == tuple(given[2:]) and expected[2:] != found[2:] and "stride" in keywords:
        return "The stride isn't used: the image keeps its size."
    if len(given) == 4 and expected[2:] == tuple(given[2:]) and "stride" not in keywords and found[2] <= given[2] / 2 + 1:
        return "Without that argument, `stride` is 1: height and width stay as they are."
    return "Height and width differ: look at stride and padding (a 3×3 kernel needs padding=1)."


def _other_device(subject):
    """On a device without numbers, a tensor that the code makes on the CPU shows."""
    try:
        out = subject.call(subject.x.to("meta"), copy.deepcopy(subject.model).to("meta"))
        where = out.device.type
    except (Failed, RuntimeError, TypeError) as error:
        text = str(error.error) if isinstance(error, Failed) else str(error)
        where = "cpu" if "device" in text and ("cpu" in text or "same device" in text) else "meta"
    if where != "meta":
        return (
            "Found: moved to another device, the network still computes on the CPU, or fails: on a GPU it would not work.\n"
            "Tensors that `forward` makes need device=x.device, or x.new_zeros(…); layers belong into `__init__`."
        )


def _idle(subject):
    model, case = subject.model, subject.case
    idle = [name for name, p in model.named_parameters() if id(p) not in subject.trace.touched]
    if idle:
        count = sum(p.numel() for name, p in model.named_parameters() if name in idle)
        layer = idle[0].rpartition(".")[0] or idle[0]
        return (
            f"Found: `{layer}` is made by {case} and never used in `forward`: {count:,} parameters too many.\n"
            "Use it, or don't make it where it isn't needed."
        )


def _state_dict(subject):
    """A second network that takes over the state_dict must do the same."""
    other = subject.answer(*subject.case.arguments, **subject.case.keywords)
    other = other.to(subject.x.dtype)
    try:
        other.load_state_dict(subject.model.state_dict())
    except RuntimeError as error:
        return f"Found: a second network can't load the state_dict: {' '.join(str(error).split())[:200]}"
    if not close(subject.call(subject.x.clone(), other), subject.call(subject.x.clone()), 10 * subject.tolerance):
        return (
            "Found: a second network that loads the state_dict of the first gives another output.\n"
            "Something isn't saved: running statistics are buffers (self.register_buffer), parameters are nn.Parameter."
        )


def _reference(subject, number):
    return subject.case.references[number]()


def _traced(model, x):
    with torch.no_grad(), Trace(model, x) as trace:
        return model(x), trace


def _attempt(function, *args):
    try:
        return function(*args)
    except (RuntimeError, ValueError, AttributeError, TypeError, IndexError):  # a variation that doesn't fit these shapes
        return None


def close(a, b, tolerance=1e-4):
    if a is None or b is None or a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach().to(a.dtype)
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max())) if a.numel() else True


def _same(a, b, tolerance):
    return a is b is None or (a is None or not a.any()) and (b is None or not b.any()) or close(a, b, 100 * tolerance)


def _as_tuple(hints):
    return (hints,) if isinstance(hints, str) else tuple(hints or ())


__all__ = ["CLAIMS", "Case", "network", "close", "disturb", "guard"]
