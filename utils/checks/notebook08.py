"""Checks of notebook 08: the Inception block, without and with a shortcut, the block of ResNeXt, and the identity."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .. import blocks, models
from . import guard
from .compare import Case, network
from .framework import exercise
from .guard import Failed
from .variations import OTHER_ACTIVATIONS, combine, cuts, joins, other, relu, same

# ---- Inception ------------------------------------------------------------------------------------------------------

PATHS = ("the 1×1 path", "the 3×3 path", "the 5×5 path", "the pooling path")
ONE_BY_ONE = "Each convolution reads what belongs to its path: the first of each path reads x (the fourth: the pooled x)."
SHORTCUT = "x is added to the result: an Inception block has no shortcut. Return what torch.cat gives."
WHICH = {"1": "of the first path", "2a": "of the 1×1 before the 3×3", "2b": "of the 3×3", "3a": "of the 1×1 before the 5×5",
         "3b": "of the 5×5", "4": "of the 1×1 after the pooling"}  # fmt: skip


def _units(r):
    """The reference's six (convolution, BN), by their places."""
    units = {"1": r.one, "2a": r.three[0], "2b": r.three[1], "3a": r.five[0], "3b": r.five[1], "4": r.pool[1]}
    return {place: (unit[0], unit[1]) for place, unit in units.items()}


def _inception(
    pool=lambda x: F.max_pool2d(x, 3, 1, 1), acts=None, swapped=(), order=(0, 1, 2, 3), late=False, end=same, before=same, added=same
):
    """function(r, x). acts: {place: activation}. swapped: places whose ReLU stands before the BN. late: pooling after the convolution."""
    acts = acts or {}

    def run(r, x):
        units = _units(r)

        def unit(place, y):
            conv, norm = units[place]
            act = acts.get(place, relu)
            return norm(act(conv(y))) if place in swapped else act(norm(conv(y)))

        x = before(x)
        fourth = pool(unit("4", x)) if late else unit("4", pool(x))
        paths = [unit("1", x), unit("2b", unit("2a", x)), unit("3b", unit("3a", x)), fourth]
        joined = end(torch.cat([paths[number] for number in order], 1))
        return joined if added is same else added(joined + x)

    return run


POOLS = {
    "The fourth path takes the mean of 3×3 pixels: the table says max-pooling, nn.MaxPool2d(3, stride=1, padding=1).": [
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1),
        lambda x: F.avg_pool2d(x, 5, 1, 2),
        lambda x: F.avg_pool2d(x, 5, 1, 2, count_include_pad=False),
    ],
    "The fourth path does not pool: nn.MaxPool2d(3, stride=1, padding=1) stands before its convolution.": [same],
    "The pooling windows are 5×5: the table says 3×3.": [lambda x: F.max_pool2d(x, 5, 1, 2)],
    "The pooling windows are 7×7: the table says 3×3.": [lambda x: F.max_pool2d(x, 7, 1, 3)],
    "The pooling windows have 2×2 pixels: the table says 3×3.": [
        lambda x, pad=pad, value=value: F.max_pool2d(F.pad(x, pad, value=value), 2, 1)
        for pad in ((0, 1, 0, 1), (1, 0, 1, 0))
        for value in (0.0, float("-inf"))
    ],
    "The pooling is padded with zeros, which hide what is negative: nn.MaxPool2d(3, stride=1, padding=1) pads with −∞.": [
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)
    ],
    "The fourth path takes the minimum: nn.MaxPool2d takes the maximum.": [lambda x: -F.max_pool2d(-x, 3, 1, 1)],
    "The fourth path pools over the whole image: 3×3 pixels.": [
        lambda x: F.adaptive_avg_pool2d(x, 1).expand_as(x),
        lambda x: F.adaptive_max_pool2d(x, 1).expand_as(x),
    ],
    "The fourth path pools with a stride and enlarges the result again: stride=1 and padding=1 keep height and width.": [
        lambda x, pad=pad, mode=mode, kernel=kernel: F.interpolate(F.max_pool2d(x, kernel, 2, pad), size=x.shape[2:], mode=mode)
        for kernel, pad in ((3, 1), (2, 0))
        for mode in ("nearest", "bilinear")
    ],
    "The fourth path pools twice: once is enough.": [lambda x: F.max_pool2d(F.max_pool2d(x, 3, 1, 1), 3, 1, 1)],
    "A ReLU stands before or after the pooling: the path begins with the pooling of x itself.": [
        lambda x: F.max_pool2d(relu(x), 3, 1, 1)
    ],
}  # fmt: skip


