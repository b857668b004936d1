"""Checks of notebook 02: the residual block and its shortcuts."""

import itertools

import torch
import torch.nn.functional as F

from .. import blocks
from .compare import Case, close, network
from .framework import exercise, in_turn
from .residual import CAUSES, OVERWRITTEN, added_wrongly, cut_off, layer_advice


def block_mistakes():
    relu = torch.relu

    def main(r, x):
        return r.bn2(r.conv2(relu(r.bn1(r.conv1(x)))))

    yield from added_wrongly(lambda r, x, act: r.conv2(act(r.bn1(r.conv1(x)))), lambda r, residual: r.bn2(residual))
    order = "The ReLU stands before the first BN: the order is convolution, BN, ReLU."
    yield order, lambda r, x: relu(r.bn2(r.conv2(r.bn1(relu(r.conv1(x))))) + r.shortcut(x))
    yield (
        "ReLUs stand before both BNs: the order is convolution, BN, ReLU, and the last ReLU comes after the addition.",
        (lambda r, x: relu(r.bn2(relu(r.conv2(r.bn1(relu(r.conv1(x)))))) + r.shortcut(x))),
    )
    ahead = "BN and ReLU stand before the convolutions: that is pre-activation, a later idea. Here each BN follows its convolution."
    for pre in (lambda r, x: r.bn1(x), lambda r, x: r.bn2(x)):
        other = "bn2" if pre(_Names(), None) == "bn1" else "bn1"
        for end in (lambda x: x, relu):
            yield (
                ahead,
                lambda r, x, pre=pre, other=other, end=end: end(r.conv2(relu(getattr(r, other)(r.conv1(relu(pre(r, x)))))) + r.shortcut(x)),
            )
    yield OVERWRITTEN, lambda r, x: relu(main(r, x) + r.shortcut(relu(r.bn1(r.conv1(x)))))
    yield (
        "The second convolution reads x: it must read what the first BN and ReLU give.",
        lambda r, x: relu(r.bn2(r.conv2(x)) + r.shortcut(x)),
    )
    yield "The ReLU works on x before the block: the first convolution reads x itself.", lambda r, x: relu(main(r, relu(x)) + r.shortcut(x))
    yield "The ReLU works on x before the block: both paths read x itself.", lambda r, x: relu(main(r, relu(x)) + r.shortcut(relu(x)))
    yield from cut_off(main)


class _Names:
    def __getattr__(self, name):
        return lambda x: name


def _cases():
    for arguments, keywords, *shapes in (
        ((32, 32), {}, (2, 32, 6, 5)),
        ((32, 64), {"stride": 2}, (2, 32, 6, 5)),
        ((8, 8), {"stride": 2}, (3, 8, 9, 7), (1, 8, 8, 8)),
        ((6, 6), {"stride": 3}, (2, 6, 7, 9)),
        ((8, 12), {}, (2, 8, 5, 9), (1, 8, 2, 3)),
        ((12, 8), {"stride": 1}, (2, 12, 4, 5)),
        ((5, 7), {"stride": 3}, (2, 5, 10, 8), (1, 5, 7, 12)),
        ((3, 32), {"stride": 2}, (2, 3, 8, 6), (1, 3, 96, 96)),
    ):
        stride = keywords.get("stride", 1)
        changes = stride != 1 or arguments[0] != arguments[1]
        references = [
            lambda a=arguments, s=stride, norm=norm: blocks.ResidualBlock(*a, s, norm_shortcut=norm)
            for norm in ([False, True] if changes else [False])
        ]
        yield Case("ResidualBlock", arguments, keywords, references, shapes)


