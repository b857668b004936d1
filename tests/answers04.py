"""Right and wrong answers to the exercises of notebook 04."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models
from utils.models import BasicBlock, Bottleneck

# ---- the bottleneck ----------------------------------------------------------------------------


def project(i, o, stride):
    return nn.Sequential() if (i, stride) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))


def block(kernels, *, residual=None, join=None, shortcut=project, at=None, bias=False, expansion=None, last_bn=True, also=None, **options):
    """A class for a bottleneck (kernels 1, 3, 1) or a basic block (3, 3), with places for mistakes."""
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
            "add x itself",
        ),
        "no BN on the projection": ({"shortcut": lambda i, o, s: project(i, o, s)[:1]}, "No BN reads what `side.0` gives"),
        "ReLU on the projection": (
            {"shortcut": lambda i, o, s: (p := project(i, o, s)).extend([nn.ReLU()] * (len(p) > 0))},
            "A ReLU stands on the shortcut",
        ),
        "bias on the projection": (
            {"shortcut": lambda i, o, s: project(i, o, s) if (i, s) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, s), nn.BatchNorm2d(o))},
            "Set bias=False",
        ),
        "3×3 projection": (
            {
                "shortcut": lambda i, o, s: (
                    project(i, o, s) if (i, s) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o))
                )
            },
            "1×1",
        ),
        "pooling and projection": (
            {
                "shortcut": lambda i, o, s: (
                    project(i, o, s) if (i, s) == (o, 1) else nn.Sequential(nn.AvgPool2d(s, ceil_mode=True), *project(i, o, 1))
                )
            },
            "the 3×3 convolution has the block's",
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
        "dropout": (
            forward(kernels, lambda self, x: F.dropout(base.forward(self, x), 0.1, self.training)),
            "there is a dropout with p=0.1",
        ),
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
    "padding on a 1×1": (
        block((1, 3, 1), also=lambda self, i, c, o, s: self.convs.__setitem__(0, nn.Conv2d(i, c, 1, padding=1, bias=False))),
        "a 1×1 none",
    ),
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


# ---- a stage --------------------------------------------------------------------------------------------------------


def stage(*, then=None, count=0, strides="first", shared=False, wrap=nn.Sequential, width=None, extra=None):
    """A make_stage with one thing done differently."""

    def make_stage(block, in_channels, channels, blocks, stride):
        made, now = [], in_channels
        for i in range(blocks + count):
            s = stride if strides == "all" or i == (0 if strides == "first" else blocks - 1) else 1
            made.append(made[-1] if shared and i > 1 else block(now, width(channels, block) if width else channels, s))
            now = then(channels, block) if then else channels * block.expansion
        if extra:
            made.append(extra(now))
        return wrap(*made)

    return make_stage


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        return functools.reduce(lambda x, block: block(x), self.blocks, x)


class InAList(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = list(blocks)

    forward = Stage.forward


class ByMethod(nn.Sequential):
    def __init__(self, block, in_channels, channels, blocks, stride):
        super().__init__()
        self.in_planes = in_channels
        for step in [stride] + [1] * (blocks - 1):
            self.append(block(self.in_planes, channels, stride=step))
            self.in_planes = channels * block.expansion


def comprehension(block, in_channels, channels, blocks, stride):
    first, *_ = row = [block(in_channels if i == 0 else channels * block.expansion, channels, (stride, 1)[i > 0]) for i in range(blocks)]
    return nn.Sequential(*row)


def no_return(block, in_channels, channels, blocks, stride):
    stage()(block, in_channels, channels, blocks, stride)


def repeated(block, in_channels, channels, blocks, stride):
    return nn.Sequential(block(in_channels, channels, stride), *[block(channels * block.expansion, channels)] * (blocks - 1))


RIGHT_STAGES = {
    "the shared one": models.make_stage,
    "as taught": stage(),
    "a module of its own": stage(wrap=Stage),
    "a class": ByMethod,
    "a comprehension": comprehension,
    "the block's own attribute": stage(then=lambda channels, block: int(np.int64(channels) * block.expansion)),
    "nested": lambda b, i, c, n, s: nn.Sequential(b(i, c, s), nn.Sequential(*[b(b.expansion * c, c) for _ in range(n - 1)])),
}
GIVES = "A block gives channels * block.expansion"
WRONG_STAGES = {
    "expansion forgotten": (stage(then=lambda channels, block: channels), GIVES),
    "expansion always 4": (stage(then=lambda channels, block: channels * 4), "All blocks after the first read what the block before"),
    "expansion of the two known blocks": (stage(then=lambda c, block: c * (4 if block is Bottleneck else 1)), GIVES),
    "channels never updated": (
        lambda b, i, c, n, s: nn.Sequential(*[b(i, c, s if k == 0 else 1) for k in range(n)]),
        "Only the first block reads in_channels",
    ),
    "channels times expansion as channels": (stage(width=lambda c, block: c * block.expansion), "it multiplies by its expansion itself"),
    "stride on every block": (stage(strides="all"), "The stride belongs to the first block alone"),
    "stride on the last block": (stage(strides="last"), "and no other block"),
    "stride ignored": (lambda b, i, c, n, s: stage()(b, i, c, n, 1), "The first block has the stride that is given, here 2"),
    "stride always 2": (lambda b, i, c, n, s: stage()(b, i, c, n, 2), "The first block has the stride that is given"),
    "one block too many": (stage(count=1), "the number of blocks is the argument `blocks`"),
    "one block too few": (stage(count=-1), "the number of blocks is the argument `blocks`"),
    "always three blocks": (lambda b, i, c, n, s: stage()(b, i, c, 3, s), "the number of blocks is the argument `blocks`"),
    "always basic blocks": (lambda b, i, c, n, s: stage()(BasicBlock, i, c, n, s), "Every block is made by the argument `block`"),
    "basic blocks after the first": (
        lambda b, i, c, n, s: nn.Sequential(b(i, c, s), *[BasicBlock(c * b.expansion, c * b.expansion) for _ in range(n - 1)]),
        "Every block is made by the argument `block`",
    ),
    "one block repeated": (stage(shared=True), "make a new one each time"),
    "[block] * n": (repeated, "make a new one each time"),
    "a list": (stage(wrap=lambda *blocks: list(blocks)), "returns a list"),
    "a ModuleList": (stage(wrap=lambda *blocks: nn.ModuleList(blocks)), "returns an nn.ModuleList"),
    "the class itself": (lambda b, i, c, n, s: nn.Sequential(*[b] * n), "A class is no module before it is called"),
    "no return": (no_return, "Its last line needs `return`"),
    "layers in a list": (stage(wrap=InAList), "`self.blocks` is a Python list"),
    "in_channels ignored": (lambda b, i, c, n, s: stage()(b, c, c, n, s), "The first block reads `in_channels`, here 16"),
    "a ReLU and BN at the end": (stage(extra=nn.BatchNorm2d), "nothing else"),
    "dropout": (stage(extra=lambda now: nn.Dropout(0.3)), "there is a dropout"),
    "torchvision's downsample": (lambda b, i, c, n, s: nn.Sequential(b(i, c, s, nn.Identity())), "block(in_channels, channels, stride)"),
    "make_layer's arguments": (lambda i, c, n, s: None, "the same names, order and defaults"),
    "the last to the first": (lambda *a: nn.Sequential(*list(stage()(*a))[::-1]), "in another order"),
    "detached": (stage(wrap=lambda *b: nn.Sequential(b[0], Detach(), *b[1:])), "After the first block, the gradient is cut off"),
}


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


# ---- the whole network ----------------------------------------------------------------------------------------------


def net(*, stem=None, pool=True, pooling=None, fc=None, strides=(1, 2, 2, 2), fixed=None, after=None, channels=True, cifar_pool=False,
        end=None, stages=models.make_stage, widths=(64, 128, 256, 512), maximum=None, take=list, front=None, flat=None):  # fmt: skip
    """A ResNet class with one thing done differently."""

    class Net(nn.Module):
        def __init__(self, block, layers, in_channels=3, num_classes=1000, stem_="imagenet", **names):
            super().__init__()
            cifar = names.get("stem", stem_) == "cifar" and fixed != "stem"
            kernel, stride = (3, 1) if cifar else (7, 2)
            in_channels = in_channels if channels else 3
            options = {"stride": stride, "padding": kernel // 2, "bias": False} | (stem or {})
            start = [nn.Conv2d(in_channels, 64, kernel, **options), nn.BatchNorm2d(64), nn.ReLU(inplace=True)][: after or 3]
            if pool and (not cifar or cifar_pool):
                start.append(maximum or nn.MaxPool2d(3, 2, 1))
            start = front(start) if front else start
            self.start, self.middle, now = nn.Sequential(*start), nn.Sequential(), 64
            for width, blocks, s in zip(widths, [2, 2, 2, 2] if fixed == "layers" else take(layers), strides, strict=True):
                self.middle.append(stages(block, now, width, blocks, s))
                now = width * block.expansion
            self.pooling = pooling or nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(fc(block) if fc else now, 10 if fixed == "classes" else num_classes)

        def forward(self, x):
            x = self.pooling(self.middle(self.start(x)))
            x = self.fc(flat(x) if flat else x.flatten(1))
            return end(x) if end else x

    return Net


class FunctionalNet(nn.Module):
    """A right network in functional style, the stages in a list."""

    def __init__(self, block, layers, in_channels=3, num_classes=1000, stem="imagenet"):
        super().__init__()
        self.large = stem == "imagenet"
        self.c = nn.Conv2d(in_channels, 64, 7 if self.large else 3, 2 if self.large else 1, 3 if self.large else 1, bias=False)
        self.n = nn.BatchNorm2d(64)
        widths = [64] + [64 * 2**i * block.expansion for i in range(4)]
        self.rows = nn.ModuleList(models.make_stage(block, widths[i], 64 * 2**i, n, 1 + (i > 0)) for i, n in enumerate(layers))
        self.out = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        x = F.relu(self.n(self.c(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        return self.out(functools.reduce(lambda x, row: row(x), self.rows, x).mean((2, 3)))


class Torchvision(nn.Module):
    """torchvision's names and its initialisation; lazy layers, padding by hand, the pooling before the ReLU."""

    def __init__(self, block, layers, in_channels=3, num_classes=1000, stem="imagenet"):
        super().__init__()
        self.inplanes, self.stem = 64, stem
        self.conv1 = (
            nn.LazyConv2d(64, 7, 2, bias=False) if stem == "imagenet" else nn.Conv2d(in_channels, 64, 3, padding="same", bias=False)
        )
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2)
        self.fc = nn.LazyLinear(num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d) and not isinstance(m, nn.LazyConv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(self, block, planes, blocks, stride=1):
        layers = nn.ModuleList([block(self.inplanes, planes, stride)])
        self.inplanes = planes * block.expansion
        for _ in range(1, int(np.int64(blocks))):
            layers.append(block(self.inplanes, planes))
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.bn1(self.conv1(F.pad(x, (3,) * 4) if self.stem == "imagenet" else x))
        x = self.relu(self.maxpool(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


def popping(layers):
    return [layers.pop(0) for _ in range(4)]


RIGHT_NETS = {
    "the shared one": models.ResNet,
    "as taught": net(),
    "functional": FunctionalNet,
    "torchvision": Torchvision,
    "numpy": net(take=lambda layers: [int(n) for n in np.array(layers)]),
    "einsum": net(pooling=nn.Identity(), flat=lambda x: x.flatten(2).mean(-1)),
    "a copy that is emptied": net(take=lambda layers: popping(layers[:])),
}
MADE = "Every block is made by the argument `block`"
POOL = "The table says 3×3 max-pooling with stride 2 and padding 1"
READS = "that is what the linear layer reads"
FIRST = "Stage 1 has stride 1"
WRONG_NETS = {
    "linear layer fixed at 512 × 4": (net(fc=lambda b: 512 * 4), READS),
    "linear layer fixed at 512": (net(fc=lambda b: 512), READS),
    "linear layer for the two known blocks": (net(fc=lambda b: 2048 if b is Bottleneck else 512), READS),
    "AvgPool2d(2)": (net(pooling=nn.AvgPool2d(2)), "The last pooling is a 2×2 average pooling"),
    "AvgPool2d(7)": (net(pooling=nn.AvgPool2d(7)), "pooling with windows of a fixed size"),
    "no pooling": (net(pooling=nn.Identity()), "There is no pooling"),
    "max instead of mean": (net(pooling=nn.AdaptiveMaxPool2d(1)), "takes the largest number of each channel"),
    "squeeze": (net(flat=lambda x: x.squeeze()), "squeeze() drops every dimension"),
    "flatten()": (net(flat=lambda x: x.flatten()), "flatten() without the 1"),
    "configuration ignored": (net(fixed="layers"), "`layers` says"),
    "layers emptied": (net(take=popping), "pop(), reverse(), +="),
    "layers in another order": (net(take=lambda layers: layers[::-1]), "in another order than `layers` says"),
    "layers[0] for all": (net(take=lambda layers: layers[:1] * 4), "`layers` says"),
    "one block too few": (net(take=lambda layers: [max(1, n - 1) for n in layers]), "`layers` says"),
    "widths in another order": (net(widths=(512, 256, 128, 64)), "first 64 channels, then 128, 256, 512"),
    "widths not doubled": (net(widths=(64, 64, 128, 256)), "The stages have 64, 128, 256, 512 channels"),
    "always basic blocks": (net(stages=lambda b, *a: models.make_stage(BasicBlock, *a)), MADE),
    "expansion forgotten": (net(stages=stage(then=lambda c, b: c)), "the blocks after the first read what a block of it gives"),
    "one block repeated": (net(stages=repeated), "one block stands at several places"),
    "stride of every block": (net(stages=stage(strides="all")), "every block has the stride"),
    "a kernel given twice": (net(stem={"kernel_size": 3, "padding": 1}), "nn.Conv2d is called with other arguments than it has"),
    "3×3 in both stems": (net(front=lambda s: [nn.Conv2d(s[0].in_channels, 64, 3, s[0].stride, 1, bias=False), *s[1:]]),
                          "a 7×7 convolution with stride 2"),
    "no padding in the stem": (net(stem={"padding": 0}), "with stride 2 and padding 3"),
    "stem with a bias": (net(stem={"bias": True}), "Set bias=False"),
    "stem without stride": (net(stem={"stride": 1}), "expected 7×7 convolution 3 → 64, stride 2"),
    "no max-pooling": (net(pool=False), f"The max-pooling of the stem is missing. {POOL}"),
    "no padding in the max-pooling": (net(maximum=nn.MaxPool2d(3, 2)), "with stride 2 and no padding"),
    "2×2 max-pooling": (net(maximum=nn.MaxPool2d(2)), "In the stem stands a 2×2 max-pooling"),
    "average pooling": (net(maximum=nn.AvgPool2d(3, 2, 1)), "In the stem stands a 3×3 average pooling"),
    "no ReLU after the stem": (net(after=2), "The ReLU of the stem is missing"),
    "ReLU before BN": (net(front=lambda s: [s[0], s[2], s[1], *s[3:]]), "the ReLU stands before the BN"),
    "max-pooling before BN": (net(front=lambda s: [s[0], *s[3:], *s[1:3]]), "the max-pooling stands before the BN"),
    "no BN after the stem": (net(front=lambda s: [s[0], *s[2:]]), "there is no BatchNorm2d(64)"),
    "stride 2 in stage 1": (net(strides=(2, 2, 2, 2)), "the max-pooling has halved the image before"),
    "no stride in stage 3": (net(strides=(1, 2, 1, 2)), "Stage 3 starts with a block of stride 2"),
    "no stride in stage 1, not in the last": (net(strides=(1, 2, 2, 1)), "Stage 4 starts with a block of stride 2"),
    "classes fixed": (net(fixed="classes"), "The second number is that of the classes"),
    "channels fixed": (net(channels=False), "expected input"),
    "stem fixed": (net(fixed="stem"), 'stem="cifar": a 3×3 one with stride 1'),
    "max-pooling in the CIFAR stem": (net(cifar_pool=True), "Here no pooling follows the stem"),
    "softmax": (net(end=lambda x: x.softmax(1)), "A softmax follows"),
    "log-softmax": (net(end=lambda x: x.log_softmax(1)), "A log-softmax follows"),
    "ReLU at the end": (net(end=F.relu), "A ReLU follows the linear layer"),
    "dropout": (net(flat=lambda x: F.dropout(x.flatten(1), 0.5)), "dropout still drops"),
    "no return": (net(end=lambda x: None), "Its last line needs `return`"),
    "argmax": (net(end=lambda x: x.argmax(1)), "without argmax"),
    "detached": (net(flat=lambda x: x.flatten(1).detach()), "to the linear layer is cut off"),
    "no stem argument": (lambda block, layers, in_channels=3, num_classes=1000: net()(block, layers, in_channels, num_classes),
                         "the same names, order and defaults"),
    "classes and channels swapped": (lambda block, layers, num_classes=1000, in_channels=3, stem="imagenet":
                                     net()(block, layers, in_channels, num_classes, stem), "expected"),
    "10 classes by default": (lambda block, layers, in_channels=3, num_classes=10, stem="imagenet":
                              net()(block, layers, in_channels, num_classes, stem), "1000"),
    "cifar by default": (lambda block, layers, in_channels=3, num_classes=1000, stem="cifar":
                         net()(block, layers, in_channels, num_classes, stem), 'stem="imagenet": a 7×7 convolution with stride 2'),
    "an instance": (net()(BasicBlock, [1, 1, 1, 1]), "Hand over the class itself"),
}  # fmt: skip

EXERCISES = {
    checks.bottleneck: (RIGHT_BOTTLENECK, WRONG_BOTTLENECK),
    checks.make_stage: (RIGHT_STAGES, WRONG_STAGES),
    checks.resnet: (RIGHT_NETS, WRONG_NETS),
}