def _inception_mistakes():
    yield from _inception_cuts()
    pools = [(hint, function) for hint, functions in POOLS.items() for function in functions]
    late = "The pooling comes after the 1×1 convolution, its BN and ReLU: it stands before them."
    orders = []
    for order in itertools.permutations(range(4)):
        if order != (0, 1, 2, 3):
            named = ", ".join(PATHS[number].removeprefix("the ").removesuffix(" path") for number in order)
            orders.append((f"The paths are joined in another order ({named}): 1×1, 3×3, 5×5, pooling.", order))
    places = list(WHICH)
    last, inner = ("1", "2b", "3b", "4"), ("2a", "3a")
    missing = [(f"The ReLU {WHICH[place]} is missing: BN and ReLU follow each convolution.", (place,)) for place in places]
    missing += [
        ("All ReLUs are missing: BN and ReLU follow each convolution.", tuple(places)),
        ("The last ReLU of each path is missing: BN and ReLU follow each convolution.", last),
        ("The ReLUs after the 1×1 convolutions before the 3×3 and the 5×5 are missing: BN and ReLU follow each convolution.", inner),
        ("The ReLUs of the first and the fourth path are missing: BN and ReLU follow each convolution.", ("1", "4")),
        ("The ReLUs of the four 1×1 convolutions are missing: BN and ReLU follow each convolution.", ("1", "2a", "3a", "4")),
        ("The ReLUs of the 3×3 and the 5×5 are missing: BN and ReLU follow each convolution.", ("2b", "3b")),
    ]
    swaps = [(f"The ReLU {WHICH[place]} stands before its BN: the order is convolution, BN, ReLU.", (place,)) for place in places]
    swaps.insert(0, ("The ReLUs stand before the BNs: the order is convolution, BN, ReLU.", tuple(places)))
    ends = [
        ("A ReLU works on x before the paths: they begin with x itself.", {"before": relu}),
        (SHORTCUT, {"added": relu}),
        (SHORTCUT, {"added": lambda y: y}),
        *[(f"After the joining stands {name}: nothing follows it.", {"end": act}) for name, act in OTHER_ACTIVATIONS.items()],
        ("Something is pooled after the paths are joined: nothing follows torch.cat.", {"end": lambda y: F.max_pool2d(y, 3, 1, 1)}),
    ]
    options = [(hint, {"pool": function}) for hint, function in pools]
    options += [(late, {"late": True}), *[(hint, {"order": order}) for hint, order in orders]]
    options += [(hint, {"acts": dict.fromkeys(which, same)}) for hint, which in missing]
    options += [(hint, {"swapped": which}) for hint, which in swaps] + ends
    for name, act in OTHER_ACTIVATIONS.items():
        options.append((f"The activations are {name}: ReLUs follow the BNs.", {"acts": dict.fromkeys(places, act)}))
        for place in places:
            options.append((f"The activation {WHICH[place]} is {name}: a ReLU follows each BN.", {"acts": {place: act}}))
    yield from ((hint, _inception(**option)) for hint, option in options)
    likely = [(hint, {"pool": functions[0]}) for hint, functions in list(POOLS.items())[:3]] + [(late, {"late": True})]
    second = [(hint, {"acts": dict.fromkeys(which, same)}) for hint, which in missing]
    second += [(hint, {"order": order}) for hint, order in orders] + [(swaps[0][0], {"swapped": swaps[0][1]})]
    for (a, one), (b, another) in itertools.product(likely, second):
        yield f"{a} {b}", _inception(**one, **another)


def _inception_cuts():
    """First, since they are looked for where the outputs are right."""
    for number, name in enumerate(PATHS):
        yield (
            f"What {name} gives is cut off from the gradient (.detach(), .data, no_grad).",
            lambda r, x, number=number: torch.cat([p.detach() if n == number else p for n, p in enumerate(_four(r, x))], 1),
        )
        yield (
            f"What {name} reads is cut off from the gradient (.detach(), .data, no_grad).",
            lambda r, x, number=number: torch.cat([_four(r, x.detach() if n == number else x)[n] for n in range(4)], 1),
        )
    yield "The block's input is cut off from the gradient (.detach(), .data, no_grad).", lambda r, x: torch.cat(_four(r, x.detach()), 1)
    for place in ("2", "3"):
        path = PATHS[int(place) - 1]
        yield f"In {path}, the result of the 1×1 is cut off from the gradient (.detach(), .data, no_grad).", _cut_inside(place)


def _four(r, x):
    return [r.one(x), r.three(x), r.five(x), r.pool(x)]


def _cut_inside(place):
    def run(r, x):
        paths = _four(r, x)
        path = r.three if place == "2" else r.five
        paths[int(place) - 1] = path[1](path[0](x).detach())
        return torch.cat(paths, 1)

    return run


