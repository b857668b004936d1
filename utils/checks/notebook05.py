"""Checks of notebook 05: the pre-activated blocks."""

from torch import nn

from .. import blocks
from .compare import Case, network
from .framework import exercise
from .variations import CUT, OTHER_ACTIVATIONS, combine, cuts, joins, other, relu, same

AHEAD = "The BNs follow the convolutions: in a pre-activated block, BN and ReLU stand before each of them."
AFTER = "A ReLU follows the addition: in a pre-activated block nothing does. Return the sum as it is."
OVERWRITTEN = "Is x overwritten on the main path? Keep what the first BN and ReLU give, and x, under names of their own."
PROJECTION = "The projection reads {}: it must read what the first BN and ReLU give, as the first convolution does."
IDENTITY = "The identity shortcut adds {}: it must add x itself."
SMALL = (
    r"Kernel size can't be greater than",
    "The image has become smaller than the kernel: a 3×3 convolution needs padding=1 to keep its size, and the stride stands once.",
)
NUMBERS = ("first", "second", "third")


def _layers(r):
    convs = [m for name, m in r.named_children() if name.startswith("conv")]
    norms = [m for name, m in r.named_children() if name.startswith("bn")]
    return convs, norms


def _main(r, x, order="brc", act=relu, missing=(), swapped=()):
    """The main path's result. missing, swapped: numbers of the ReLUs that are left out, or stand before their BN."""
    convs, norms = _layers(r)
    for number, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        here = same if number in missing else act
        x = conv(norm(here(x)) if number in swapped else here(norm(x)))
    return x


def _after(r, x, act=relu, first=same, missing=(), swapped=(), last=same):
    """The same layers in the order of version 1: BN after each convolution."""
    convs, norms = _layers(r)
    norms = [*norms[1:], norms[0]]  # their channels, where the block's input and output have as many
    x = first(x)
    for number, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        x = conv(x)
        end = number == len(convs) - 1
        here = last if end else same if number in missing else act
        x = norm(here(x)) if number in swapped else here(norm(x))
    return x


def _shortcut(r, x, projected=lambda r, x: relu(r.bn1(x)), added=lambda r, x: x):
    return r.shortcut(projected(r, x)) if isinstance(r.shortcut, nn.Conv2d) else added(r, x)


def _mistakes(count):
    every = tuple(range(count))
    mains = [(None, _main)]
    for number in every:
        mains.append((f"The {NUMBERS[number]} ReLU is missing: BN and ReLU stand before each convolution.", _with(missing=(number,))))
    mains += [
        ("The ReLUs are missing: BN and ReLU stand before each convolution.", _with(missing=every)),
        ("The ReLUs are missing but for the first: BN and ReLU stand before each convolution.", _with(missing=every[1:])),
    ]
    for number in every:
        hint = f"The {NUMBERS[number]} ReLU stands before its BN: the order is BN, ReLU, convolution."
        mains.append((hint, _with(swapped=(number,))))
    mains.append(("The ReLUs stand before the BNs: the order is BN, ReLU, convolution.", _with(swapped=every)))
    reads = {"x": lambda r, x: x, "BN(x), without the ReLU": lambda r, x: r.bn1(x), "ReLU(x)": lambda r, x: relu(x),
             "what the first BN and ReLU give": lambda r, x: relu(r.bn1(x)),
             "ReLU, then BN, of x": lambda r, x: r.bn1(relu(x))}  # fmt: skip
    shortcuts = [(None, _shortcut)]
    for name, function in reads.items():
        if name != "x":
            shortcuts.append((IDENTITY.format(name) + " Is x overwritten?" * ("BN" in name), _reading(added=function)))
        if "give" not in name:
            shortcuts.append((PROJECTION.format(name), _reading(projected=function)))
    ends = [
        (None, same),
        (AFTER, relu),
        *[(f"After the addition stands {name}: nothing follows it.", act) for name, act in OTHER_ACTIVATIONS.items()],
    ]

    def build(main, shortcut, join, end):
        return lambda r, x: end(join(main(r, x), shortcut(r, x)))

    axes = [mains, shortcuts, joins("F(x) + shortcut"), ends]
    yield from combine(axes, build, 1)
    yield from _version_1(count)
    for place in every:
        for hint, act in other(OTHER_ACTIVATIONS, f"Before the {NUMBERS[place]} convolution"):
            yield hint, lambda r, x, act=act, place=place: _acting(r, x, lambda n: act if n == place else relu)
    for name, act in OTHER_ACTIVATIONS.items():
        text = f"The activations are {name}: the block has ReLUs."
        for projected in (lambda r, x, act=act: act(r.bn1(x)), lambda r, x: relu(r.bn1(x))):
            yield text, lambda r, x, act=act, p=projected: _acting(r, x, lambda n: act) + _shortcut(r, x, p)
    yield (
        "The last convolution reads what the first BN and ReLU give: each reads what the one before it gives.",
        lambda r, x: _layers(r)[0][-1](relu(r.bn1(x))) + _shortcut(r, x),
    )
    yield (
        "The ReLU works on x before the block: both paths begin with x itself.",
        lambda r, x: _main(r, relu(x)) + _shortcut(r, relu(x)),
    )
    axes[3] = ends[:2]
    yield from combine(axes, build, 2)
    yield from cuts(lambda r, x: (_main(r, x), _shortcut(r, x)), lambda f, s: f + s)
    yield (
        f"What the first BN and ReLU give {CUT}.",
        lambda r, x: _after_first(r, relu(r.bn1(x)).detach()) + _shortcut(r, x, lambda r, x: relu(r.bn1(x)).detach()),
    )
    yield (
        f"What the projection reads {CUT}.",
        lambda r, x: _main(r, x) + _shortcut(r, x, lambda r, x: relu(r.bn1(x)).detach()),
    )
    yield f"What the first convolution reads {CUT}.", lambda r, x: _after_first(r, relu(r.bn1(x)).detach()) + _shortcut(r, x)


