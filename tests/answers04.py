"""Right and wrong answers to the exercises of notebook 04."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models
from utils.models import BasicBlock, Bottleneck

# ---- the two blocks: what holds for both ----------------------------------------------------------------------------


def project(i, o, stride):
    return nn.Sequential() if (i, stride) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))


def block(kernels, *, residual=None, join=None, shortcut=project, at=None, bias=False, expansion=None, last_bn=True, also=None, **options):
    """A class for a basic block (kernels 3, 3) or a bottleneck (1, 3, 1), with places for mistakes."""
    widen = 4 if len(kernels) == 3 else 1
    at = kernels.index(3) if at is None else at

    class Block(nn.Module):
        def __init__(self, in_channels, channels, stride=1):
            super().__init__()
            out = channels * widen
            widths = [in_channels, *[channels] * (len(kernels) - 1), out]
            self.convs = nn.ModuleList(
                nn.Conv2d(widths[i], widths[i + 1], k, stride if i == at else 1, k // 2, bias=bias) for i, k in enumerate(kernels)
            )
            self.norms = nn.ModuleList(nn.BatchNorm2d(w, **options) for w in widths[1 : len(widths) - (not last_bn)])
            self.side = shortcut(in_channels, out, stride)
            if also:
                also(self, in_channels, channels, out, stride)

        def forward(self, x):
            y = residual(self, x) if residual else self.residual(x)
            return join(y, self.side(x)) if join else F.relu(y + self.side(x))

        def residual(self, x):
            for conv, norm in zip(self.convs[:-1], self.norms, strict=False):
                x = F.relu(norm(conv(x)))
            x = self.convs[-1](x)
            return self.norms[-1](x) if last_bn else x

    if expansion != "none":
        Block.expansion = expansion or widen
    return Block


def forward(kernels, function):
    """The right layers with another forward: function(self, x)."""
    base = block(kernels)
    return type("Block", (base,), {"forward": function})


def no_relu_between(self, x):
    for conv, norm in zip(self.convs, self.norms, strict=True):
        x = norm(conv(x))
    return x


def relu_before_norm(self, x):
    for conv, norm in zip(self.convs[:-1], self.norms[:-1], strict=True):
        x = norm(F.relu(conv(x)))
    return self.norms[-1](self.convs[-1](x))


def in_place(self, x):
    return type(self).residual(self, F.relu_(x))


def overwritten(self, x):
    x = F.relu(self.norms[0](self.convs[0](x)))
    for conv, norm in zip(self.convs[1:-1], self.norms[1:-1], strict=True):
        x = F.relu(norm(conv(x)))
    x = self.norms[-1](self.convs[-1](x))
    return F.relu(x + self.side(x))


def preactivated(kernels):
    widen = 4 if len(kernels) == 3 else 1

    def norms(self, i, c, o, stride):
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in [i, *[c] * (len(kernels) - 1)])

    def residual(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(F.relu(norm(x)))
        return x

    made = block(kernels, residual=residual, also=norms)
    made.expansion = widen
    return made


def without_gradient(self, x):
    with torch.no_grad():
        shortcut = self.side(x)
    return F.relu(type(self).residual(self, x) + shortcut)


def one_norm(self, i, c, o, stride):
    self.norms[0] = self.norms[1] if self.norms[0].num_features == self.norms[1].num_features else self.norms[0]


class AsSequential(nn.Module):
    """A right block in one nn.Sequential; None as identity, the shortcut first."""

    def __init__(self, in_channels, width, stride=1):
        super().__init__()
        out = width * self.expansion
        self.down = None if (in_channels, stride) == (out, 1) else project(in_channels, out, stride)
        layers = [nn.Conv2d(in_channels, width, self.first, 1 if self.first == 1 else stride, self.first // 2, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if self.expansion == 4:
            layers += [nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(width, out, self.first, 1, self.first // 2, bias=False), nn.BatchNorm2d(out)]
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        y = self.body(x)
        y += x if self.down is None else self.down(x)
        return y.relu_()


class BasicSequential(AsSequential):
    expansion, first = 1, 3


class BottleneckSequential(AsSequential):
    expansion, first = 4, 1


class Padded(nn.Module):
    """padding="same", F.pad, lazy layers, the shortcut first, BNs of a class of their own, one nn.ReLU for all."""

    expansion = 1

    class MyBatchNorm(nn.BatchNorm2d):
        pass

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out = channels * self.expansion
        if in_channels != out or stride > 1:
            self.downsample = nn.ModuleDict({"conv": nn.LazyConv2d(out, 1, stride, bias=False), "bn": nn.LazyBatchNorm2d()})
        if self.expansion == 4:
            self.narrow, self.bn0 = nn.Conv2d(in_channels, channels, 1, padding="same", bias=False), nn.LazyBatchNorm2d()
        self.conv1 = nn.LazyConv2d(channels, 3, (stride, stride), bias=False)
        self.conv2 = nn.Conv2d(channels, out, 3 if self.expansion == 1 else 1, padding="same", bias=False)
        self.bn1, self.bn2, self.act = self.MyBatchNorm(channels), self.MyBatchNorm(out), nn.ReLU()

    def forward(self, x):
        side = self.downsample["bn"](self.downsample["conv"](x)) if hasattr(self, "downsample") else x
        if self.expansion == 4:
            x = self.act(self.bn0(self.narrow(x)))
        x = self.act(self.bn1(self.conv1(F.pad(x, [1] * 4))))
        return self.act(torch.add(side, self.bn2(self.conv2(x))))


class PaddedBottleneck(Padded):
    expansion = 4


class Functional(nn.Module):
    """Bare parameters and functions; numpy's numbers."""

    expansion = np.int64(1)
    kernels = (3, 3)

    def __init__(self, i, c, stride=1):
        super().__init__()
        o = int(c * self.expansion)
        self.stride, widths = stride, [i, *[c] * (len(self.kernels) - 1), o]
        self.w = nn.ParameterList(
            [torch.randn(b, a, k, k) * 0.1 for a, b, k in zip(widths, widths[1:], self.kernels, strict=False)]
            + ([torch.randn(o, i, 1, 1)] if (i, stride) != (o, 1) else [])
        )
        self.n = nn.ModuleList(nn.BatchNorm2d(w.shape[0]) for w in self.w)

    def forward(self, x):
        out = x
        for number, k in enumerate(self.kernels):
            step = self.stride if number == self.kernels.index(3) else 1
            out = self.n[number](F.conv2d(out, self.w[number], stride=step, padding=k // 2))
            if number < len(self.kernels) - 1:
                out = out.clamp(min=0)
        if len(self.w) > len(self.kernels):
            x = self.n[-1](F.conv2d(x, self.w[-1], stride=self.stride))
        return torch.where(out + x > 0, out + x, 0.0)


class FunctionalBottleneck(Functional):
    expansion, kernels = np.int64(4), (1, 3, 1)


class Inherited(BasicBlock):
    def forward(self, x):
        return super().forward(x)


PROJECT = "it needs a projection, with the block's stride and output channels"
CUT = "is cut off from the gradient"


def wrong(kernels):
    """Mistakes that are the same in both blocks."""
    rows = {
        "bias left on": ({"bias": True}, "Set bias=False"),
        "no stride on the shortcut": ({"shortcut": lambda i, o, s: project(i, o, 1)}, "the block's stride is missing on this path"),
        "identity everywhere": ({"shortcut": lambda i, o, s: nn.Identity()}, PROJECT),
        "projection everywhere": (
            {"shortcut": lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))},
            "the shortcut is the identity: add x itself" if len(kernels) == 2 else "add x itself",
        ),
        "no BN on the projection": ({"shortcut": lambda i, o, s: project(i, o, s)[:1]}, "No BN reads what `side.0` gives"),
        "ReLU on the projection": (
            {"shortcut": lambda i, o, s: (p := project(i, o, s)).extend([nn.ReLU()] * (len(p) > 0))},
            "On the shortcut, a ReLU follows the BN",
        ),
        "bias on the projection": (
            {"shortcut": lambda i, o, s: project(i, o, s) if (i, s) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, s), nn.BatchNorm2d(o))},
            "Set bias=False",
        ),
        "3×3 projection": (
            {
                "shortcut": lambda i, o, s: project(i, o, s)
                if (i, s) == (o, 1)
                else nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o))
            },
            "1×1",
        ),
        "pooling and projection": (
            {
                "shortcut": lambda i, o, s: project(i, o, s)
                if (i, s) == (o, 1)
                else nn.Sequential(nn.AvgPool2d(s, ceil_mode=True), *project(i, o, 1))
            },
            "The first convolution and the shortcut have the block's stride" if len(kernels) == 2 else "the 3×3 convolution has the block's",
        ),
        "a BN as shortcut": (
            {"shortcut": lambda i, o, s: nn.BatchNorm2d(o) if (i, s) == (o, 1) else project(i, o, s)},
            "One BN follows each convolution",
        ),
        "ReLU before the addition": ({"join": lambda y, s: F.relu(y) + s}, "before the addition"),
        "no ReLU after the addition": ({"join": lambda y, s: y + s}, "after the addition is missing"),
        "not added": ({"join": lambda y, s: F.relu(y)}, "The shortcut is not added"),
        "subtracted": ({"join": lambda y, s: F.relu(y - s)}, "The shortcut is subtracted"),
        "concatenated": ({"join": lambda y, s: F.relu(torch.cat([y, s], 1))}, "torch.cat puts the paths side by side"),
        "a tuple": ({"join": lambda y, s: (y, s)}, "returns a tuple of 2"),
        "no return": ({"join": lambda y, s: None}, "Its last line needs `return`"),
        "GELU at the end": ({"join": lambda y, s: F.gelu(y + s)}, "After the addition stands a GELU"),
        "no ReLU between": ({"residual": no_relu_between}, "between the convolutions is missing"),
        "ReLU before BN": ({"residual": relu_before_norm}, "the order is convolution, BN, ReLU"),
        "last BN left out": ({"last_bn": False}, "No BN reads what `convs."),
        "wrong expansion": ({"expansion": 2}, "in the class, above __init__"),
        "no expansion": ({"expansion": "none"}, "there is none"),
        "a float as expansion": ({"expansion": float(4 if len(kernels) == 3 else 1)}, ".0."),
        "input changed in place": ({"residual": in_place}, "works in place on x"),
        "momentum": ({"momentum": 0.01}, "Is `momentum` (0.1) changed"),
        "eps": ({"eps": 1e-3}, "Leave `eps` at its default"),
        "no affine": ({"affine": False}, "Leave `affine` at its default"),
        "no running statistics": ({"track_running_stats": False}, "uses the mean and variance of the batch"),
        "an unused layer": (
            {"also": lambda self, i, c, o, s: setattr(self, "fc", nn.Linear(o, 10))},
            "`fc` is made by",
        ),
    }
    rows = {name: (block(kernels, **mistake), hint) for name, (mistake, hint) in rows.items()}
    base = block(kernels)
    return rows | {
        "shortcut without gradient": (forward(kernels, without_gradient), f"The shortcut {CUT}"),
        "detached": (forward(kernels, lambda self, x: base.forward(self, x.detach())), "no gradient reaches the input"),
        "dropout": (forward(kernels, lambda self, x: F.dropout(base.forward(self, x), 0.1, self.training)), "there is a dropout with p=0.1"),
        "eval in forward": (forward(kernels, lambda self, x: base.forward(self.eval(), x)), "`forward` must not call"),
        "pre-activated": (preactivated(kernels), "that is pre-activation"),
        "stride ignored": (
            type("Block", (base,), {"__init__": lambda self, i, c, stride=1: base.__init__(self, i, c, 1)}),
            "The stride isn't used",
        ),
        "stride always 2": (
            type("Block", (base,), {"__init__": lambda self, i, c, stride=1: base.__init__(self, i, c, 2)}),
            "expected",
        ),
        "no default for the stride": (
            type("Block", (base,), {"__init__": lambda self, i, c, stride: base.__init__(self, i, c, stride)}),
            "the same names, order and defaults",
        ),
        "stride by keyword alone": (
            type("Block", (base,), {"__init__": lambda self, i, c, *, stride=1: base.__init__(self, i, c, stride)}),
            "the same names, order and defaults",
        ),
        "one BN for two": (block(kernels, also=one_norm), " 2 times in one call"),
        "an instance": (base(8, 8), "Hand over the class itself"),
    }