INCEPTION_CASES = (
    ((16, 8, (6, 12), (2, 4), 3), {}, (2, 16, 8, 7), (1, 16, 6, 6)),
    ((5, 4, (3, 7), (6, 2), 9), {}, (3, 5, 5, 9), (1, 5, 3, 4)),
    ((12, 1, (9, 3), (2, 7), 4), {}, (2, 12, 6, 5)),
    ((7, 10, (4, 5), (3, 8), 2), {}, (2, 7, 4, 6), (1, 7, 2, 1)),
    ((24, 16, (10, 14), (4, 8), 6), {}, (2, 24, 4, 5)),
    ((22, 9, (5, 6), (2, 4), 3), {}, (2, 22, 5, 6)),  # as many channels come out as go in
)


def _inception_cases():
    for arguments, keywords, *shapes in INCEPTION_CASES:
        make = [lambda a=arguments, k=keywords: blocks.InceptionBlock(*a, **k)]
        yield Case("InceptionBlock", arguments, keywords, make, shapes)


def _join(message, shapes):
    """torch.cat fails: the paths' heights and widths differ."""
    sizes = [tuple(s[2:]) for s in shapes if len(s) == 4]
    if len({s[:1] for s in shapes}) > 1:
        return "The paths are joined with different numbers of images: torch.cat(…, dim=1) joins the channels."
    if len(set(sizes)) > 1:
        found = ", ".join(f"{h}×{w}" for h, w in sizes)
        return (
            f"The results of the paths have different sizes: {found}. Each keeps height and width: padding=1 for a 3×3 convolution, "
            "padding=2 for a 5×5, nn.MaxPool2d(3, stride=1, padding=1): its stride is 3 by default."
        )
    return "The paths are joined along another dimension: torch.cat(…, dim=1) joins the channels."


def _extra_inception(step):
    if step.kind == "norm":
        return "Six convolutions, and one BN after each: six."
    return "Six convolutions: 1×1; 1×1 and 3×3; 1×1 and 5×5; 1×1 after the pooling."


@exercise(
    "8.1",
    "InceptionBlock",
    finished=lambda: blocks.InceptionBlock,
    causes=[
        (r"Sizes of tensors must match", _join),
        (r"Calculated padded input size per channel|Output size is too small",
         "The image is smaller than the kernel: padding=1 for a 3×3 kernel, padding=2 for a 5×5 keep its size."),
        (r"running_mean should contain", "A BN stands after its convolution, and has as many channels as that gives. Which one is it?"),
        (r"'(int|tuple)' object is not (subscriptable|callable)|cannot unpack|incompatible function arguments|"
         r"must be \(?(int|tuple)|unsupported operand type.*'tuple'|"
         r"received an invalid",
         "`three` and `five` are pairs: three[0] channels after the 1×1, three[1] after the 3×3. `one` and `pool` are numbers."),
        (r"to have \d+ channels, but got \d+ channels", "Which layer comes before it? " + ONE_BY_ONE),
    ],
    ladder=[
        "Write the channels beside each of the six convolutions: in → one; in → three[0] → three[1]; in → five[0] → five[1]; in → pool.",
        "A small function saves writing: conv_bn_relu(in_channels, channels, kernel) returns nn.Sequential(nn.Conv2d(in_channels, "
        "channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()).",
        "The fourth path: nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(in_channels, pool, 1)). And forward returns "
        "torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1).",
    ],
)  # fmt: skip
def inception_block(answer):
    """cls(in_channels, one, three, five, pool): four paths, each convolution with BN and ReLU, joined along the channels."""
    claims = {
        "runs": "it is built and called without an error, for six choices of channels",
        "shape": "(N, in_channels, H, W) becomes (N, one + three[1] + five[1] + pool, H, W)",
        "layers": "six convolutions without bias, and six BNs: 164,064 parameters for GoogLeNet's first block",
        "order": "the output is that of the four paths, 1×1, 3×3, 5×5 and pooling, joined in this order",
    }
    advice = {
        "in": lambda right, wrong: (
            ONE_BY_ONE if right.kind == "conv" else "A BN stands right after its convolution, and has as many channels as that gives."
        ),
        "out": "The 1×1 convolutions before the 3×3 and the 5×5 give three[0] and five[0] channels; the paths give one, three[1], "
        "five[1] and pool.",
        "kernel": "The kernels: 1×1; 1×1 and 3×3; 1×1 and 5×5; 1×1 after the pooling.",
        "padding": "Each path keeps height and width: padding=1 for a 3×3 kernel, 2 for a 5×5, none for a 1×1.",
        "joins": True,
        "channels": "torch.cat joins four results along the channels: one + three[1] + five[1] + pool of them.",
        "stride": "All strides are 1: height and width stay as they are.",
        "groups": "No convolution has groups here.",
        "extra": _extra_inception,
        "missing": _extra_inception,
        "bias": lambda right, wrong: "Set bias=False: the BN after a convolution subtracts any bias again.",
    }
    yield from network(answer, list(_inception_cases()), claims, _Lazy(_inception_mistakes), advice)


