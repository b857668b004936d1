"""Check of notebook 04: the bottleneck. Stage and network: notebook04.py."""

import torch
from torch import nn

from .. import blocks
from .compare import Case, network
from .framework import exercise
from .residual import OVERWRITTEN, added_wrongly, cut_off, layer_advice
from .stages import improved
from .trace import Trace

# ---- the bottleneck -------------------------------------------------------------------------------------------------


def _expansion(answer, right):
    """The claim on the class attribute that later cells ask for."""
    found = getattr(answer.thing, "expansion", None)
    whole = hasattr(found, "__index__")  # no 4.0: numbers of channels are counted with it
    yield (
        f"its attribute `expansion` is {right}",
        whole and found == right,
        f"Found: {'there is none' if found is None else f'it is {found!r}'}.\nWrite `expansion = {right}` in the class, above __init__: "
        "how many channels come out for one of `channels`. make_stage and ResNet ask the class for it.",
    )


def _cases(cls, rows):
    for arguments, keywords, *shapes in rows:
        yield Case(cls.__name__, arguments, keywords, [lambda a=arguments, k=keywords: cls(*a, **k)], shapes)


def _extra(step):
    if step.kind == "conv" and step.weight.shape[2:] == (1, 1):
        return "Where the shape stays the same, the shortcut is the identity: add x itself, without a 1×1 convolution and its BN."
    if step.kind == "norm":
        return "One BN follows each convolution. Where the shape stays the same, the shortcut is x itself, without a BN."
    return ""


SHORTCUT = (
    "the shortcut: nn.Identity() if stride == 1 and in_channels == 4 * channels, else nn.Sequential(1×1 convolution with the block's stride, "
    "nn.BatchNorm2d(4 * channels))."
)


def _shortcut_mistakes(main):
    """A BN that stands at another place of the shortcut."""
    relu = torch.relu
    for hint, shortcut in (
        ("On the shortcut, a ReLU follows the BN: add what the BN gives.", lambda s, x: relu(s(x))),
        ("The BN of the shortcut is left out.", lambda s, x: s[0](x)),
        ("On the shortcut, a ReLU stands between convolution and BN: leave it out.", lambda s, x: s[1](relu(s[0](x)))),
    ):
        yield hint, lambda r, x, shortcut=shortcut: relu(main(r, x) + shortcut(r.shortcut, x))


def _bottleneck_mistakes():
    relu = torch.relu

    def inner(r, x, one=relu, two=relu):
        return r.conv3(two(r.bn2(r.conv2(one(r.bn1(r.conv1(x)))))))

    def main(r, x, **acts):
        return r.bn3(inner(r, x, **acts))

    def after(r, x, residual):
        return relu(residual + r.shortcut(x))

    yield from added_wrongly(lambda r, x, act: inner(r, x, act, act), lambda r, residual: r.bn3(residual))
    for word, missing in (("first", "one"), ("second", "two")):
        yield (
            f"The ReLU after the {word} BN is missing.",
            lambda r, x, missing=missing: after(r, x, main(r, x, **{missing: lambda y: y})),
        )
    order = "A ReLU stands before its BN: the order is convolution, BN, ReLU."
    both = ("conv2", "bn2", "conv1", "bn1")
    for late in ((1,), (2,), (1, 2)):

        def swapped(r, x, late=late):
            for number in (1, 2):
                conv, norm = getattr(r, both[-2 * number]), getattr(r, both[1 - 2 * number])
                x = norm(relu(conv(x))) if number in late else relu(norm(conv(x)))
            return r.bn3(r.conv3(x))

        yield order, lambda r, x, swapped=swapped: after(r, x, swapped(r, x))
        yield order, lambda r, x, swapped=swapped: after(r, x, r.bn3(relu(r.conv3(r.bn2(relu(r.conv2(r.bn1(relu(r.conv1(x))))))))))
    yield (
        "A ReLU follows the last convolution, before its BN: only the first two convolutions have a ReLU, each after its BN.",
        lambda r, x: after(r, x, r.bn3(relu(inner(r, x)))),
    )
    ahead = "BN and ReLU stand before the convolutions: that is pre-activation, a later idea. Here each BN follows its convolution."
    for names in (("bn1", "bn2", "bn3"), ("bn3", "bn1", "bn2"), ("bn1", "bn3", "bn2"), ("bn2", "bn1", "bn3")):
        for end in (relu, lambda x: x):

            def first(r, x, names=names, end=end):
                y = x
                for name, conv in zip(names, ("conv1", "conv2", "conv3"), strict=True):
                    y = getattr(r, conv)(relu(getattr(r, name)(y)))
                return end(y + r.shortcut(x))

            yield ahead, first
    yield OVERWRITTEN, lambda r, x: after(r, relu(r.bn1(r.conv1(x))), main(r, x))
    yield "The ReLU works on x before the block: the first convolution reads x itself.", lambda r, x: after(r, x, main(r, relu(x)))
    yield "The ReLU works on x before the block: both paths read x itself.", lambda r, x: after(r, relu(x), main(r, relu(x)))
    yield from _shortcut_mistakes(main)
    yield from cut_off(main)