RIGHT_BASIC = {
    "the shared one": BasicBlock,
    "as taught": block((3, 3)),
    "Sequential, None, in place": BasicSequential,
    "lazy, same, padded": Padded,
    "functional": Functional,
    "inherited": Inherited,
    "last BN begins with 0": block((3, 3), also=lambda self, *_: nn.init.zeros_(self.norms[-1].weight)),
}
WRONG_BASIC = wrong((3, 3)) | {
    "a bottleneck": (Bottleneck, "expansion` is 1"),
    "one 3×3 convolution": (block((3,)), "there is no 3×3 convolution 64 → 64"),
    "three 3×3 convolutions": (block((3, 3, 3), expansion=1), "expected"),
    "stride on the second": (block((3, 3), at=1), "The first convolution and the shortcut have the block's stride"),
    "x overwritten": (forward((3, 3), overwritten), "is x overwritten on the main path?"),
    "the block of notebook 02": (models.ResidualBlock, "No BN reads what `shortcut` gives"),
    "a plain pair": (models.PlainBlock, "there is no 1×1 convolution 64 → 128"),
}
RIGHT_BOTTLENECK = {
    "the shared one": Bottleneck,
    "as taught": block((1, 3, 1)),
    "Sequential, None, in place": BottleneckSequential,
    "lazy, same, padded": PaddedBottleneck,
    "functional": FunctionalBottleneck,
}