class _Lazy:
    """A long list of mistakes that is only made where one is looked for."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


# ---- ResNeXt --------------------------------------------------------------------------------------------------------


class ResNeXtBlock(nn.Module):
    """The project's own."""

    def __init__(self, in_channels, inside, out_channels, groups, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, inside, 1, bias=False), nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = nn.Conv2d(inside, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        return relu(_bottleneck(self, x) + self.shortcut(x))


def _bottleneck(r, x, acts=(relu, relu), swapped=()):
    for number, act in enumerate(acts, start=1):
        conv, norm = getattr(r, f"conv{number}"), getattr(r, f"bn{number}")
        x = norm(act(conv(x))) if number in swapped else act(norm(conv(x)))
    return r.bn3(relu(r.conv3(x))) if 3 in swapped else r.bn3(r.conv3(x))


def _resnext_mistakes():
    mains = [
        (None, _bottleneck),
        ("The ReLU after the first 1×1 and its BN is missing.", lambda r, x: _bottleneck(r, x, (same, relu))),
        ("The ReLU after the 3×3 and its BN is missing.", lambda r, x: _bottleneck(r, x, (relu, same))),
        ("The ReLUs between the convolutions are missing.", lambda r, x: _bottleneck(r, x, (same, same))),
        ("The first ReLU stands before its BN: the order is convolution, BN, ReLU.", lambda r, x: _bottleneck(r, x, swapped=(1,))),
        ("The second ReLU stands before its BN: the order is convolution, BN, ReLU.", lambda r, x: _bottleneck(r, x, swapped=(2,))),
        ("The ReLUs stand before the BNs: the order is convolution, BN, ReLU.", lambda r, x: _bottleneck(r, x, swapped=(1, 2))),
        (
            "A ReLU stands between the last convolution and its BN: none does, the last ReLU comes after the addition.",
            lambda r, x: _bottleneck(r, x, swapped=(3,)),
        ),
        (
            "The ReLUs stand before the BNs: the order is convolution, BN, ReLU, and the last ReLU comes after the addition.",
            lambda r, x: r.bn3(relu(r.conv3(r.bn2(relu(r.conv2(r.bn1(relu(r.conv1(x))))))))),
        ),
        *[(hint, lambda r, x, act=act: _bottleneck(r, x, (act, relu))) for hint, act in other(OTHER_ACTIVATIONS, "After the first BN")],
        *[(hint, lambda r, x, act=act: _bottleneck(r, x, (relu, act))) for hint, act in other(OTHER_ACTIVATIONS, "After the second BN")],
    ]
    ends = [
        (None, relu),
        ("The ReLU after the addition is missing.", same),
        *[(f"After the addition stands {name}: the block ends with a ReLU.", act) for name, act in OTHER_ACTIVATIONS.items()],
    ]

    def build(main, join, end):
        return lambda r, x: end(join(main(r, x), r.shortcut(x)))

    axes = [mains, joins("ReLU(F(x) + shortcut(x))"), ends]
    yield from combine(axes, build, 1)
    for name, act in OTHER_ACTIVATIONS.items():
        text = f"The activations are {name}: the block has ReLUs."
        yield text, lambda r, x, act=act: act(_bottleneck(r, x, (act, act)) + r.shortcut(x))
        yield text, lambda r, x, act=act: relu(_bottleneck(r, x, (act, act)) + r.shortcut(x))
    ahead = "BN and ReLU stand before the convolutions: that is pre-activation. Here each BN follows its convolution."
    for norms in (("bn3", "bn1", "bn2"), ("bn3", "bn2", "bn1")):
        for end in (same, relu):
            yield ahead, lambda r, x, norms=norms, end=end: end(_ahead(r, x, norms) + r.shortcut(x))
    yield (
        "The shortcut is added before the last BN: add it after that BN.",
        lambda r, x: relu(r.bn3(r.conv3(relu(r.bn2(r.conv2(relu(r.bn1(r.conv1(x))))))) + r.shortcut(x))),
    )
    yield (
        "The ReLU works on x before the block: both paths read x itself.",
        lambda r, x: relu(_bottleneck(r, relu(x)) + r.shortcut(relu(x))),
    )
    yield (
        "The ReLU works on x before the block: the first convolution reads x itself.",
        lambda r, x: relu(_bottleneck(r, relu(x)) + r.shortcut(x)),
    )
    yield (
        "The 3×3 convolution is left out of the way: it reads what the first BN and ReLU give.",
        lambda r, x: relu(r.bn3(r.conv3(relu(r.bn1(r.conv1(x))))) + r.shortcut(x)),
    )
    yield from combine([mains[:7], axes[1], ends[:2]], build, 2)
    yield from cuts(lambda r, x: (_bottleneck(r, x), r.shortcut(x)), lambda f, s: relu(f + s))


def _ahead(r, x, norms):
    for number, name in enumerate(norms, start=1):
        x = getattr(r, f"conv{number}")(relu(getattr(r, name)(x)))
    return x


def _resnext_cases():
    # All channels can be divided by 4 and by the groups: groups in a wrong place show in the layers, and not as an error.
    for arguments, keywords, *shapes in (
        ((16, 12, 16), {"groups": 4}, (2, 16, 6, 5)),
        ((12, 24, 36, 3), {"stride": 2}, (2, 12, 6, 5), (1, 12, 8, 8)),
        ((20, 8, 20, 2), {"stride": 2}, (3, 20, 9, 7), (1, 20, 8, 8)),
        ((12, 4, 16, 4), {}, (2, 12, 5, 9), (1, 12, 2, 3)),
        ((24, 16, 8), {"groups": 8, "stride": 1}, (2, 24, 4, 5)),
        ((4, 12, 8), {"groups": 1, "stride": 3}, (2, 4, 10, 8), (1, 4, 7, 12)),
        ((32, 16, 32, 16, 1), {}, (2, 32, 4, 5)),
        ((4, 8, 16, 2, 2), {}, (2, 4, 8, 6), (1, 4, 32, 32)),
        ((64, 32, 64, 16), {}, (2, 64, 3, 2)),
    ):
        make = [lambda a=arguments, k=keywords: ResNeXtBlock(*a, **k)]
        yield Case("ResNeXtBlock", arguments, keywords, make, shapes)


def _resnext_missing(step):
    if step.kind == "norm":
        return "A BN follows each convolution, and the projection, too."
    return "Three convolutions on the main path; and wherever stride != 1 or in_channels != out_channels, a 1×1 as the shortcut."


def _resnext_extra(step):
    if step.kind == "norm":
        return "One BN after each convolution, and no other."
    if step.weight.shape[2:] == (1, 1):
        return "Where the shape stays the same, the shortcut is the identity: add x itself, that lets the signal through unchanged."
    return "Three convolutions on the main path: 1×1, 3×3 and 1×1."


def _resnext_groups(right, wrong):
    if wrong.weight.shape[2:] == (1, 1):
        return "Only the 3×3 convolution has the groups; the 1×1 convolutions, that of the shortcut too, have groups=1."
    return "The 3×3 convolution has the block's groups: nn.Conv2d(inside, inside, 3, …, groups=groups)."


@exercise(
    "8.2",
    "ResNeXtBlock",
    finished=lambda: ResNeXtBlock,
    causes=[
        (r"Kernel size can't be greater than",
         "The image has become smaller than the kernel: a 3×3 convolution needs padding=1 to keep its size, and the stride stands once."),
        (r"in_channels must be divisible by groups|out_channels must be divisible by groups",
         "The channels of a convolution can't be divided by its groups: only the 3×3 convolution has groups, the argument."),
        (r"running_mean should contain", "A BN has as many channels as the convolution before it gives: inside, inside, out_channels."),
        (r"groups=\d+, expected weight|must be divisible|expected input\[[\d, ]+\] to have \d+ channels",
         "Which layer comes before it? The channels go in_channels → inside → inside → out_channels on the main path, and in_channels → "
         "out_channels on the shortcut, which reads x."),
    ],
    ladder=[
        "It is notebook 04's Bottleneck with three changes: `inside` and `out_channels` are arguments of their own, and the 3×3 "
        "convolution has groups=groups.",
        "__init__: conv1 1×1 in_channels → inside; conv2 3×3 inside → inside with stride, padding=1 and groups; conv3 1×1 inside → "
        "out_channels; a BN for each; the shortcut nn.Identity() or nn.Sequential(1×1 convolution with the stride, BN).",
        "forward:\n  residual = F.relu(self.bn1(self.conv1(x)))\n  residual = F.relu(self.bn2(self.conv2(residual)))\n"
        "  return F.relu(self.bn3(self.conv3(residual)) + self.shortcut(x))",
    ],
)  # fmt: skip
def resnext_block(answer):
    """cls(in_channels, inside, out_channels, groups, stride=1): a bottleneck whose 3×3 convolution works on groups of channels."""
    claims = {
        "runs": "it is built and called without an error, for nine choices of channels, groups and strides",
        "shape": "(N, in_channels, H, W) becomes (N, out_channels, H / stride, W / stride), rounded up",
        "layers": "1×1, 3×3 in groups and 1×1 convolution; where the shape changes, one more 1×1; a BN after each, and no bias: "
        "71,168 parameters for (256, 128, 256, 32)",
        "order": "the output is ReLU(F(x) + shortcut(x)), with F = conv, BN, ReLU, conv, BN, ReLU, conv, BN",
    }
    advice = {
        "kernel": "The convolutions of the main path are 1×1, 3×3 and 1×1, that of the shortcut is 1×1.",
        "stride": "The 3×3 convolution and the projection have the block's stride; the 1×1 convolutions of the main path have stride 1.",
        "groups": _resnext_groups,
        "in": "The channels go in_channels → inside → inside → out_channels on the main path.",
        "out": "The channels go in_channels → inside → inside → out_channels on the main path.",
        "extra": _resnext_extra,
        "missing": _resnext_missing,
    }
    yield from network(answer, list(_resnext_cases()), claims, _Lazy(_resnext_mistakes), advice)


# ---- the identity ---------------------------------------------------------------------------------------------------

LAST = "The residual must be 0 for every x: set the last BN's weight and its bias, `block.bn2.weight` and `block.bn2.bias`, to 0."
IN_PLACE = "A parameter may only be changed where no gradient is recorded: nn.init.zeros_(…), or `with torch.no_grad():` around it."


def silence(block):
    """The project's own answer."""
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)