@exercise(
    "2.1",
    "ResidualBlock",
    finished=lambda: blocks.ResidualBlock,
    causes=CAUSES,
    ladder=[
        "Draw both paths from x to the addition and write the shape at every arrow: both must arrive with the same one, "
        "(N, out_channels, H / stride, W / stride).",
        "__init__: conv1 has the stride and goes from in_channels to out_channels, conv2 has stride 1; two BNs; self.shortcut is "
        "nn.Identity() if stride == 1 and in_channels == out_channels, else a 1×1 convolution with the same stride.",
        "forward:\n  residual = F.relu(self.bn1(self.conv1(x)))\n  residual = self.bn2(self.conv2(residual))\n"
        "  return F.relu(residual + self.shortcut(x))",
    ],
)
def residual_block(answer):
    """cls(in_channels, out_channels, stride=1): the block of He et al. 2015 with the identity or a 1×1 projection as shortcut."""
    claims = {
        "runs": "it is built and called without an error, for eight choices of channels and strides",
        "shape": "(N, in_channels, H, W) becomes (N, out_channels, H / stride, W / stride), rounded up",
        "layers": "two 3×3 convolutions and, where the shape changes, one 1×1, without bias; two BNs: 18,560 parameters for 32 → 32",
        "order": "the output is ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))",
    }
    yield from network(answer, list(_cases()), claims, list(block_mistakes()), layer_advice)


# ---- zero padding ---------------------------------------------------------------------------------------------------


