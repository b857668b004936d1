"""Checks of notebook 05: the pre-activated blocks, and what a factor on the shortcut leaves."""

import itertools
import math

import numpy as np
from torch import nn

from .. import blocks
from .compare import Case, network
from .framework import exercise
from .guard import Failed
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
            return f"BN and ReLU stand before each of the {count} convolutions of the main path; a BN has the channels that its convolution reads."
        if step.kind == "conv" and step.weight.shape[2:] == (1, 1) and count == 2:
            return "Wherever stride != 1 or in_channels != channels, the shortcut is a 1×1 convolution."
        return f"The main path has {count} convolutions; wherever the shape changes, the shortcut is one more, 1×1."

    def place(right, wrong):
        if right.kind == "norm":
            return "BN and ReLU stand before each convolution; a BN has as many channels as that convolution reads: the first one has in_channels."
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


# ---- the weights of a sum -------------------------------------------------------------------------------------------


def weights(factors):
    """Of x_0, F_0, …, F_(L-1) in x_L, where x_(l+1) = factors[l] · x_l + F_l."""
    found = [1.0]
    for factor in factors:
        found = [factor * weight for weight in found] + [1.0]
    return found


def _suffixes(factors):
    return [math.prod(factors[i:]) for i in range(len(factors))]  # each from its own factor on, to the last one


def _after(factors):
    return [math.prod(factors[i + 1 :]) for i in range(len(factors))]  # each without its own factor


ORDER = "The weight of x_0 comes first, that of the last F comes last."
LATER = "F_i is added in block i, so only the factors of *later* blocks multiply it"
WEIGHT_MISTAKES = [
    (f"The list is the wrong way round. {ORDER}", lambda f: weights(f)[::-1]),
    ("The weight of x_0 is missing: it is the product of all factors, and comes first.", lambda f: weights(f)[1:]),
    ("The last weight is missing: F of the last block is added with the weight 1.", lambda f: weights(f)[:-1]),
    (f"{LATER}: its own one does not. The last weight is always 1.", lambda f: [math.prod(f), *_suffixes(f)]),
    (f"{LATER}; here it is the factors of the blocks before it.", lambda f: [math.prod(f), *(math.prod(f[:i]) for i in range(len(f)))]),
    (f"{LATER}; here it is the factors up to its own.", lambda f: [math.prod(f), *(math.prod(f[: i + 1]) for i in range(len(f)))]),
    (f"{LATER}; here it is the factors up to its own.", lambda f: [1.0, *itertools.accumulate(f, lambda a, b: a * b)]),
    ("These are powers of the first factor: each block has a factor of its own.", lambda f: [f[0] ** n if f else 1.0 for n in range(len(f), -1, -1)]),
    ("These are powers of the last factor: each block has a factor of its own.", lambda f: [f[-1] ** n if f else 1.0 for n in range(len(f), -1, -1)]),
    ("The factors are added: blocks that follow each other multiply.", lambda f: [sum(f), *(sum(f[i + 1 :]) for i in range(len(f)))]),
    ("The factors are added: blocks that follow each other multiply.", lambda f: [sum(f), *(sum(f[i + 1 :]) for i in range(len(f) - 1)), *[1.0] * bool(f)]),
    ("The weight of x_0 is the product of all factors: every block multiplies it.", lambda f: [1.0, *_after(f)]),
    ("The weight of x_0 is the product of all factors: the first block multiplies it, too.", lambda f: [math.prod(f[1:]), *_after(f)]),
    ("The weight of an F is not the factor of its own block: it is the product of the factors of all later blocks.", lambda f: [math.prod(f), *f]),
    ("Every F has the weight 1 only in the block that adds it: each later block multiplies it by its factor.", lambda f: [math.prod(f), *[1.0] * len(f)]),
    ("Each F is weighted by 1 − λ, as in a gated network: here it is added with the weight 1.",
     lambda f: [math.prod(f), *((1 - own) * rest for own, rest in zip(f, _after(f), strict=True))]),
    ("These are the sums so far: return each weight by itself.", lambda f: list(itertools.accumulate(weights(f)))),
    ("The weights are divided by their sum: they need not add up to 1.", lambda f: [w / (sum(weights(f)) or math.inf) for w in weights(f)]),
]  # fmt: skip