def _some_blocks():
    """(what it is, a block with other numbers than a new one)"""
    for name, channels, option, numbers in (
        ("a block with 16 channels", 16, {}, {}),
        (
            "another one with 16 channels",
            16,
            {},
            {"weight": (-3, -1), "bias": (2, 4), "running_mean": (-9, -5), "running_var": (1e-3, 1e-2)},
        ),
        ("a block with 5 channels", 5, {}, {"weight": (-2, 2), "bias": (-3, 3)}),
        ("a block with 24 channels that has just been made", 24, {}, None),
        ("a block with 1 channel", 1, {"norm_shortcut": True}, {"bias": (-0.5, -0.1)}),
    ):
        block = models.ResidualBlock(channels, channels, **option)
        if numbers is not None:
            ranges = {"weight": (0.5, 1.5), "bias": (0.1, 0.5), "running_mean": (0.5, 1.5), "running_var": (0.5, 1.5)} | numbers
            with torch.no_grad():
                for norm in (block.bn1, block.bn2):
                    for key, (low, high) in ranges.items():
                        getattr(norm, key).uniform_(low, high)
        yield name, channels, block


def _images(channels):
    """Nothing negative: zeros, tiny and large numbers among them."""
    x = torch.rand(4, channels, 7, 6)
    x[torch.rand(x.shape) < 0.2] = 0
    x[0] *= 1e-12
    x[1, :, :3] *= 1e6
    return x


NUMBERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _cause(block, out, x, training):
    """Why out isn't x, as far as it can be told from the block's numbers."""
    with torch.no_grad():
        weight, bias = block.bn2.weight, block.bn2.bias
        if weight is None or bias is None:
            return LAST
        if not out.isfinite().all():
            return "There are numbers that are not finite. " + LAST
        negligible = weight.abs().max() < 1e-3 and bias.abs().max() < 1e-3
        if (weight.any() or bias.any()) and negligible:
            return "The numbers of the last BN are small but not 0: x must come out exactly. Set them to 0."
        if not weight.any() and bias.any():
            return "The last BN multiplies by its weight, which is 0, and then adds its bias: set block.bn2.bias to 0, too."
        if weight.any() and not weight.all():
            return f"The weight of the last BN is 0 for {int((weight == 0).sum())} of {len(weight)} channels: set it to 0 for all."
        if not block.conv2.weight.any() or not block.bn1.weight.any() and not block.bn1.bias.any():
            what = "conv2" if not block.conv2.weight.any() else "bn1"
            if not bias.any() and not training:
                return (
                    f"`{what}` makes everything 0 before the last BN, but in evaluation that BN subtracts its running mean, which isn't 0. "
                    "Silence the last BN itself: set its weight to 0."
                )
            return f"`{what}` makes everything 0 before the last BN, but that BN adds its bias: set its weight and its bias to 0."
        if not bias.any():
            return "The bias of the last BN is 0, but its weight isn't: set block.bn2.weight to 0, too."
        return LAST


