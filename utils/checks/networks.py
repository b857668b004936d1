"""What the checks of ResNet-25 and ResNet share: what may go wrong between a network's parts, and what to say about it.

r is the reference, a models.ResNet with r.stem (convolution, BN, ReLU, and a max-pooling if there is one), r.stages and r.head.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .guard import Failed
from .stages import Seen, improved, network_hint
from .trace import Trace

MEAN = "The linear layer reads the mean over all positions: nn.AdaptiveAvgPool2d(1), or x.mean((2, 3))."
LARGE = "The table says 3×3 max-pooling with stride 2 and padding 1, after the ReLU."
SMALL = "Here no pooling follows the stem: 32×32 images are small."
RIGHT_POOLING = dict(kernel_size=3, stride=2, padding=1)
POOLINGS = [  # (what is done instead, function)
    ("a 3×3 max-pooling with stride 2", lambda x: F.max_pool2d(x, **RIGHT_POOLING)),
    ("a 2×2 max-pooling", lambda x: F.max_pool2d(x, 2)),
    ("a 3×3 max-pooling with stride 1", lambda x: F.max_pool2d(x, 3, 1, 1)),
    ("a 3×3 max-pooling with stride 2 and no padding", lambda x: F.max_pool2d(x, 3, 2)),
    ("a 3×3 max-pooling with stride 3", lambda x: F.max_pool2d(x, 3)),
    ("a 3×3 max-pooling with stride 3 and padding 1", lambda x: F.max_pool2d(x, 3, padding=1)),
    ("a 3×3 max-pooling with stride 2 and ceil_mode instead of padding", lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    ("a 3×3 max-pooling with stride 2, padding 1 and ceil_mode=True", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
    ("a 3×3 average pooling with stride 2", lambda x: F.avg_pool2d(x, 3, 2, 1)),
    ("a 2×2 average pooling", lambda x: F.avg_pool2d(x, 2)),
    ("two 3×3 max-poolings", lambda x: F.max_pool2d(F.max_pool2d(x, **RIGHT_POOLING), **RIGHT_POOLING)),
]


def _starts():
    """(hint, function(r, x)): what may be done instead of the stem; None: it doesn't apply."""

    def steps(order):
        def start(r, x):
            if ("p" in order) != (len(r.stem) > 3):
                return None
            does = {"c": r.stem[0], "n": r.stem[1], "r": torch.relu, "p": lambda x: F.max_pool2d(x, **RIGHT_POOLING)}
            for step in order:
                x = does[step](x)
            return x

        return start

    yield None, lambda r, x: r.stem(x)
    for hint, order in (
        ("The ReLU of the stem is missing.", "cn"),
        ("In the stem, the ReLU stands before the BN: the order is convolution, BN, ReLU.", "crn"),
        ("The BN and the ReLU of the stem are left out.", "c"),
        ("The BN of the stem is left out.", "cr"),
        ("The stem's ReLU is applied to the images: it follows the BN.", "rcn"),
    ):
        yield hint, steps(order)
        yield hint, steps(order + "p")
    for hint, order in (
        ("In the stem, the max-pooling stands before the BN: it comes after BN and ReLU.", "cpnr"),
        ("In the stem, the max-pooling stands before the convolution: it comes after BN and ReLU.", "pcnr"),
    ):
        yield hint, steps(order)
    yield f"The max-pooling of the stem is missing. {LARGE}", lambda r, x: r.stem[:3](x) if len(r.stem) > 3 else None
    for number, (text, other) in enumerate(POOLINGS):
        yield f"After the stem stands {text}. {SMALL}", lambda r, x, other=other: other(r.stem(x)) if len(r.stem) == 3 else None
        if number:
            yield f"In the stem stands {text}. {LARGE}", lambda r, x, other=other: other(r.stem[:3](x)) if len(r.stem) > 3 else None


