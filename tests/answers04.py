"""Right and wrong answers to the exercises of notebook 04."""

import functools

import torch.nn.functional as F
from torch import nn

from utils import checks, models
from utils.models import BasicBlock, Bottleneck


def project(i, o, stride):
    return nn.Sequential() if (i, stride) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))


def block(kernels, *, residual=None, join=None, shortcut=project, at=None, bias=False, expansion=None, last_bn=True, **_):
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
            self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[1 : len(widths) - (not last_bn)])
            self.side = shortcut(in_channels, out, stride)

        def forward(self, x):
            y = residual(self, x) if residual else self.residual(x)
            return join(y, self.side(x)) if join else F.relu(y + self.side(x))

        def residual(self, x):
            for conv, norm in zip(self.convs[:-1], self.norms, strict=False):
                x = F.relu(norm(conv(x)))
            x = self.convs[-1](x)
            return self.norms[-1](x) if last_bn else x

    Block.expansion = expansion or widen
    return Block


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


SAME_SHAPE = "both paths must have the same shape"
WRONG = {
    "bias left on": ({"bias": True}, "Set bias=False"),
    "no stride on the shortcut": ({"shortcut": lambda i, o, s: project(i, o, 1)}, SAME_SHAPE),
    "identity everywhere": ({"shortcut": lambda i, o, s: nn.Identity()}, SAME_SHAPE),
    "projection everywhere": (
        {"shortcut": lambda i, o, s: nn.Conv2d(i, o, 1, s, bias=False)},
        "add x itself",
    ),
    "no BN on the projection": ({"shortcut": lambda i, o, s: project(i, o, s)[:1]}, "Put a BN behind the projection"),
    "ReLU before the addition": ({"join": lambda y, s: F.relu(y) + s}, "before the addition"),
    "no ReLU after the addition": ({"join": lambda y, s: y + s}, "after the addition is missing"),
    "not added": ({"join": lambda y, s: F.relu(y)}, "The shortcut is not added"),
    "no ReLU between": ({"residual": no_relu_between}, "between the convolutions is missing"),
    "last BN left out": ({"last_bn": False}, "BatchNorm2d on the main path"),
    "wrong expansion": ({"expansion": 2}, "in the class, above __init__"),
    "input changed in place": ({"residual": in_place}, "works in place on x"),
}


def wrong(kernels):
    return {name: (block(kernels, **mistake), hint) for name, (mistake, hint) in WRONG.items()}


RIGHT_BASIC = {"the shared one": BasicBlock, "as taught": block((3, 3)), "Sequential, None, in place": BasicSequential}
WRONG_BASIC = wrong((3, 3)) | {
    "ReLU before BN": (block((3, 3), residual=relu_before_norm), "The ReLU stands before the first BN"),
    "a bottleneck": (Bottleneck, "expansion = 1"),
    "one 3×3 convolution": (block((3,)), "Found [(3, 64, 64, 1)]"),
}
RIGHT_BOTTLENECK = {"the shared one": Bottleneck, "as taught": block((1, 3, 1)), "Sequential, None, in place": BottleneckSequential}
WRONG_BOTTLENECK = wrong((1, 3, 1)) | {
    "stride on the first 1×1": (block((1, 3, 1), at=0), "Here, the 3×3 convolution has it"),
    "stride on the last 1×1": (block((1, 3, 1), at=2), "Found [(1, 256, 128, 1), (3, 128, 128, 1), (1, 128, 512, 2)]"),
    "a basic block": (BasicBlock, "expansion = 4"),
}


def stage(*, then=None, count=0, strides="first", shared=False, wrap=nn.Sequential):
    """A make_stage with one thing done differently."""

    def make_stage(block, in_channels, channels, blocks, stride):
        made, now = [], in_channels
        for i in range(blocks + count):
            s = stride if strides == "all" or i == (0 if strides == "first" else blocks - 1) else 1
            made.append(made[-1] if shared and i > 1 else block(now, channels, s))
            now = then(channels, block) if then else channels * block.expansion
        return wrap(*made)

    return make_stage


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        return functools.reduce(lambda x, block: block(x), self.blocks, x)