def padded(x, out_channels, stride):
    """Every stride-th pixel of x, then channels of zeros up to out_channels."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, out_channels - x.shape[1]))


PIXELS = [  # (hint, function(x, stride)): what is done to height and width
    (None, lambda x, s: x[:, :, ::s, ::s]),
    ("The stride isn't used: take every stride-th pixel, x[:, :, ::stride, ::stride].", lambda x, s: x),
    ("Found the mean of stride × stride pixels: take one of them, x[:, :, ::stride, ::stride].",
     lambda x, s: F.avg_pool2d(x, s, ceil_mode=True)),
    ("Found the mean of stride × stride pixels: take one of them, x[:, :, ::stride, ::stride].", lambda x, s: F.avg_pool2d(x, s)),
    ("Found the largest of stride × stride pixels: take one of them, x[:, :, ::stride, ::stride].",
     lambda x, s: F.max_pool2d(x, s, ceil_mode=True)),
    ("Found the largest of stride × stride pixels: take one of them, x[:, :, ::stride, ::stride].", lambda x, s: F.max_pool2d(x, s)),
    ("It begins with another pixel: begin with the first one, x[:, :, ::stride, ::stride].", lambda x, s: x[:, :, 1::s, 1::s]),
    ("It begins with another pixel: begin with the first one, x[:, :, ::stride, ::stride].", lambda x, s: x[:, :, s - 1 :: s, s - 1 :: s]),
    ("The stride works on the height only: it belongs to the width, too.", lambda x, s: x[:, :, ::s]),
    ("The stride works on the width only: it belongs to the height, too.", lambda x, s: x[:, :, :, ::s]),
    ("The stride works on the channels: it belongs to height and width, the last two dimensions.", lambda x, s: x[:, ::s, ::s]),
    ("The stride works on the images and channels: it belongs to height and width, the last two dimensions.", lambda x, s: x[::s, ::s]),
    ("The stride is always 2: use the argument.", lambda x, s: x[:, :, ::2, ::2]),
    ("The upper left part of the image is cut out: take every stride-th pixel of all of it.",
     lambda x, s: x[:, :, : -(-x.shape[2] // s), : -(-x.shape[3] // s)]),
    ("The upper left part of the image is cut out: take every stride-th pixel of all of it.",
     lambda x, s: x[:, :, : x.shape[2] // s, : x.shape[3] // s]),
    ("The last pixel is missing where the size is odd: x[:, :, ::stride, ::stride] rounds up.",
     lambda x, s: x[:, :, ::s, ::s][:, :, : x.shape[2] // s, : x.shape[3] // s]),
    *[(f"The image is made smaller by interpolation ({mode}): take every stride-th pixel, x[:, :, ::stride, ::stride].",
       lambda x, s, mode=mode, up=up: F.interpolate(x, size=[up(n, s) for n in x.shape[2:]], mode=mode))
      for mode in ("bilinear", "bicubic", "nearest", "area") for up in (lambda n, s: -(-n // s), lambda n, s: n // s)],
]  # fmt: skip
ZEROS = [  # (hint, function(x, channels that are missing)): what is done to the channels
    (None, lambda x, n: F.pad(x, (0, 0, 0, 0, 0, n))),
    ("`out_channels` isn't used: the output has as many channels as x.", lambda x, n: x),
    ("The zeros stand before the channels of x: put them after.", lambda x, n: F.pad(x, (0, 0, 0, 0, n, 0))),
    ("The zeros stand on both sides of the channels of x: put all of them after.", lambda x, n: F.pad(x, (0, 0, 0, 0, n // 2, n - n // 2))),
    ("F.pad counts from the last dimension (W, then H, then channels), so the zeros stand around the pixels: channels come third.",
     lambda x, n: F.pad(x, (0, n))),
    ("F.pad counts from the last dimension (W, then H, then channels), so the zeros stand around the pixels: channels come third.",
     lambda x, n: F.pad(x, (0, 0, 0, n))),
    ("F.pad counts from the last dimension (W, H, channels, images), so the zeros are more images: channels come third.",
     lambda x, n: F.pad(x, (0, 0, 0, 0, 0, 0, 0, n))),
    ("`out_channels` channels of zeros are added: add only those that are missing, out_channels - x.shape[1].",
     lambda x, n: F.pad(x, (0, 0, 0, 0, 0, n + x.shape[1]))),
    ("As many channels are added as x has: add those that are missing, out_channels - x.shape[1].",
     lambda x, n: F.pad(x, (0, 0, 0, 0, 0, x.shape[1]))),
    ("The zeros are put on both ends of the channels, the missing number each: put them after, once.",
     lambda x, n: F.pad(x, (0, 0, 0, 0, n, n))),
    ("The channels of x are repeated: the new channels are zeros.", lambda x, n: torch.cat([x] * 9, 1)[:, : x.shape[1] + n]),
    ("The new channels are ones: they are zeros.", lambda x, n: F.pad(x, (0, 0, 0, 0, 0, n), value=1.0)),
    ("The channels of x are not all there any more: the zeros come after all of them.",
     lambda x, n: F.pad(x, (0, 0, 0, 0, 0, n))[:, n:]),
    ("All numbers are zeros: the first channels are those of x.", lambda x, n: F.pad(x, (0, 0, 0, 0, 0, n)) * 0),
    ("A ReLU changes x: the numbers stay as they are.", lambda x, n: F.pad(x.relu(), (0, 0, 0, 0, 0, n))),
]  # fmt: skip


@exercise(
    "2.2",
    "zero_padding",
    finished=lambda: padded,
    causes=[
        (
            r"negative dimension|Sizes of tensors must match",
            "Pixels first: x[:, :, ::stride, ::stride]. Zeros of the same height and width after it.",
        )
    ],
    ladder=[
        "Two steps: first take every stride-th pixel in both directions by slicing, then add the channels that are missing.",
        "x[:, :, ::stride, ::stride] takes the pixels. F.pad(x, (0, 0, 0, 0, 0, extra)) adds `extra` channels of zeros: its numbers "
        "count from the last dimension, two for each.",
    ],
)
def zero_padding(answer):
    """function(x, out_channels, stride): every stride-th pixel of x, then channels of zeros up to out_channels."""
    cases = [
        ((2, 4, 7, 7), 6, 2),
        ((3, 5, 8, 5), 12, 2),
        ((1, 3, 10, 9), 4, 3),
        ((2, 4, 5, 6), 7, 1),
        ((2, 4, 8, 6), 4, 2),
        ((2, 4, 5, 4), 4, 1),
    ]
    hints = {}
    for shape, channels, stride in cases:
        x = torch.randn(shape)
        given, right = x.clone(), padded(x, channels, stride)
        call = f"zero_padding(x, {channels}, {stride}) with x of shape {shape}"
        out = answer.run(answer.thing, given, channels, stride, doing=call)
        if out is None:
            hints = {"return": "Found: it returns None.\nIts last line needs `return`."}
        elif not isinstance(out, torch.Tensor):
            hints = {"return": f"Found: it returns a {type(out).__name__}.\nReturn one tensor."}
        elif not torch.equal(given, x):
            hints = {"input": "Found: x itself has other numbers after the call.\nMake a new tensor, don't write into x."}
        elif out.shape != right.shape or not close(out, right, 1e-6):
            key = (
                "shape" if out.shape != right.shape else "pixels" if not close(out[:, : shape[1]], right[:, : shape[1]], 1e-6) else "zeros"
            )
            found = f"{call} gives the shape {tuple(out.shape)}" if key == "shape" else f"{call} gives other numbers"
            found = f"Found: {found}" + (f"; expected {tuple(right.shape)}." if key == "shape" else ".")
            hints = {key: f"{found}\n{_padding_mistake(out, x, channels, stride)}"}
        if hints:
            break
    claims = {
        "return": "it returns a tensor",
        "input": "x itself is left as it was",
        "shape": "(N, C, H, W) becomes (N, out_channels, H / stride, W / stride), rounded up: six choices of arguments",
        "pixels": "the first channels are every stride-th pixel of x, beginning with the first",
        "zeros": "the other channels are zeros",
    }
    if not (yield from in_turn(claims, hints)):
        return
    x = torch.randn(2, 4, 5, 4, requires_grad=True)
    out = answer.run(answer.thing, x * 1, 6, 2)
    if out.requires_grad:
        out.sum().backward()
    expected = torch.zeros(2, 4, 5, 4)
    expected[:, :, ::2, ::2] = 1
    found = "Found: the output has no gradient.\n" if x.grad is None else "Found: a wrong gradient reaches x.\n"
    cut = "Use slicing and F.pad or torch.cat; .detach(), .data, torch.tensor(…), .numpy() and no_grad cut the gradient off."
    yield "the gradient reaches the pixels of x that are used", x.grad is not None and torch.equal(x.grad, expected), found + cut
    elsewhere = answer.run(answer.thing, torch.randn(1, 2, 4, 4, dtype=torch.float64), 3, 1).dtype
    if elsewhere != torch.float64:
        answer.notes.append("new tensors here are always 32-bit and on the CPU. On a GPU that fails: x.new_zeros(…) makes them like x.")


def _padding_mistake(out, x, channels, stride):
    both = itertools.product(PIXELS, ZEROS)
    for (pixels, smaller), (zeros, more) in sorted(both, key=lambda pair: sum(hint is not None for hint, _ in pair)):
        try:
            other = more(smaller(x, stride), channels - x.shape[1])
        except (RuntimeError, ValueError):
            continue
        if other.shape == out.shape and close(out, other, 1e-5):
            return " ".join(hint for hint in (pixels, zeros) if hint)
    if out.dim() != 4:
        return "The output has four dimensions, (N, C, H, W), as x."
    if out.shape[1] != channels:
        return f"It has {out.shape[1]} channels: add out_channels - x.shape[1] channels of zeros, no more and no less."
    if out.shape[2:] != x[0, 0, ::stride, ::stride].shape:
        return "Height and width differ: x[:, :, ::stride, ::stride] takes every stride-th pixel, beginning with the first."
    if not close(out[:, : x.shape[1]], padded(x, channels, stride)[:, : x.shape[1]], 1e-5):
        return "The first channels must be x[:, :, ::stride, ::stride], in their order; the zeros come after them."
    return "The new channels must be zeros: F.pad(x, (0, 0, 0, 0, 0, extra)) or torch.cat with zeros adds them."