def _numbers(found, call):
    """What was returned, as a list of floats. Raises Failed for anything that is no list of numbers."""
    claim = "it returns a list of numbers"
    if found is None:
        raise Failed(claim, "Found: it returns None.\nIts last line needs `return`.")
    if isinstance(found, (int, float, np.number)) or getattr(found, "ndim", 1) == 0:
        raise Failed(
            claim, f"Found: {call} returns the one number {float(found):.4g}.\nReturn all weights, that of x_0 and those of all F."
        )
    if isinstance(found, (dict, set, str)) or not hasattr(found, "__len__"):
        what = "a generator, or the like: wrap it in list(…)" if hasattr(found, "__next__") else f"a {type(found).__name__}"
        raise Failed(claim, f"Found: {call} returns {what}.\nReturn a list of numbers.")
    try:
        return [float(value) for value in found]
    except (TypeError, ValueError, RuntimeError):
        raise Failed(claim, f"Found: {call} returns a list with entries that are no numbers.\nReturn a flat list of numbers.") from None


def _alike(a, b):
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-4, abs_tol=1e-30) for x, y in zip(a, b, strict=True))


FACTORS = ([0.5, 0.5], [0.9, 0.5, 2.0], [3.0], [], [0.5, 0.0, 2.0, 0.25], [-1.0, 0.5, 1.5], [1.0] * 6, [0.9] * 54, [0.5] * 54)


@exercise(
    "5.3",
    "path_weights",
    finished=lambda: weights,
    causes=[
        (r"division by zero", "Is it divided by a factor? A factor may be 0: multiply instead, from the last block to the first or block by block."),
        (r"index out of range|pop from empty", "Without any block, the list of factors is empty. Then x_0 is all there is: [1.0]."),
    ],
    ladder=[
        "Go through the blocks from the first to the last, and keep a list of weights. Before the first block it is [1.0], for x_0.",
        "A block multiplies every weight in the list by its factor, and appends 1.0 for its own F.",
        "weights = [1.0]\nfor factor in factors:\n  weights = [factor * weight for weight in weights] + [1.0]",
    ],
)  # fmt: skip
def path_weights(answer):
    """function([λ_0, …, λ_(L-1)]): the weights of x_0, F_0, …, F_(L-1) in x_L, where x_(l+1) = λ_l · x_l + F_l."""
    found, changed = [], None
    calls = [f"path_weights({_short(factors)})" for factors in FACTORS]
    for factors, call in zip(FACTORS, calls, strict=True):
        given = list(factors)
        found.append(_numbers(answer.run(answer.thing, given, doing=call), call))
        changed = changed or (call if given != factors else None)
    right = [weights(factors) for factors in FACTORS]
    wrong = [number for number in range(len(FACTORS)) if not _alike(found[number], right[number])]
    hint = ""
    if wrong:
        hint = f"Found: {calls[wrong[0]]} gives {_short(found[wrong[0]])}; expected {_short(right[wrong[0]])}.\n{_weight_mistake(found)}"
    lengths = all(len(mine) == len(theirs) for mine, theirs in zip(found, right, strict=True))
    few = lengths and not [number for number in wrong if len(FACTORS[number]) < 54]
    yield "it returns a list of numbers", True, ""
    yield "for L factors, it returns L + 1 weights", lengths, hint
    yield "the weights are right for up to six factors, 0 and negative ones among them", few if lengths else None, hint
    yield "they are right for 54 factors of 0.9, and of 0.5", not wrong if few else None, hint
    hint = f"Found: after {changed}, the list that you were given is not the same any more.\nMake a new list; don't write into `factors`."
    yield "the list of factors stays as it is", not changed, hint


def _short(values):
    """A list as a hint shows it."""
    text = [f"{value:.4g}" for value in values]
    if len(text) > 6 and len(set(text)) == 1:
        return f"[{text[0]}] * {len(text)}"
    return f"[{', '.join(text if len(text) < 9 else [*text[:3], '…', *text[-2:]])}]"


def _weight_mistake(found):
    for hint, function in WEIGHT_MISTAKES:
        if all(_alike(mine, function(list(factors))) for mine, factors in zip(found, FACTORS, strict=True)):
            return hint
    right = sum(_alike(mine, weights(factors)) for mine, factors in zip(found, FACTORS, strict=True))
    text = f"It is right for {right} of {len(FACTORS)} lists. " if right else ""
    return f"{text}Write out x_3 for three factors: x_3 = λ_2 (λ_1 (λ_0 x_0 + F_0) + F_1) + F_2, and multiply it out."