def _nothing_done(before, block):
    after = block.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@exercise(
    "8.3",
    "make_identity",
    finished=lambda: silence,
    causes=[
        (r"a (view of a )?leaf Variable that requires grad", IN_PLACE),
        (
            r"cannot assign .* as parameter",
            "A parameter is replaced by something else: set its numbers, with nn.init.zeros_(…) or .fill_(0).",
        ),
        (r"'(Identity|Sequential|ReLU)' object has no attribute", LAST),
    ],
    ladder=[
        "relu(F(x) + x) is x for every x that is not negative if F(x) is 0. What does F end with?",
        "A BN ends with weight · (…) + bias, for each channel. If both are 0, its output is 0, whatever it reads and in both modes.",
        "nn.init.zeros_(block.bn2.weight) and nn.init.zeros_(block.bn2.bias)",
    ],
)
def make_identity(answer):
    """function(block): set the weights of a residual block so that it hands on what is not negative."""
    claims = {
        "runs": "it runs with five blocks, of 16, 5, 24 and 1 channels",
        "parts": "only numbers are set: layers, methods, settings and modes stay as they are",
        True: "in training, block(x) is x for every x that is not negative",
        False: "in evaluation, block(x) is x for every x that is not negative",
        "later": "in evaluation it is still so after training has learnt running statistics",
    }
    classes = {cls: dict(vars(cls)) for cls in (models.ResidualBlock, nn.Module, nn.Conv2d, nn.BatchNorm2d, nn.Identity)}
    hints, frozen = {}, False
    try:
        for number, (name, channels, block) in enumerate(_some_blocks()):
            block.train(number % 2 == 0)
            before, numbers = guard.parts(block), copy.deepcopy(block.state_dict())
            result = answer.run(answer.thing, block, doing=f"make_identity(block) with {name}")
            patched = [cls for cls, old in classes.items() if any(vars(cls).get(key) is not value for key, value in old.items())]
            if patched:
                hints.setdefault(
                    "parts", f"Found: a method of the class {patched[0].__name__} itself is replaced.\nOnly set numbers in the block."
                )
                break
            if (changed := guard.changed(before, guard.parts(block))) and "parts" not in hints:
                hints["parts"] = changed
            if hints:
                break
            frozen = frozen or not all(p.requires_grad for p in block.parameters())
            with torch.no_grad():
                for training in (True, False, "later"):
                    x = _images(channels)
                    if training == "later":
                        block.train()
                        for _ in range(3):
                            answer.run(block, x.clone(), doing=f"{name} in training")
                    block.train(training is True)
                    mode = "training" if training is True else "evaluation"
                    out = answer.run(block, x.clone(), doing=f"{name} in {mode}, after make_identity(block)")
                    if not torch.equal(out, x) and training not in hints:
                        off = (out - x).abs().max().item()
                        cause = _cause(block, out, x, training is True)
                        if _nothing_done(numbers, block) or training is True and number == 0 and _same_numbers(numbers, block):
                            cause = "No weight of the block that was handed over has changed. " + (
                                "It is that block that must change: returning another one changes nothing."
                                if isinstance(result, nn.Module) and result is not block
                                else LAST
                            )
                        told = any(cause in hint for hint in hints.values())
                        hints[training] = f"Found: {name}: a difference of up to {off:.2g}." + ("" if told else f"\n{cause}")
            if hints:
                break
    except Failed as failed:
        if "parts" not in hints:
            yield claims["runs"], False, failed.hints
            for key in list(claims)[1:]:
                yield claims[key], None, ""
            return
    finally:
        for cls, old in classes.items():
            for key, value in old.items():
                if vars(cls).get(key) is not value:
                    setattr(cls, key, value)
    yield claims["runs"], True, ""
    for key in list(claims)[1:]:
        yield claims[key], None if "parts" in hints and key != "parts" else key not in hints, hints.get(key, "")
    if frozen:
        answer.notes.append("parameters of the block have requires_grad=False now: it can't learn any more.")


def _same_numbers(before, block):
    """Whether all weights and biases are as before (running statistics may have moved)."""
    return all(torch.equal(before[key], value) for key, value in block.named_parameters())


# ---- Inception with a shortcut --------------------------------------------------------------------------------------


