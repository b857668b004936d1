"""Right and wrong answers to the exercises of notebook 03."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models
from utils.models import ResidualBlock

make_stage = functools.partial(models.make_stage, ResidualBlock)


def layer(shared=False, strides="first", count=0, channels=True, wrap=nn.Sequential, projections=False):
    """A make_layer with one thing done differently."""

    def make_layer(in_channels, out_channels, blocks, stride):
        made, now = [], in_channels
        for i in range(blocks + count):
            s = stride if strides == "all" or i == (0 if strides == "first" else blocks - 1) else 1
            shortcut = "C" if projections else "B"
            made.append(made[-1] if shared and i > 1 else ResidualBlock(now, out_channels, s, shortcut))
            now = out_channels if channels else in_channels
        return wrap(*made)

    return make_layer


class Stage(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def recursive(in_channels, out_channels, blocks, stride):
    first = models.ResidualBlock(in_channels, out_channels, stride, norm_shortcut=True)
    return first if blocks == 1 else nn.Sequential(first, recursive(out_channels, out_channels, blocks - 1, 1))


RIGHT_LAYERS = {
    "the shared one": make_stage,
    "as taught": layer(),
    "a module of its own": layer(wrap=lambda *blocks: Stage(blocks)),
    "recursive, BN on the projection": recursive,
}
WRONG_LAYERS = {
    "channels never updated": (layer(channels=False), "Only the first block goes from in_channels"),
    "stride on every block": (layer(strides="all"), "The stride belongs to the first block alone"),
    "stride on the last block": (layer(strides="last"), "The stride belongs to the first block alone"),
    "stride ignored": (lambda i, o, n, s: layer()(i, o, n, 1), "the first convolution has the stride"),
    "one block too many": (layer(count=1), "Found 8"),
    "one block too few": (layer(count=-1), "Found 4"),
    "always three blocks": (lambda i, o, n, s: layer()(i, o, 3, s), "Use the argument"),
    "one block repeated": (layer(shared=True), "make a new one each time"),
    "a list": (layer(wrap=lambda *blocks: list(blocks)), "nn.Sequential(*blocks)"),
    "projections everywhere": (layer(projections=True), "Found 3 1×1 convolutions"),
    "nothing returned": (lambda i, o, n, s: None, "Found NoneType"),
}


class Net(nn.Module):
    """The right network, with places for mistakes."""

    stem = dict(kernel_size=7, stride=2, padding=3, bias=False)
    blocks, strides, classes, pool_first = (6, 6, 12), (1, 2, 2), None, False

    def __init__(self, num_classes=10):
        super().__init__()
        self.c, self.n = nn.Conv2d(3, 32, **self.stem), nn.BatchNorm2d(32)
        widths = (32, 32, 64, 128)
        self.s = nn.ModuleList(make_stage(i, o, n, s) for i, o, n, s in zip(widths, widths[1:], self.blocks, self.strides, strict=False))
        self.out = nn.Linear(128, self.classes or num_classes)

    def start(self, x):
        return F.relu(self.n(self.c(x)))

    def pool(self, x):
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def forward(self, x):
        x = self.start(x)
        for stage in self.s:
            x = stage(x)
        return self.out(self.pool(x))


class FixedPool(Net):
    def pool(self, x):
        return nn.AvgPool2d(4)(x).flatten(1)


class FlatLinear(Net):
    def __init__(self, num_classes=10):
        super().__init__()
        self.out = nn.Linear(2048, num_classes)

    def pool(self, x):
        return x.flatten(1)


class NoStart(Net):
    def start(self, x):
        return self.c(x)


class NoReLU(Net):
    def start(self, x):
        return self.n(self.c(x))


class MaxPool(Net):
    def start(self, x):
        return F.max_pool2d(super().start(x), 3, 2, 1)


class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


def as_sequential(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 32, 7, 2, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        *make_stage(32, 32, 6, 1),
        *make_stage(32, 64, 6, 2),
        *make_stage(64, 128, 12, 2),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def variant(**changes):
    return type("Variant", (Net,), changes)


RIGHT_NETS = {
    "the shared one": models.resnet25,
    "BN on the projections": functools.partial(models.resnet25, norm_shortcut=True),
    "ModuleList": Net,
    "Sequential": as_sequential,
}
WRONG_NETS = {
    "3×3 stem": (variant(stem=dict(kernel_size=3, padding=1, bias=False)), "Found 3 → 32, kernel 3, stride 1"),
    "no stride in the stem": (variant(stem=dict(kernel_size=7, padding=3, bias=False)), "stride 1, padding 3"),
    "no padding in the stem": (variant(stem=dict(kernel_size=7, stride=2, bias=False)), "padding 0"),
    "bias in the stem": (variant(stem=Net.stem | {"bias": True}), "bias True"),
    "nothing behind the stem": (NoStart, "put BN and ReLU between"),
    "no ReLU behind the stem": (NoReLU, "put BN and ReLU between"),
    "max-pooling behind the stem": (MaxPool, "no max-pooling"),
    "8 blocks a stage": (variant(blocks=(8, 8, 8)), "Found 8 of 32, 8 of 64, 8 of 128"),
    "no stride in the third stage": (variant(strides=(1, 2, 1)), "Found 1 blocks with stride 2"),
    "stride in the first stage": (variant(strides=(2, 2, 2)), "Found 3 blocks with stride 2"),
    "pooling of a fixed size": (FixedPool, "AvgPool2d(4) fits 32×32 images alone"),
    "no pooling": (FlatLinear, "Pool to (N, 128)"),
    "softmax": (Softmax, "Leave the softmax off"),
    "num_classes ignored": (variant(classes=10), "Use num_classes"),
    "a whole batch's mean": (variant(pool=lambda self, x: x.mean((0, 2, 3), keepdim=True).flatten(1)), "Found (1, 10)"),
    "an instance": (torch.nn.Identity(), "Error"),
}

EXERCISES = {
    checks.make_layer: (RIGHT_LAYERS, WRONG_LAYERS),
    checks.resnet25: (RIGHT_NETS, WRONG_NETS),
}