def _acting(r, x, which):
    for number, (conv, norm) in enumerate(zip(*_layers(r), strict=True)):
        x = conv(which(number)(norm(x)))
    return x


def _after_first(r, active):
    (first, *convs), (_, *norms) = _layers(r)
    x = first(active)
    for conv, norm in zip(convs, norms, strict=True):
        x = conv(relu(norm(x)))
    return x


def _with(**options):
    return lambda r, x: _main(r, x, **options)


def _reading(**options):
    return lambda r, x: _shortcut(r, x, **options)


def _version_1(count):
    last = count - 1
    for text, options in (
        ("", {}),
        (" A ReLU belongs before the first convolution, after its BN, and none after the last.", {"first": relu}),
        ("", {"last": relu}),
        ("", {"missing": tuple(range(last))}),
        ("", {"swapped": tuple(range(last))}),
        ("", {"swapped": tuple(range(count)), "last": relu}),
    ):
        for hint, end in ((AHEAD, same), (AHEAD + " Nothing follows the addition.", relu)):
            for added in (lambda r, x: x, lambda r, x: relu(x)):
                yield (
                    hint + text,
                    lambda r, x, o=options, end=end, added=added: end(_after(r, x, **o) + _shortcut(r, x, lambda r, x: x, added)),
                )
        yield AHEAD + text + " The shortcut is missing: add it.", lambda r, x, o=options: _after(r, x, **o)
        yield AHEAD + text + " The shortcut is missing: add it.", lambda r, x, o=options: relu(_after(r, x, **o))
    yield (
        "A BN follows the addition: BN and ReLU stand before each convolution, and nothing follows the addition.",
        lambda r, x: relu(_no_last(r, x)),
    )
    yield (
        "A BN follows the addition: BN and ReLU stand before each convolution, and nothing follows the addition.",
        lambda r, x: _no_last(r, x),
    )


def _no_last(r, x):
    """Version 1, with the last BN after the addition: He et al. 2016, Figure 4(b)."""
    convs, norms = _layers(r)
    y, norms = x, [*norms[1:], norms[0]]
    for conv, norm in zip(convs[:-1], norms, strict=False):
        y = relu(norm(conv(y)))
    return norms[-1](convs[-1](y) + _shortcut(r, x, lambda r, x: x))


def _cases(cls, reference):
    wide = reference.expansion
    # A block whose shape stays comes first: there, a wrong order has the right layers, and can be named.
    for in_channels, channels, keywords, *shapes in (
        (8 * wide, 8, {}, (2, 8 * wide, 6, 5)),
        (6, 4, {"stride": 2}, (2, 6, 6, 5), (1, 6, 8, 8)),
        (4 * wide, 4, {"stride": 2}, (3, 4 * wide, 9, 7), (1, 4 * wide, 8, 8)),
        (5, 6, {}, (2, 5, 5, 9), (1, 5, 2, 3)),
        (9 * wide, 5, {"stride": 1}, (2, 9 * wide, 4, 5)),
        (5, 7, {"stride": 3}, (2, 5, 10, 8), (1, 5, 7, 12)),
        (4, 4, {"stride": 1}, (2, 4, 5, 4)),
        (3, 16, {"stride": 2}, (2, 3, 8, 6), (1, 3, 32, 32)),
    ):
        stride = keywords.get("stride", 1)
        make = [lambda a=(in_channels, channels, stride): reference(*a)]
        yield Case(cls, (in_channels, channels), keywords, make, shapes)
    yield Case(cls, (6, 4, 2), {}, [lambda: reference(6, 4, 2)], [(2, 6, 5, 7)])