class InceptionShortcut(nn.Module):
    """The project's own."""

    def __init__(self, in_channels, out_channels, one, three, five, pool):
        super().__init__()
        self.paths = blocks.InceptionBlock(in_channels, one, three, five, pool)
        self.conv = nn.Conv2d(one + three[1] + five[1] + pool, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        return relu(_widened(self, x) + self.shortcut(x))


def _widened(r, x, paths=None):
    return r.bn(r.conv((paths or r.paths)(x)))


def _shortcut_mistakes():
    mains = [
        (None, _widened),
        ("A ReLU stands between the last 1×1 convolution and its BN: none does.", lambda r, x: r.bn(relu(r.conv(r.paths(x))))),
        ("The four paths read ReLU(x): they read x itself.", lambda r, x: _widened(r, relu(x))),
    ]
    for order in itertools.permutations(range(4)):
        if order != (0, 1, 2, 3):
            mains.append((
                "The paths are joined in another order than in InceptionBlock: 1×1, 3×3, 5×5, pooling.",
                lambda r, x, order=order: r.bn(r.conv(torch.cat([_four(r.paths, x)[n] for n in order], 1))),
            ))  # fmt: skip
    ends = [
        (None, relu),
        ("The ReLU after the addition is missing.", same),
        *[(f"After the addition stands {name}: the block ends with a ReLU.", act) for name, act in OTHER_ACTIVATIONS.items()],
    ]
    axes = [mains, joins("ReLU(F(x) + shortcut(x))"), ends]
    yield from combine(axes, lambda main, join, end: lambda r, x: end(join(main(r, x), r.shortcut(x))), 1)
    yield from combine([mains[:3], axes[1], ends[:2]], lambda main, join, end: lambda r, x: end(join(main(r, x), r.shortcut(x))), 2)
    yield (
        "The shortcut begins after the four paths: it is added to x itself, or to its projection.",
        lambda r, x: relu(_widened(r, x) + r.paths(x)),
    )
    yield "The ReLU works on x before the block: both ways read x itself.", lambda r, x: relu(_widened(r, relu(x)) + r.shortcut(relu(x)))
    yield (
        "The result is scaled by 0.1 before the addition: here BN takes care of that.",
        lambda r, x: relu(0.1 * _widened(r, x) + r.shortcut(x)),
    )
    yield from cuts(lambda r, x: (_widened(r, x), r.shortcut(x)), lambda f, s: relu(f + s))


def _shortcut_cases():
    for arguments, *shapes in (
        ((16, 16, 8, (6, 12), (2, 4), 3), (2, 16, 8, 7), (1, 16, 6, 6)),
        ((5, 9, 4, (3, 7), (6, 2), 8), (3, 5, 5, 9), (1, 5, 3, 4)),
        ((12, 6, 1, (9, 3), (2, 7), 4), (2, 12, 6, 5)),
        ((15, 15, 4, (5, 6), (2, 3), 2), (2, 15, 5, 6)),  # as many channels come out of the paths as go in
        ((24, 32, 16, (10, 14), (4, 8), 6), (2, 24, 4, 5)),
    ):
        yield Case("InceptionShortcut", arguments, {}, [lambda a=arguments: InceptionShortcut(*a)], shapes)


NO_WIDENING = (
    "What the four paths give goes through a 1×1 convolution to out_channels and a BN. It makes the channels fit, and since no ReLU "
    "follows it, F(x) may be negative."
)


def _shortcut_missing(step):
    if step.kind == "norm":
        return "Six BNs in the Inception block, one after the last 1×1 convolution, and one after the projection."
    return NO_WIDENING + " And wherever in_channels != out_channels, a 1×1 convolution is the shortcut."


def _shortcut_extra(step):
    if step.kind == "norm":
        return "One BN after each convolution, and no other."
    if step.weight.shape[2:] == (1, 1):
        return "Where in_channels == out_channels, the shortcut is the identity: add x itself."
    return "Besides the Inception block there are the 1×1 convolution after it and, where the channels change, that of the shortcut."


@exercise(
    "8.4",
    "InceptionShortcut",
    finished=lambda: InceptionShortcut,
    causes=[
        (r"Sizes of tensors must match", _join),
        (r"running_mean should contain", "The last BN has out_channels channels, as the convolution before it."),
        (r"incompatible function arguments|must be \(?(int|tuple)|unsupported operand type.*'tuple'|received an invalid|"
         r"'(int|tuple)' object is not (subscriptable|callable)",
         "`three` and `five` are pairs, as in InceptionBlock: three[1] and five[1] channels come out of these paths."),
        (r"to have \d+ channels, but got \d+ channels",
         "The last 1×1 convolution reads all that the four paths give, one + three[1] + five[1] + pool channels; that of the shortcut "
         "reads x."),
    ],
    ladder=[
        "It is a residual block whose F is your InceptionBlock, a 1×1 convolution and a BN.",
        "__init__: self.paths = InceptionBlock(in_channels, one, three, five, pool); a 1×1 convolution without bias from one + three[1] + "
        "five[1] + pool to out_channels; its BN; the shortcut: nn.Identity(), or 1×1 convolution and BN where the channels differ.",
        "forward: return F.relu(self.bn(self.conv(self.paths(x))) + self.shortcut(x))",
    ],
)  # fmt: skip
def inception_shortcut(answer):
    """cls(in_channels, out_channels, one, three, five, pool): ReLU(F(x) + shortcut(x)), F = Inception block, 1×1 convolution, BN."""
    claims = {
        "runs": "it is built and called without an error, for five choices of channels",
        "shape": "(N, in_channels, H, W) becomes (N, out_channels, H, W)",
        "layers": "the six convolutions of the Inception block and one 1×1 after it; where the channels change, one more on the shortcut; "
        "a BN after each, and no bias",
        "order": "the output is ReLU(F(x) + shortcut(x)), with F = Inception block, 1×1 convolution, BN",
    }
    advice = {
        "kernel": "The convolution after the four paths and that of the shortcut are 1×1.",
        "padding": "A 1×1 convolution needs no padding.",
        "stride": "All strides are 1: height and width stay as they are.",
        "groups": "No convolution has groups here.",
        "in": "The last 1×1 convolution reads one + three[1] + five[1] + pool channels; that of the shortcut reads in_channels.",
        "out": "out_channels come out of the last 1×1 convolution and of the shortcut.",
        "extra": _shortcut_extra,
        "missing": _shortcut_missing,
        "bias": lambda right, wrong: "Set bias=False: the BN after a convolution subtracts any bias again.",
    }
    yield from network(answer, list(_shortcut_cases()), claims, _Lazy(_shortcut_mistakes), advice)