RIGHT_STAGES = {"the shared one": models.make_stage, "as taught": stage(), "a module of its own": stage(wrap=Stage)}
WRONG_STAGES = {
    "expansion forgotten": (stage(then=lambda channels, block: channels), "gives channels * block.expansion"),
    "expansion always 4": (stage(then=lambda channels, block: channels * 4), "gives channels * block.expansion"),
    "channels never updated": (
        lambda b, i, c, n, s: nn.Sequential(*[b(i, c, s if k == 0 else 1) for k in range(n)]),
        "gives channels * block.expansion",
    ),
    "stride on every block": (stage(strides="all"), "Found (2, 32, 2, 2)"),
    "stride on the last block": (stage(strides="last"), "one block projects"),
    "stride ignored": (lambda b, i, c, n, s: stage()(b, i, c, n, 1), "Found (2, 32, 16, 16)"),
    "one block too many": (stage(count=1), "Found 4"),
    "always basic blocks": (lambda b, i, c, n, s: stage()(BasicBlock, i, c, n, s), "made by `block`"),
    "one block repeated": (stage(shared=True), "Found 2"),
    "a list": (stage(wrap=lambda *blocks: list(blocks)), "nn.Sequential(*blocks)"),
}


def net(
    *, stem=None, pool=True, pooling=None, fc=None, strides=(1, 2, 2, 2), fixed=None, after=None, channels=True, cifar_pool=False, end=None
):
    """A ResNet class with one thing done differently."""

    class Net(nn.Module):
        def __init__(self, block, layers, in_channels=3, num_classes=1000, stem_name="imagenet", **names):
            super().__init__()
            cifar = names.get("stem", stem_name) == "cifar" and fixed != "stem"
            kernel, stride = (3, 1) if cifar else (7, 2)
            in_channels = in_channels if channels else 3
            options = {"stride": stride, "padding": kernel // 2, "bias": False} | (stem or {})
            start = [nn.Conv2d(in_channels, 64, kernel, **options), nn.BatchNorm2d(64), nn.ReLU(inplace=True)][: after or 3]
            if pool and (not cifar or cifar_pool):
                start.append(nn.MaxPool2d(3, 2, 1))
            self.start, self.middle, now = nn.Sequential(*start), nn.Sequential(), 64
            for width, blocks, s in zip((64, 128, 256, 512), [2, 2, 2, 2] if fixed == "layers" else layers, strides, strict=True):
                self.middle.append(models.make_stage(block, now, width, blocks, s))
                now = width * block.expansion
            self.pooling = pooling or nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(fc or now, 10 if fixed == "classes" else num_classes)

        def forward(self, x):
            x = self.fc(self.pooling(self.middle(self.start(x))).flatten(1))
            return end(x) if end else x

    return Net


class Functional(nn.Module):
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


RIGHT_NETS = {"the shared one": models.ResNet, "as taught": net(), "functional": Functional}
WRONG_NETS = {
    "linear layer fixed at 512 × 4": (net(fc=512 * 4), "The linear layer reads 512 * block.expansion"),
    "linear layer fixed at 512": (net(fc=512), "The linear layer reads 512 * block.expansion"),
    "AvgPool2d(2)": (net(pooling=nn.AvgPool2d(2)), "nn.AdaptiveAvgPool2d(1) pools whatever size"),
    "configuration ignored": (net(fixed="layers"), "Take the numbers of blocks from `layers`"),
    "kernel of 3 in the stem": (net(stem={"stride": 2, "padding": 1}), "padding 1"),
    "stem with a bias": (net(stem={"bias": True}), "bias True"),
    "stem without stride": (net(stem={"stride": 1}), "stride 1"),
    "no max-pooling": (net(pool=False), "A 3×3 max-pooling with stride 2 follows"),
    "no ReLU behind the stem": (net(after=2, pool=False), "with negative numbers"),
    "stride 2 in stage 1": (net(strides=(2, 2, 2, 2)), "The max-pooling has halved the image before stage 1"),
    "no stride in stage 3": (net(strides=(1, 2, 1, 2)), "stages 2, 3 and 4 start with stride 2"),
    "classes fixed": (net(fixed="classes"), "Found (2, 10)"),
    "channels fixed": (net(channels=False), "in_channels=1"),
    "stem fixed": (net(fixed="stem"), "stem='cifar'): 11,220,132"),
    "max-pooling in the CIFAR stem": (net(cifar_pool=True), "there is no max-pooling"),
    "softmax": (net(end=lambda x: x.softmax(1)), "Leave the softmax off"),
}

EXERCISES = {
    checks.basic_block: (RIGHT_BASIC, WRONG_BASIC),
    checks.bottleneck: (RIGHT_BOTTLENECK, WRONG_BOTTLENECK),
    checks.make_stage: (RIGHT_STAGES, WRONG_STAGES),
    checks.resnet: (RIGHT_NETS, WRONG_NETS),
}
