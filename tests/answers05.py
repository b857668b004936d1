"""Right and wrong answers to the exercises of notebook 05."""

import torch.nn.functional as F
from torch import nn

from utils import checks, models


def block(
    kernels, *, forward=None, join=None, after=False, bias=False, norm_side=False, reads="active", always=False, at=None, stride_side=True
):
    """A class for a pre-activated block (kernels 3, 3) or bottleneck (1, 3, 1), with places for mistakes."""
    widen = 4 if len(kernels) == 3 else 1
    at = kernels.index(3) if at is None else at

    class Block(nn.Module):
        expansion = widen

        def __init__(self, in_channels, channels, stride=1):
            super().__init__()
            out = channels * widen
            widths = [in_channels, *[channels] * (len(kernels) - 1), out]
            self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in (widths[1:] if after else widths[:-1]))
            self.convs = nn.ModuleList(
                nn.Conv2d(widths[i], widths[i + 1], k, stride if i == at else 1, k // 2, bias=bias) for i, k in enumerate(kernels)
            )
            self.side = None
            if always or stride != 1 or in_channels != out:
                self.side = nn.Sequential(nn.Conv2d(in_channels, out, 1, stride if stride_side else 1, bias=False))
                if norm_side:
                    self.side.append(nn.BatchNorm2d(out))

        def forward(self, x):
            y, active = forward(self, x) if forward else self.residual(x)
            read = {"active": active if self.side else x, "raw": x, "always active": active}[reads]
            s = self.side(read) if self.side else read
            return join(y, s) if join else y + s

        def residual(self, x):
            active = None
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = F.relu(norm(x))
                active = x if active is None else active
                x = conv(x)
            return x, active

    return Block


def version_1(self, x):
    start = x
    for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
        x = norm(conv(x))
        x = x if i == len(self.convs) - 1 else F.relu(x)
    return x, start


def no_relus(self, x):
    active = None
    for conv, norm in zip(self.convs, self.norms, strict=True):
        x = norm(x)
        active = x if active is None else active
        x = conv(x)
    return x, F.relu(active)


def relu_before_norm(self, x):
    active = None
    for conv, norm in zip(self.convs, self.norms, strict=True):
        x = norm(F.relu(x))
        active = x if active is None else active
        x = conv(x)
    return x, active


def last_left_out(self, x):
    active = F.relu(self.norms[0](x))
    for conv, norm in zip(self.convs[:-1], self.norms[:-1], strict=True):
        x = conv(F.relu(norm(x)))
    return x, active


class AsSequential(nn.Module):
    """A right block: the layers in one nn.Sequential behind the first BN and ReLU, which both paths share; Identity where due."""

    def __init__(self, cin, width, stride=1):
        super().__init__()
        out = width * self.expansion
        self.start = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU())
        self.projects = (cin, stride) != (out, 1)
        self.skip = nn.Conv2d(cin, out, 1, stride, bias=False) if self.projects else nn.Identity()
        k = 3 if self.expansion == 1 else 1
        layers = [nn.Conv2d(cin, width, k, stride if k == 3 else 1, k // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if k == 1:
            layers += [nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, out, k, padding=k // 2, bias=False))

    def forward(self, x):
        active = self.start(x)
        return self.skip(active if self.projects else x) + self.body(active)


class BlockSequential(AsSequential):
    expansion = 1


class BottleneckSequential(AsSequential):
    expansion = 4


SAME_SHAPE = "both paths must have the same shape"
LEFT_OUT = {2: "convolutions (kernel, in, out, stride)", 3: SAME_SHAPE}  # without its last convolution, a bottleneck stays narrow


def wrong(kernels):
    return {
        "ReLU after the addition": (block(kernels, join=lambda y, s: F.relu(y + s)), "A ReLU follows the addition"),
        "version 1": (block(kernels, forward=version_1, after=True, reads="raw", norm_side=True), "BN"),
        "version 1 order": (block(kernels, forward=version_1, after=True, reads="raw"), "stand before each of them"),
        "projection of x": (block(kernels, reads="raw"), "The projection reads x"),
        "identity of the activated": (block(kernels, reads="always active"), "it must add x itself"),
        "projection everywhere": (block(kernels, always=True), "add x itself"),
        "BN behind the projection": (block(kernels, norm_side=True), "No BN follows the projection"),
        "no ReLUs": (block(kernels, forward=no_relus), "The ReLUs are missing"),
        "ReLU before BN": (block(kernels, forward=relu_before_norm), "order or the addition differs"),
        "last convolution left out": (block(kernels, forward=last_left_out), LEFT_OUT[len(kernels)]),
        "not added": (block(kernels, join=lambda y, s: y), "The shortcut is not added"),
        "bias left on": (block(kernels, bias=True), "Set bias=False"),
        "no stride on the projection": (block(kernels, stride_side=False), SAME_SHAPE),
    }


EXERCISES = {
    checks.preact_block: (
        {"the shared one": models.PreActBlock, "as taught": block((3, 3)), "Sequential": BlockSequential},
        wrong((3, 3)) | {"a residual block": (models.BasicBlock, "stand before each of them")},
    ),
    checks.preact_bottleneck: (
        {"the shared one": models.PreActBottleneck, "as taught": block((1, 3, 1)), "Sequential": BottleneckSequential},
        wrong((1, 3, 1)) | {"stride on the first 1×1": (block((1, 3, 1), at=0), "Here, the 3×3 convolution has it")},
    ),
}