def _middles(stages):
    yield None, lambda r, x: r.stages(x)
    for number in range(stages):
        yield (
            f"Stage {number + 1} is left out on the way through.",
            lambda r, x, number=number: nn.Sequential(*r.stages[:number], *r.stages[number + 1 :])(x),
        )
        yield (
            f"Around stage {number + 1}, its input is added once more: the shortcuts are in the blocks.",
            lambda r, x, number=number: r.stages[number + 1 :]((y := r.stages[:number](x)) + r.stages[number](y)),
        )


def _ends():
    fixed = "The last pooling has windows of a fixed size, and leaves out pixels."
    for hint, pooling in (
        (None, lambda x: x.mean((2, 3))),
        ("The last pooling takes the largest number of each channel.", lambda x: x.amax((2, 3))),
        ("The last step sums up all positions.", lambda x: x.sum((2, 3))),
        ("The last step takes the first pixel alone.", lambda x: x[:, :, 0, 0]),
        ("The last step takes the last pixel alone.", lambda x: x[:, :, -1, -1]),
        ("The last step takes the pixel in the middle alone.", lambda x: x[:, :, x.shape[2] // 2, x.shape[3] // 2]),
        ("The last step adds the largest number and the mean.", lambda x: x.amax((2, 3)) + x.mean((2, 3))),
        ("The last step takes the median.", lambda x: x.flatten(2).median(2).values),
        ("The pooled numbers are divided by their length.", lambda x: F.normalize(x.mean((2, 3)))),
        ("The square root of the mean of squares is taken.", lambda x: x.square().mean((2, 3)).sqrt()),
        (fixed, lambda x: F.avg_pool2d(x, 2)[:, :, 0, 0]),
        (fixed, lambda x: F.avg_pool2d(x, min(x.shape[2:]))[:, :, 0, 0]),
        ("The means of the rows are taken, and the largest of them.", lambda x: x.mean(3).amax(2)),
    ):
        yield hint and f"{hint} {MEAN}", lambda r, x, pooling=pooling: r.head[-1](pooling(x))
    logits = "follows the linear layer: nothing follows it, logits may be any numbers."
    for name, last in (
        ("A ReLU", torch.relu), ("A tanh", torch.tanh), ("A softplus", F.softplus), ("A leaky ReLU", F.leaky_relu), ("A GELU", F.gelu),
        ("A normalisation", F.normalize), ("A SiLU", F.silu), ("A log-sigmoid", F.logsigmoid),
        ("A softmax over the images", lambda x: x.softmax(0)),
        ("An ELU", F.elu), ("An absolute value", torch.abs), ("A ReLU6", F.relu6), ("An exponential function", torch.exp),
    ):  # fmt: skip
        yield f"{name} {logits}", lambda r, x, last=last: last(r.head(x))
    for name, last in (("A softmax", lambda x: x.softmax(1)), ("A log-softmax", lambda x: x.log_softmax(1)), ("A sigmoid", torch.sigmoid)):
        yield f"{name} follows the linear layer: leave it out, the loss has one.", lambda r, x, last=last: last(r.head(x))


def network_mistakes(stages):
    """(hint, function(r, x)), for compare.network: one part done differently, then two. Each start is computed once for all ends."""
    kept = {}

    def through(r, x, start, middle):
        key = id(r), id(x), start, middle
        if key not in kept or kept[key][0] is not r or kept[key][1] is not x:
            begun = start(r, x)
            kept[key] = r, x, None if begun is None else middle(r, begun)
        return kept[key][2]

    def whole(r, x, start, middle, end):
        if r.training:  # there, only what cuts the gradient off is left to be found
            return None
        x = through(r, x, start, middle)
        return None if x is None else end(r, x)

    (_, start), *starts = _starts()
    (_, middle), *middles = _middles(stages)
    (_, end), *ends = _ends()
    for hint, other in ends:
        yield hint, lambda r, x, other=other: whole(r, x, start, middle, other)
    for hint, other in starts:
        yield hint, lambda r, x, other=other: whole(r, x, other, middle, end)
    for hint, other in middles:
        yield hint, lambda r, x, other=other: whole(r, x, start, other, end)
    for (a, first), (b, last) in itertools.product(starts, ends):
        yield f"{a} {b}", lambda r, x, first=first, last=last: whole(r, x, first, middle, last)

    def cut(before, after):
        return lambda r, x: after(r, before(r, x).detach()) if r.training else None

    way = "is cut off from the gradient (.detach(), .data, no_grad): nothing before that learns."
    yield f"The network's input {way}", cut(lambda r, x: x, lambda r, x: r(x))
    yield f"The stem's output {way}", cut(lambda r, x: r.stem(x), lambda r, x: r.head(r.stages(x)))
    for n in range(stages):
        what = f"The output of stage {n + 1}" if n < stages - 1 else "What the last stage gives to the linear layer"
        yield f"{what} {way}", cut(lambda r, x, n=n: r.stages[: n + 1](r.stem(x)), lambda r, x, n=n: r.head(r.stages[n + 1 :](x)))


# ---- the reason of a failure ----------------------------------------------------------------------------------------


def before_linear(answer, seen, channels):
    """What is wrong with the numbers that the last layer is given; None if that isn't the trouble."""
    if seen.model is None:
        return None
    x = torch.randn(seen.case.shapes[0])
    for shape in seen.case.shapes:
        x = torch.randn(shape)
        trace = Trace(seen.model, x)
        try:
            with torch.no_grad():
                answer.run(seen.model.eval(), x, trace=trace)
        except Failed:
            break
    else:
        return None
    if not trace.failed or not trace.steps:
        return None
    name, shapes = trace.failed[:2]
    last_layer = max((i for i, step in enumerate(trace.steps) if step.kind in ("conv", "norm", "add", "relu")), default=0)
    pools = [step for step in trace.steps[last_layer:] if "pooling" in step.kind or step.kind in ("mean", "sum", "amax")]
    last = pools[-1].describe() if pools else ""
    given = f"{seen.case} on an input of shape {tuple(x.shape)}"
    if name in ("avg_pool2d", "max_pool2d") and shapes:
        if len(shapes[0]) != 4 or shapes[0][1] != channels:
            return None
        found = f"Found: {given} fails at a pooling with windows of a fixed size, which gets {shapes[0]}.\n"
        return f"{found}It doesn't fit images of every size. {MEAN}"
    if name != "linear" or not shapes:
        return None
    numbers, made = shapes[0], shapes[1] if len(shapes) > 1 else None
    text = f"Found: in {given}, the linear layer gets a tensor of shape {numbers}" + (
        f", and was made for {made[1]} numbers.\n" if made else ".\n"
    )
    if len(numbers) != 2:
        return (
            f"{text}Flatten what the pooling gives to (N, {channels}): torch.flatten(x, 1), or x.mean((2, 3)). flatten() without the 1 "
            "makes one row of all images."
        )
    if numbers[0] != len(x):
        return (
            f"{text}The first dimension is the number of images, {len(x)}: it stays as it is. x.flatten(1), not x.flatten() or x.view(…)."
        )
    if numbers[1] == channels and made:
        return f"{text}The last stage gives {channels} channels: that is what the linear layer reads."
    if numbers[1] % channels == 0 and numbers[1] > channels:
        how = (
            f" The last pooling is a {last}." if pools and "kernel" in str(pools[-1].settings) else "" if pools else " There is no pooling."
        )
        return f"{text}{numbers[1]} is {channels} channels times {numbers[1] // channels} positions.{how} {MEAN}"
    return text + MEAN if made and made[1] == channels else None


def explained(rows, answer, cases, kind, layout, name):
    """The rows of compare.network, with a hint of a teacher where the blocks or what the linear layer reads are the reason.

    layout(case): {"layers": …, "widths": …, "expansion": …, …} for network_hint.
    """

    def explain():
        for case in cases:
            seen = Seen(answer, case, kind)
            if seen.error is not None and seen.model is None:
                return None
            plan = layout(case)
            hint = network_hint(seen, name=name(case), **plan) or before_linear(answer, seen, plan["widths"][-1] * plan["expansion"])
            if hint:
                return hint
        return None

    return (yield from improved(rows, explain))