def _advice(count):
    def norm(step):
        if step.kind == "norm":
            return f"One BN before each of the {count} convolutions of the main path: none follows the last one or the projection."
        if step.kind == "conv" and step.weight.shape[2:] == (1, 1):
            return "Where the shape stays the same, the shortcut is the identity: add x itself. Else it is one 1×1 convolution."
        return f"The main path has {count} convolutions."

    def missing(step):
        if step.kind == "norm":
            return f"One BN before each of the {count} convolutions of the main path: with the channels that the convolution reads."
        if step.kind == "conv" and step.weight.shape[2:] == (1, 1) and count == 2:
            return "Wherever stride != 1 or in_channels != channels, the shortcut is a 1×1 convolution."
        return f"The main path has {count} convolutions; wherever the shape changes, the shortcut is one more, 1×1."

    def place(right, wrong):
        if right.kind == "norm":
            return "A BN stands before its convolution, and has as many channels as that convolution reads: the first one has in_channels."
        return "It reads another number of channels."

    kernels = "The convolutions of the main path are " + ("3×3" if count == 2 else "1×1, 3×3 and 1×1") + ", that of the shortcut is 1×1."
    stride = (
        "The first convolution and the projection have the block's stride; the second convolution has stride 1."
        if count == 2
        else "The 3×3 convolution and the projection have the block's stride; the 1×1 convolutions of the main path have stride 1."
    )
    bias = "Set bias=False: the exercise wants no biases."
    return {
        "norms_follow": False,
        "channels": "The output has " + ("`channels`" if count == 2 else "4 · channels") + " channels.",
        "extra": norm, "missing": missing, "in": place, "kernel": kernels, "stride": stride,
        "bias": lambda right, wrong: bias if wrong.settings.get("bias") is not None else "Leave `bias` at its default, True.",
    }  # fmt: skip


def _projection_cause(message, shapes):
    return (
        "A 1×1 convolution gets another number of channels than it was made for. The projection reads what the first BN and ReLU give. "
        + OVERWRITTEN
    )


def _norm_cause(message, shapes):
    return (
        "A BN gets another number of channels than it was made for. It stands before its convolution, so it has as many channels as that "
        "convolution reads: the first one has in_channels."
    )


CLAIMS = {
    "runs": "it is built and called without an error, for nine choices of channels and strides",
    "order": "each convolution reads ReLU(BN(…)), and the sum with the shortcut is the output",
}
LADDER = [
    "Write both paths down. A block whose shape stays: x + F(x). One that changes it: projection(a) + F(x), where a = ReLU(BN(x)) is also "
    "what the first convolution reads.",
]


@exercise(
    "5.1",
    "PreActBlock",
    finished=lambda: blocks.PreActBlock,
    causes=[(r"weight of size \[\d+, \d+, 1, 1\]", _projection_cause), (r"running_mean should contain", _norm_cause), SMALL],
    ladder=[
        *LADDER,
        "__init__: bn1 for in_channels, conv1 with the stride; bn2 for channels, conv2 with stride 1; a 1×1 convolution with the stride "
        "where stride != 1 or in_channels != channels, else None.",
        "forward:\n  active = F.relu(self.bn1(x))\n  residual = self.conv2(F.relu(self.bn2(self.conv1(active))))\n"
        "  return residual + (x if self.projection is None else self.projection(active))",
    ],
)
def preact_block(answer):
    """cls(in_channels, channels, stride=1): BN, ReLU, conv 3×3, BN, ReLU, conv 3×3, then the addition and nothing more."""
    claims = CLAIMS | {
        "shape": "(N, in_channels, H, W) becomes (N, channels, H / stride, W / stride), rounded up",
        "layers": "two 3×3 convolutions and, where the shape changes, one 1×1, without bias; two BNs: 73,984 parameters for 64 → 64",
    }
    yield from network(answer, list(_cases("PreActBlock", blocks.PreActBlock)), claims, list(_mistakes(2)), _advice(2))


@exercise(
    "5.2",
    "PreActBottleneck",
    finished=lambda: blocks.PreActBottleneck,
    causes=[(r"running_mean should contain", _norm_cause), SMALL],
    ladder=[
        *LADDER,
        "__init__: bn1 for in_channels, conv1 1×1 to channels; bn2, conv2 3×3 with the stride; bn3, conv3 1×1 to 4 · channels; a 1×1 "
        "convolution with the stride where stride != 1 or in_channels != 4 * channels, else None.",
        "forward:\n  active = F.relu(self.bn1(x))\n  residual = self.conv2(F.relu(self.bn2(self.conv1(active))))\n"
        "  residual = self.conv3(F.relu(self.bn3(residual)))\n"
        "  return residual + (x if self.projection is None else self.projection(active))",
    ],
)
def preact_bottleneck(answer):
    """cls(in_channels, channels, stride=1): three times BN, ReLU and convolution (1×1, 3×3 with the stride, 1×1)."""
    claims = CLAIMS | {
        "shape": "(N, in_channels, H, W) becomes (N, 4 · channels, H / stride, W / stride), rounded up",
        "layers": "1×1, 3×3 and 1×1 convolution and, where the shape changes, one more 1×1, without bias; three BNs: "
        "70,400 parameters for PreActBottleneck(256, 64)",
    }
    yield from network(answer, list(_cases("PreActBottleneck", blocks.PreActBottleneck)), claims, list(_mistakes(3)), _advice(3))
