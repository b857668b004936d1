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

from .diagnosis import (
    cannot_be_added,
    differences,
    idle,
    other_device,
    other_steps,
    shape_advice,
    state_dict_differs,
    unregistered,
    with_formula,
)  # fmt: skip
from .guard import Failed
from .matching import LIMIT, attempt, candidates, close, disturb, reference_of, traced
from .trace import Trace

GENERAL = [
    (
        "In evaluation it does what it should do in training: BN must use its running statistics then.",
        lambda r, x: copy.deepcopy(r).train()(x),
    ),
    ("A softmax follows at the end: leave it out, the loss has one.", lambda r, x: r(x).softmax(1)),
    ("A log-softmax follows at the end: leave it out, the loss has one.", lambda r, x: r(x).log_softmax(1)),
    ("A sigmoid follows at the end: leave it out.", lambda r, x: r(x).sigmoid()),
]

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


@dataclass
class Case:
    name: str
    arguments: tuple
    keywords: dict
    references: list  # functions that make the accepted networks
    shapes: list  # of inputs; everything is compared on the first
    values: str = "normal"
    seen: dict = field(default_factory=dict)
    ways: int = 2 * LIMIT  # how many ways of matching are tried

    def __str__(self):
        return f"{self.name}({', '.join([*map(str, self.arguments), *(f'{k}={v!r}' for k, v in self.keywords.items())])})"


class Subject:
    """One network that the answer has made, with what is known about it."""

    def __init__(self, answer, case):
        self.answer, self.case = answer, case
        self.model = None  # the learner's network; from the stage "layers" on a copy in float64, with its numbers disturbed
        self.x, self.out, self.trace = torch.randn(case.shapes[0]), None, None  # an input, what comes out in evaluation, and how
        self.early, self.born_training, self.other_mode = set(), True, []  # names of parameters before the first call; modes
        self.tolerance = 1e-6
        self.tried, self.match = [], None  # (pairs of tensors, reference): all that were tried, and the one that is equal
        self.alike = self.named = False  # whether the layers are those of a reference; whether `order` knows the mistake

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
            hint = cannot_be_added(self, watch, x)
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
        if subject.alike and not subject.match:
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
        expected = tuple(reference_of(subject, 0).eval()(torch.zeros(shape)).shape)
        out = subject.call(torch.randn(shape))
        found = tuple(out.shape)
        if found != expected:
            subject.out = out
            text = f"Found: {subject.case} makes {tuple(shape)} to {found}; expected {expected}."
            return text + "\n" + shape_advice(found, expected, shape, subject)
        if out.dtype != torch.float32:
            return f"Found: the output is {out.dtype}; expected torch.float32, as the input."


def own(subject, mistakes):
    model, trace, case = subject.model, subject.trace, subject.case
    registered = {id(p): name for name, p in model.named_parameters()}
    used = [(step, tensor) for step in trace.layers() for tensor in (step.weight, step.settings.get("bias")) if tensor is not None]
    outside = [step for step, tensor in used if id(tensor) not in registered and tensor.is_leaf]
    if outside:
        return unregistered(subject, outside[0])
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
        if len({id(step.given[0]) for step in twice if step.weight is twice[0].weight}) == 1:  # both read the same tensor
            what = {twice[0].kind: "It reads the same each time: compute that once, keep it under a name, and use it twice."}
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
    if trace.touched - known and (hint := other_device(subject)):  # it computes with tensors from elsewhere
        return hint


def layers(subject, mistakes):
    """Match with the references. Right outputs settle it; else a difference in the layers is the reason to give."""
    if hint := idle(subject):
        return hint
    try:
        double = copy.deepcopy(subject.model).double()
        subject.call(subject.x.double(), double)
        subject.model, subject.x = double, subject.x.double()
    except (Failed, RuntimeError, TypeError):
        subject.tolerance = 2e-3  # something in it needs float32
    disturb(subject.model, subject.call(subject.x.clone(), trace=True)[1])
    subject.out, subject.trace = subject.call(subject.x.clone(), trace=True)
    for number in range(len(subject.case.references)):
        for pairs, reference in candidates(subject, number):
            subject.tried.append((pairs, reference))
            if close(reference.eval()(subject.x), subject.out, subject.tolerance):
                subject.match = pairs, reference
                return
    hints = _layers_differ(subject)
    subject.alike = not hints
    return hints


def _layers_differ(subject):
    """What differs between the layers and those of the nearest reference; nothing if they are alike."""
    found = [step for step in subject.trace.layers()]
    options = []
    for number in range(len(subject.case.references)):
        expected = traced(reference_of(subject, number).to(subject.x.dtype).eval(), subject.x)[1].layers()
        options.append(differences(found, expected, subject.trace, subject.case, subject.answer.advice))
    if all(options):
        return min(options, key=lambda hints: hints[0])[1:]


def order(subject, mistakes):
    if subject.match:
        return
    subject.named = True
    with torch.no_grad():
        for (hint, function), (_, reference) in itertools.product([*GENERAL, *mistakes], subject.tried[:6]):
            if close(attempt(function, reference.eval(), subject.x), subject.out, subject.tolerance):
                return with_formula(subject, hint)
    subject.named = False
    return with_formula(subject, other_steps(subject))


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
        twin = attempt(copy.deepcopy, subject.model)  # None if it keeps a tensor that can't be copied
        if twin is not None and not close(out, subject.call(x.clone(), twin, training=True), 10 * subject.tolerance):
            found = "Found: in training mode, two calls with the same input give different outputs.\n"
            return found + "Nothing in this network is random: leave it out."
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
                if close(attempt(function, copy.deepcopy(reference).train(), x), out, 10 * subject.tolerance):
                    return f"Found: in training mode, the output differs.\n{hint}"
            if found := _layers_differ(subject):  # a stride on a later 1×1 convolution shows in the BNs' statistics alone
                return found
            return "Found: in training mode, the output is another one; in evaluation, it is right.\nWhat depends on self.training?"
    names = {id(t): name for name, t in [*subject.model.named_parameters(), *subject.model.named_buffers()]}
    for mine, right in pairs:
        if not mine.requires_grad and not close(mine.view(right.shape), right, 10 * subject.tolerance):
            name = names.get(id(mine), "the running statistics")
            return (
                f"Found: after two steps of training, `{name}` has other numbers than with nn.BatchNorm2d and its defaults.\n"
                "Is `momentum` (0.1) changed, is the layer called more than once, or are the statistics not learnt?"
            )
    if hint := state_dict_differs(subject):
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
        if not close(attempt(function, reference, x), expected, subject.tolerance):
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
    if subject.out.is_inference():
        used.append("torch.inference_mode()")
    if "_set_grad_enabled" in subject.trace.names:
        used.append("torch.no_grad()")
    return f"{' and '.join(used) or 'Something'} in `forward` cuts the way back: whatever lies before it doesn't learn from the loss."


STAGES = {
    "runs": runs, "shape": shape, "own": own, "calls": calls, "layers": layers, "order": order, "training": training, "gradient": gradient,
}  # fmt: skip


def _same(a, b, tolerance):
    return a is b is None or (a is None or not a.any()) and (b is None or not b.any()) or close(a, b, 100 * tolerance)


def _as_tuple(hints):
    return (hints,) if isinstance(hints, str) else tuple(hints or ())
