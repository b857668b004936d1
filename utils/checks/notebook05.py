"""Checks of notebook 05: the pre-activated blocks."""

from . import blocks
from .framework import exercise


@exercise("5.1", "PreActBlock", raw=True, causes=[("", blocks.BOTH_PATHS)])
def preact_block(cls):
    """cls(in_channels, channels, stride=1): BN, ReLU, conv 3×3, BN, ReLU, conv 3×3, then the addition and nothing more."""
    cases = [(64, 64, 1, [73_984]), (64, 128, 2, [229_760]), (16, 32, 1, [14_432])]
    yield from blocks.in_short("PreActBlock", cls, cases, norm=False, preactivated=True)


@exercise("5.2", "PreActBottleneck", raw=True, causes=[("", blocks.BOTH_PATHS)])
def preact_bottleneck(cls):
    """cls(in_channels, channels, stride=1): three times BN, ReLU and convolution (1×1, 3×3 with the stride, 1×1)."""
    cases = [(256, 64, 1, [70_400]), (64, 64, 1, [74_112]), (256, 128, 2, [377_856]), (32, 8, 2, [2_208])]
    yield from blocks.in_short("PreActBottleneck", cls, cases, kernels=(1, 3, 1), expansion=4, norm=False, preactivated=True)
