"""Checks of notebook 02: the residual block and its shortcuts."""

import torch

from . import blocks
from .framework import exercise


@exercise("When they are added, both paths must have the same shape: is the block's stride, and out_channels, on the shortcut, too?")
def residual_block(cls):
    """cls(in_channels, out_channels, stride=1): the block of He et al. 2015 with the identity or a 1×1 projection as shortcut."""
    cases = (
        (32, 32, 1, [18_560]),
        (32, 64, 2, [57_600, 57_728]),  # without and with BN on the projection
        (16, 32, 1, [14_464, 14_528]),
        (16, 16, 2, [4_928, 4_960]),
    )
    right = True
    for claim, holds, hint in blocks.in_short("ResidualBlock", cls, cases):
        right &= holds
        yield claim, holds, hint
    if not right:  # one mistake at a time
        return
    shape = tuple(cls(3, 32, stride=2)(torch.zeros(1, 3, 96, 96)).shape)
    yield "(1, 3, 96, 96) becomes (1, 32, 48, 48) with 32 channels and stride 2", shape == (1, 32, 48, 48), f"Found {shape}."


@exercise("It is called as zero_padding(x, out_channels, stride).")
def zero_padding(function):
    """function(x, out_channels, stride): every stride-th pixel of x, then channels of zeros up to out_channels."""
    x = torch.randn(2, 4, 7, 7)
    out = function(x.clone(), 6, 2)
    yield "4 → 6 channels, stride 2: (2, 4, 7, 7) becomes (2, 6, 4, 4)", tuple(out.shape) == (2, 6, 4, 4), f"Found {tuple(out.shape)}."
    if tuple(out.shape) != (2, 6, 4, 4):
        return
    old, new = out[:, :4], out[:, 4:]
    yield (
        "the first channels are every second pixel of x, starting with the first",
        torch.equal(old, x[:, :, ::2, ::2]),
        "Use x[:, :, ::stride, ::stride], and put the zeros behind the channels of x.",
    )
    yield "the other channels are zeros", not new.any(), "Found other numbers.\nF.pad(x, (0, 0, 0, 0, 0, extra)) adds channels of zeros."
    same = function(x, 4, 1)
    yield "4 → 4 channels, stride 1: x comes back as it is", torch.equal(same, x), f"Found shape {tuple(same.shape)} or other numbers."
