"""What differs between a learner's network and the reference, in words: layers, steps, shapes, and what isn't registered."""

import copy
import itertools
import math
from collections import Counter

import torch
from torch import nn

from .guard import Failed
from .matching import attempt, close, reference_of, traced
from .trace import LAYERS


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
        if kinds[0]["norm"] < kinds[1]["norm"] and bare and more.get("norms_follow", True):
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
        if advised := more.get("missing", lambda step: "")(missing[0]):
            text += f"\n{advised}"
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


def cannot_be_added(subject, trace, x):
    """What to say where two tensors can't be added because of their shapes; None if something else went wrong."""
    if not trace.failed or trace.failed[0] not in ("add", "add_", "__radd__", "__iadd__") or len(trace.failed[1]) != 2:
        return None
    expected = tuple(attempt(reference_of(subject, 0).eval(), torch.zeros(x.shape)).shape)
    sides = [(trace.formula(tensor) or "one path", tuple(tensor.shape), trace.step(tensor)) for tensor in trace.failed[2]]
    text = " and ".join(f"{name}, of shape {shape}" for name, shape, _ in sides)
    if "added" in subject.answer.advice:  # of a network that adds nothing
        return f"{text} are added.\n{subject.answer.advice['added']}"
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
        strides = math.prod(_two(conv.settings["stride"])[0] for conv in convs)
        if shape[2] > expected[2] and strides >= -(-x.shape[2] // expected[2]):
            return f"{text}{listed}: its padding is too large. A 3×3 kernel needs padding=1, a 1×1 none."
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


def with_formula(subject, hint):
    """A hint with the formula of what was found, in the learner's own names, and of what is expected."""
    formula = subject.trace.formula(subject.out)
    if not formula:
        return f"Found: {subject.case} gives another output.\n{hint}"
    lines = f"Found: {subject.case} computes {formula}\n{hint}"
    if subject.tried:
        pairs, reference = subject.tried[0]
        out, trace = traced(reference.eval(), subject.x)
        names = {id(p): name for name, p in subject.model.named_parameters()}
        theirs = {id(r): names.get(id(m), "").rpartition(".")[0] for m, r in pairs}
        plain = trace.name
        trace.name = lambda step: theirs.get(id(step.weight)) or plain(step)
        expected = trace.formula(out)
        if expected:
            return lines, f"Found: {formula}\nExpected: {expected}"
    return lines


def other_steps(subject):
    """What differs if no known mistake behaves like the answer: the number of steps of some kind, or only their order."""
    if subject.tried:
        _, trace = traced(subject.tried[0][1].eval(), subject.x)
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


def unregistered(subject, step):
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


def shape_advice(found, expected, shape, subject):
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
    paths = subject.answer.advice.get("joins")  # a block that joins its paths, and has no stride
    if found[1] != expected[1]:
        joined = not paths and any(step.kind == "cat" for step in subject.trace.steps)
        more = subject.answer.advice.get("channels", "The number of channels differs.")
        return more + (" torch.cat puts the paths side by side: here they are added." if joined else "")
    given, keywords = subject.case.shapes[0], subject.case.keywords
    if len(given) == 4 and found[2:] == tuple(given[2:]) and expected[2:] != found[2:] and "stride" in keywords:
        return "The stride isn't used: the image keeps its size."
    if "stride" in keywords and (same := [s for s in (2, 3, 4) if found[2:] == tuple(-(-size // s) for size in shape[2:])]):
        return f"That is what stride {same[0]} gives: use the argument, wherever the block needs its stride."
    if len(given) == 4 and expected[2:] == tuple(given[2:]) and "stride" not in keywords and found[2] <= given[2] / 2 + 1 and not paths:
        return "Without that argument, `stride` is 1: height and width stay as they are."
    return "Height and width differ: look at stride and padding (a 3×3 kernel needs padding=1)."


def other_device(subject):
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


def idle(subject):
    model, case = subject.model, subject.case
    if not subject.trace.touched & {id(p) for p in model.parameters()}:
        return None  # a scripted network shows nothing of what it does
    idle = [name for name, p in model.named_parameters() if id(p) not in subject.trace.touched]
    if idle:
        count = sum(p.numel() for name, p in model.named_parameters() if name in idle)
        layer = idle[0].rpartition(".")[0] or idle[0]
        return (
            f"Found: `{layer}` is made by {case} and never used in `forward`: {count:,} parameters too many.\n"
            "Use it, or don't make it where it isn't needed."
        )


def state_dict_differs(subject):
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