def swapped(self, i, c, o, stride):
    """1×1, 1×1, 3×3."""
    self.convs[1], self.convs[2] = nn.Conv2d(c, c, 1, stride, bias=False), nn.Conv2d(c, o, 3, padding=1, bias=False)


def first_relu_missing(self, x):
    x = self.norms[0](self.convs[0](x))
    return self.norms[2](self.convs[2](F.relu(self.norms[1](self.convs[1](x)))))


def second_relu_missing(self, x):
    x = F.relu(self.norms[0](self.convs[0](x)))
    return self.norms[2](self.convs[2](self.norms[1](self.convs[1](x))))


class ChannelsAreTheOutput(block((1, 3, 1))):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, max(1, channels // 4), stride)


class ComparesChannels(nn.Module):
    """The shortcut is the identity where in_channels == channels, not 4 · channels."""

    expansion = 4

    def __new__(cls, i, c, stride=1):
        return block((1, 3, 1), shortcut=lambda a, o, s: nn.Identity() if (a, s) == (o // 4, 1) else project(a, o, max(s, 1)))(i, c, stride)


def only_if(condition):
    return block((1, 3, 1), shortcut=lambda i, o, s: project(i, o, s) if condition(i, o, s) else nn.Identity())


WRONG_BOTTLENECK = wrong((1, 3, 1)) | {
    "stride on the first 1×1": (block((1, 3, 1), at=0), "Here, the 3×3 convolution has it"),
    "stride on the last 1×1": (block((1, 3, 1), at=2), "The stride is on a 1×1 convolution of the main path"),
    "a basic block": (BasicBlock, "expansion` is 4"),
    "3×3 convolutions everywhere": (block((3, 3, 3)), "The kernels are 1×1, 3×3 and 1×1"),
    "1×1, 1×1, 3×3": (block((1, 3, 1), also=swapped), "expected"),
    "the first ReLU missing": (block((1, 3, 1), residual=first_relu_missing), "The ReLU after the first BN is missing"),
    "the second ReLU missing": (block((1, 3, 1), residual=second_relu_missing), "The ReLU after the second BN is missing"),
    "channels as those of the output": (ChannelsAreTheOutput, "the block gives 4 · channels"),
    "projection where channels differ": (only_if(lambda i, o, s: i != o // 4 or s != 1), "it needs a projection"),
    "projection where the stride is not 1": (only_if(lambda i, o, s: s != 1), "it needs a projection"),
    "projection where the channels differ alone": (only_if(lambda i, o, s: i != o), "it needs a projection"),
    "groups": (
        block((1, 3, 1), also=lambda self, i, c, o, s: setattr(self.convs[1], "groups", 1) or self.convs.__setitem__(
            1, nn.Conv2d(c, c, 3, s, 1, groups=c, bias=False))),
        "`groups` cuts a convolution",
    ),
    "x overwritten": (forward((1, 3, 1), overwritten), "is x overwritten on the main path?"),
}  # fmt: skip
EXERCISES = {
    checks.basic_block: (RIGHT_BASIC, WRONG_BASIC),
    checks.bottleneck: (RIGHT_BOTTLENECK, WRONG_BOTTLENECK),
}