BOTTLENECK_CASES = [
    ((256, 64), {}, (2, 256, 5, 4)),
    ((64, 64), {}, (2, 64, 6, 5)),
    ((256, 128), {"stride": 2}, (2, 256, 6, 5)),
    ((32, 8), {"stride": 2}, (3, 32, 9, 7), (1, 32, 8, 8)),
    ((8, 8), {}, (2, 8, 5, 9), (1, 8, 2, 3)),
    ((40, 3), {"stride": 1}, (2, 40, 4, 5)),
    ((5, 7), {"stride": 3}, (2, 5, 10, 8), (1, 5, 7, 12)),
    ((6, 10, 2), {}, (2, 6, 8, 7)),
]


def _bottleneck_stride(right, wrong):
    if wrong.weight.shape[2:] == (1, 1) and wrong.settings["stride"] not in (1, (1, 1)):
        paper = "as in the paper" if wrong.weight.shape[0] < wrong.weight.shape[1] or not wrong.reads else "on a 1×1"
        return f"The stride is on a 1×1 convolution of the main path ({paper}). Here, the 3×3 convolution has it, and the shortcut."
    return "On the main path, the 3×3 convolution has the block's stride; the 1×1 convolutions have stride 1."


WIDTHS = "1×1 from in_channels to `channels`, 3×3 from `channels` to `channels`, 1×1 from `channels` to 4 · `channels`; the shortcut goes "
WIDTHS += "from in_channels to 4 · `channels`."


def _bottleneck_channels(message, shapes):
    if shapes[1:] and shapes[1][2:] == (1, 1) and shapes[0][1:2] == shapes[1][:1]:  # a 1×1 that reads what it should give
        return f"{OVERWRITTEN} The channels go {WIDTHS}"
    return f"The channels go {WIDTHS}"


def _inside(answer):
    """A better hint where `channels` is taken for what comes out, or where the last 1×1 convolution has the stride."""
    made = answer(24, 8, 2)
    if not isinstance(made, nn.Module):
        return None
    trace = Trace(made, x := torch.randn(1, 24, 6, 6))
    with torch.no_grad():
        out = answer.run(made.eval(), x, trace=trace)
    if not isinstance(out, torch.Tensor) or out.dim() != 4:
        return None
    if out.shape[1] == 8:
        return (
            "Found: Bottleneck(24, 8, 2) gives 8 channels; expected 32.\n`channels` is the width inside: the block gives 4 · channels, "
            "by its last 1×1 convolution."
        )
    for step in trace.layers("conv"):
        if tuple(step.weight.shape) == (32, 8, 1, 1) and step.settings["stride"] not in (1, (1, 1)):
            return (
                f"Found: in Bottleneck(24, 8, 2), `{trace.name(step)}` is a {step.describe()}.\nThe stride is on a 1×1 convolution of the "
                "main path: the 3×3 convolution has it, and the shortcut."
            )
    return None


@exercise(
    "4.1",
    "Bottleneck",
    finished=lambda: blocks.Bottleneck,
    causes=[(r"expected input\[[\d, ]+\] to have \d+ channels", _bottleneck_channels)],
    ladder=[
        "Write the channels at each arrow: in_channels → channels → channels → 4 · channels; the shortcut: in_channels → 4 · channels.",
        "__init__: conv1 1×1, conv2 3×3 with stride and padding 1, conv3 1×1, a BN after each, and " + SHORTCUT,
        "forward:\n  residual = F.relu(self.bn1(self.conv1(x)))\n  residual = F.relu(self.bn2(self.conv2(residual)))\n"
        "  residual = self.bn3(self.conv3(residual))\n  return F.relu(residual + self.shortcut(x))",
    ],
)
def bottleneck(answer):
    """cls(in_channels, channels, stride=1) with cls.expansion = 4: 1×1, 3×3 with the stride, 1×1 to four times the channels."""
    yield from _expansion(answer, 4)
    claims = {
        "runs": "it is built and called without an error, for eight choices of channels and strides",
        "shape": "(N, in_channels, H, W) becomes (N, 4 · channels, H / stride, W / stride), rounded up",
        "layers": "1×1, 3×3 and 1×1 convolutions with their BNs and, where the shape changes, a 1×1 with a BN, all without bias: 75,008 "
        "parameters for 64 → 256, 379,392 for 256 → 512 with stride 2",
        "order": "the output is ReLU(BN(conv(ReLU(BN(conv(ReLU(BN(conv(x)))))))) + shortcut(x))",
    }
    advice = layer_advice | {
        "kernel": "The kernels are 1×1, 3×3 and 1×1 on the main path, and 1×1 on the shortcut.",
        "stride": _bottleneck_stride,
        "in": lambda right, wrong: (
            "A BN follows its convolution, and has as many channels as that gives." if wrong.kind == "norm" else f"The channels go {WIDTHS}"
        ),
        "out": f"The channels go {WIDTHS}",
        "extra": _extra,
    }
    rows = network(answer, list(_cases(blocks.Bottleneck, BOTTLENECK_CASES)), claims, list(_bottleneck_mistakes()), advice)
    yield from improved(rows, lambda: _inside(answer))
