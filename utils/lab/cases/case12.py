"""Case 12."""

from torch import nn

from .. import program


def make_stage(in_channels, channels, blocks, stride, block=program.Block):
    layers = [block(in_channels, channels, stride)]
    for _ in range(1, blocks - 1):
        layers.append(block(channels, channels))
    return nn.Sequential(*layers)
