"""Right and wrong answers to the exercises of notebook 03."""

import copy
import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models
from utils.models import ResidualBlock

make_stage = functools.partial(models.make_stage, ResidualBlock)


def layer(shared=False, strides="first", count=0, channels=True, wrap=nn.Sequential, block=ResidualBlock, extra=None):
    """A make_layer with one thing done differently."""

    def make_layer(in_channels, out_channels, blocks, stride):
        made, now = [], in_channels
        for i in range(blocks + count):
            s = stride if strides == "all" or i == (0 if strides == "first" else blocks - 1) else 1
            made.append(made[-1] if shared and i > 1 else block(now, out_channels, s))
            now = out_channels if channels else in_channels
        if extra:
            made.append(extra(out_channels))
        return wrap(*made)

    return make_layer


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def stage(function):
    """A stage with another forward: function(blocks, x)."""

    class Other(Stage):
        def forward(self, x):
            return function(self.blocks, x)

    return layer(wrap=Other)


class InAList(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = list(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def recursive(in_channels, out_channels, blocks, stride):
    first = models.ResidualBlock(in_channels, out_channels, stride, norm_shortcut=True)
    return first if blocks == 1 else nn.Sequential(first, recursive(out_channels, out_channels, blocks - 1, 1))


def by_copies(in_channels, out_channels, blocks, stride):
    rest = [ResidualBlock(out_channels, out_channels)]
    rest += [copy.deepcopy(rest[0]) for _ in range(blocks - 2)]
    return nn.Sequential(ResidualBlock(in_channels, out_channels, stride), *rest[: blocks - 1])


def with_names(in_channels, out_channels, blocks, stride):
    stage = nn.Sequential()
    for number, (wide, step) in enumerate(zip([in_channels] + [out_channels] * blocks, [stride] + [1] * blocks, strict=False)):
        if number < blocks:
            stage.add_module(f"block{number + 1}", ResidualBlock(in_channels=wide, channels=out_channels, stride=step))
    return stage


def with_numpy(in_channels, out_channels, blocks, stride):
    strides = np.where(np.arange(blocks) == 0, stride, 1)
    wide = np.full(blocks, out_channels)
    wide[0] = in_channels
    return nn.Sequential(*[ResidualBlock(int(i), out_channels, int(s)) for i, s in zip(wide, strides, strict=True)])


class OwnBlock(nn.Module):
    """The learner's block of notebook 02, with another name for everything."""

    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.n1, self.n2 = nn.BatchNorm2d(cout), nn.BatchNorm2d(cout)
        self.down = None if (cin, stride) == (cout, 1) else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        side = x if self.down is None else self.down(x)
        return F.relu(self.n2(self.c2(F.relu(self.n1(self.c1(x))))) + side)


class SubclassedSequential(nn.Sequential):
    def __init__(self, i, o, blocks, stride):
        super().__init__(ResidualBlock(i, o, stride))
        self.extend(ResidualBlock(o, o) for _ in range(blocks - 1))


RIGHT_LAYERS = {
    "the shared one": make_stage,
    "as taught": layer(),
    "a module of its own": layer(wrap=Stage),
    "recursive, BN on the projection": recursive,
    "copies of a block": by_copies,
    "names, keywords": with_names,
    "numpy": with_numpy,
    "another block class": layer(block=OwnBlock),
    "a class": SubclassedSequential,
    "nested": lambda i, o, n, s: nn.Sequential(ResidualBlock(i, o, s), nn.Sequential(*[ResidualBlock(o, o) for _ in range(n - 1)])),
    "insert": lambda i, o, n, s: nn.Sequential(*([ResidualBlock(o, o) for _ in range(n - 1)] + [ResidualBlock(i, o, s)])[::-1]),
    "an identity at the end": layer(extra=lambda o: nn.Identity()),
}


def no_return(in_channels, out_channels, blocks, stride):
    nn.Sequential(*[ResidualBlock(in_channels, out_channels, stride)])


def repeated(in_channels, out_channels, blocks, stride):
    return nn.Sequential(ResidualBlock(in_channels, out_channels, stride), *[ResidualBlock(out_channels, out_channels)] * (blocks - 1))


def after_the_first(in_channels, out_channels, blocks, stride):
    return nn.Sequential(
        ResidualBlock(in_channels, out_channels, stride), *[ResidualBlock(out_channels, out_channels) for _ in range(blocks)]
    )


def returned_in_the_loop(in_channels, out_channels, blocks, stride):
    layers = []
    for i in range(blocks):
        layers.append(ResidualBlock(in_channels if i == 0 else out_channels, out_channels, stride if i == 0 else 1))
        return nn.Sequential(*layers)


def summed(blocks, x):
    total = 0
    for block in blocks:
        x = block(x)
        total = total + x
    return total


def strided(stride):
    return lambda i, o, n, s: layer()(i, o, n, stride(s))


LOST = "Only the first block reads in_channels"
FIRST_ALONE = "The stride belongs to the first block alone"
WRONG_LAYERS = {
    "channels never updated": (layer(channels=False), LOST),
    "stride on every block": (layer(strides="all"), FIRST_ALONE),
    "stride on the last block": (layer(strides="last"), "here 2, and no other block"),
    "stride ignored": (strided(lambda s: 1), "The first block has the stride that is given, here 2"),
    "stride always 2": (strided(lambda s: 2), "The first block has the stride that is given, here 1"),
    "one block too many": (layer(count=1), "the number of blocks is the argument `blocks`, the first included"),
    "one block too many, after the first": (after_the_first, "the number of blocks is the argument `blocks`, the first included"),
    "one block too few": (layer(count=-1), "the number of blocks is the argument `blocks`, the first included"),
    "always three blocks": (lambda i, o, n, s: layer()(i, o, 3, s), "make_layer(8, 8, 2, 1) has the blocks 3 × ResidualBlock(8, 8)"),
    "one block alone": (lambda i, o, n, s: ResidualBlock(i, o, s), "the number of blocks is the argument `blocks`"),
    "one block repeated": (layer(shared=True), "make a new one each time"),
    "[block] * n": (repeated, "make a new one each time"),
    "a list": (layer(wrap=lambda *blocks: list(blocks)), "returns a list, which can't be called on images"),
    "a ModuleList": (layer(wrap=lambda *blocks: nn.ModuleList(blocks)), "returns an nn.ModuleList"),
    "a generator": (lambda i, o, n, s: (ResidualBlock(o, o) for _ in range(n)), "returns a generator"),
    "the list in Sequential": (layer(wrap=lambda *blocks: nn.Sequential(list(blocks))), "nn.Sequential takes modules, one by one"),
    "nothing returned": (no_return, "Its last line needs `return`"),
    "returned in the loop": (returned_in_the_loop, "has the blocks ResidualBlock(16, 32, stride=2)."),
    "projections everywhere": (layer(block=functools.partial(ResidualBlock, shortcut="C")), "all others have the identity"),
    "zeros instead of a projection": (layer(block=functools.partial(ResidualBlock, shortcut="A")), "shortcut A adds channels of zeros"),
    "plain blocks": (layer(block=models.PlainBlock), "1×1 convolution 16 → 32"),
    "pre-activated blocks": (layer(block=models.PreActBlock), "expected"),
    "out_channels ignored": (lambda i, o, n, s: layer()(i, 2 * i, n, s), "Every block is given `out_channels`, here 8"),
    "in and out swapped": (lambda i, o, n, s: layer()(o, i, n, s), "here they are swapped"),
    "blocks and stride swapped": (lambda i, o, n, s: layer()(i, o, s, n), "ResidualBlock(16, 32, stride=3)"),
    "the last block changes the shape": (
        lambda i, o, n, s: nn.Sequential(*[ResidualBlock(i, i) for _ in range(n - 1)], ResidualBlock(i, o, s)),
        "Every block is given `out_channels`, here 32, as second argument: the first, too",
    ),
    "a ReLU and a BN at the end": (layer(extra=nn.BatchNorm2d), "nothing else"),
    "dropout at the end": (layer(extra=lambda o: nn.Dropout(0.1)), "there is a dropout with p=0.1"),
    "max-pooling at the end": (layer(extra=lambda o: nn.MaxPool2d(2)), "expected (2, 32, 4, 3)"),
    "a convolution before the blocks": (
        lambda i, o, n, s: nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), *make_stage(o, o, n, 1)),
        "The first block itself reads `in_channels`, here 16, and has the stride, here 2",
    ),
    "layers in a list": (layer(wrap=InAList), "`self.blocks` is a Python list"),
    "blocks side by side": (
        stage(lambda blocks, x: sum(block(x) for block in blocks[:1]) + 0 * x.mean()),
        "makes 3 blocks, and 1 of them run",
    ),
    "every block reads x": (stage(lambda blocks, x: [block(x) for block in blocks][-1]), "Each must read what the block before it gives"),
    "outputs added up": (stage(summed), "The blocks' outputs are added up"),
    "a shortcut around the stage": (
        stage(lambda blocks, x: (y := nn.Sequential(*blocks)(x)) + (x if x.shape == y.shape else 0)),
        "there is none around a stage",
    ),
    "the last block left out": (
        stage(lambda blocks, x: nn.Sequential(*blocks[:-1], *([blocks[0]] * (len(blocks) == 1)))(x)),
        "makes 3 blocks, and 2 of them run",
    ),
    "from the last to the first": (lambda i, o, n, s: nn.Sequential(*list(layer()(i, o, n, s))[::-1]), "in another order"),
    "detached in between": (
        stage(lambda blocks, x: nn.Sequential(*blocks[1:])(blocks[0](x).detach())),
        "After the first block, the gradient is cut off",
    ),
    "no_grad": (stage(lambda blocks, x: torch.no_grad()(nn.Sequential(*blocks))(x)), "the output has no gradient"),
    "a method of torchvision": (lambda self, block, planes, blocks, stride=1: block(planes, blocks, stride), "is no function"),
    "three arguments": (lambda i, o, n: layer()(i, o, n, 2), "the same names, order and defaults"),
    "built once for all": (functools.lru_cache(layer()), "share their parameters"),
    "called already": (make_stage(4, 4, 1, 1), "Hand over the function itself"),
}


class Net(nn.Module):
    """The right network, with places for mistakes."""

    stem = dict(kernel_size=7, stride=2, padding=3, bias=False)
    blocks, strides, widths, classes, make = (6, 6, 12), (1, 2, 2), (32, 64, 128), None, staticmethod(make_stage)

    def __init__(self, num_classes=10):
        super().__init__()
        self.c, self.n = nn.Conv2d(3, 32, **self.stem), nn.BatchNorm2d(32)
        widths = (32, *self.widths)
        self.s = nn.ModuleList(self.make(i, o, n, s) for i, o, n, s in zip(widths, widths[1:], self.blocks, self.strides, strict=False))
        self.out = nn.Linear(widths[-1], self.classes or num_classes)

    def start(self, x):
        return F.relu(self.n(self.c(x)))

    def pool(self, x):
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def middle(self, x):
        for stage in self.s:
            x = stage(x)
        return x

    def forward(self, x):
        return self.out(self.pool(self.middle(self.start(x))))


class FlatLinear(Net):
    def __init__(self, num_classes=10):
        super().__init__()
        self.out = nn.Linear(2048, num_classes)

    def pool(self, x):
        return x.flatten(1)


class TwoLinears(Net):
    def __init__(self, num_classes=10):
        super().__init__()
        self.hidden = nn.Linear(128, 128)

    def forward(self, x):
        return self.out(F.relu(self.hidden(self.pool(self.middle(self.start(x))))))


class OneStage(Net):
    """The same stage run again instead of a new one."""

    def middle(self, x):
        for stage in (self.s[0], self.s[0], self.s[1], self.s[2]):
            x = stage(x)
        return x


class StagesInAList(Net):
    def __init__(self, num_classes=10):
        super().__init__()
        stages = list(self.s)
        del self.s
        self.all = stages

    def middle(self, x):
        for stage in self.all:
            x = stage(x)
        return x


class WithoutBN(Net):
    def __init__(self, num_classes=10):
        super().__init__()
        del self.n

    def start(self, x):
        return F.relu(self.c(x))


class Default100(Net):
    def __init__(self, num_classes=100):
        super().__init__(num_classes)


class PositionalOnly(Net):
    def __init__(self, classes=10):
        super().__init__(classes)


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


class Lazy(nn.Module):
    """Lazy layers, explicit padding, one row of blocks."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.LazyConv2d(32, 7, stride=2, bias=False), nn.LazyBatchNorm2d()
        widths = [32] * 7 + [64] * 6 + [128] * 12
        self.blocks = nn.ModuleList(ResidualBlock(i, o, 1 + (i != o), norm_shortcut=True) for i, o in itertools.pairwise(widths))
        self.fc = nn.LazyLinear(num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(F.pad(x, (3, 3, 3, 3)))).relu_()
        x = functools.reduce(lambda x, block: block(x), self.blocks, x)
        return self.fc(torch.flatten(F.avg_pool2d(x, x.shape[2:]), 1))


class ByHand(Net):
    """No linear layer's call, the mean by hand."""

    def pool(self, x):
        return x.sum(dim=[2, 3]) / (x.size(2) * x.size(3))

    def forward(self, x):
        return self.pool(self.middle(self.start(x))) @ self.out.weight.t() + self.out.bias


class ByConvolution(Net):
    """The linear layer as a 1×1 convolution before the mean."""

    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.out = nn.Conv2d(128, num_classes, 1)

    def forward(self, x):
        return self.out(self.middle(self.start(x)).mean((2, 3), keepdim=True)).flatten(1)


def variant(**changes):
    return type("Variant", (Net,), changes)


def forward(function):
    """The right layers with another end: function(self, features)."""
    return variant(forward=lambda self, x: function(self, self.middle(self.start(x))))


def logits(function):
    """The right network, and something after it."""
    return variant(forward=lambda self, x: function(Net.forward(self, x)))


RIGHT_NETS = {
    "the shared one": models.resnet25,
    "BN on the projections": functools.partial(models.resnet25, norm_shortcut=True),
    "ModuleList": Net,
    "Sequential": as_sequential,
    "lazy": Lazy,
    "by hand": ByHand,
    "ReLU once more where it changes nothing": variant(middle=lambda self, x: F.relu(Net.middle(self, x))),
    "view": variant(pool=lambda self, x: F.adaptive_avg_pool2d(x, (1, 1)).view(-1, 128)),
    "mean twice": variant(pool=lambda self, x: x.mean(-1).mean(-1)),
    "einsum": variant(pool=lambda self, x: torch.einsum("nchw->nc", x) / x[0, 0].numel()),
}
MEAN = "The linear layer reads the mean over all positions"
LOGITS = "nothing follows it, logits may be any numbers"
WRONG_NETS = {
    "3×3 stem": (variant(stem=dict(kernel_size=3, stride=2, padding=1, bias=False)), "The stem is a 7×7 convolution"),
    "no stride in the stem": (variant(stem=dict(kernel_size=7, padding=3, bias=False)), "The stem has stride 2"),
    "no padding in the stem": (variant(stem=dict(kernel_size=7, stride=2, bias=False)), "of the stem has padding 3"),
    "bias in the stem": (variant(stem=Net.stem | {"bias": True}), "Set bias=False"),
    "nothing after the stem": (variant(start=lambda self, x: self.c(x)), "`n` is made by ResNet25() and never used"),
    "no BN after the stem": (WithoutBN, "No BN reads what `c` gives"),
    "no ReLU after the stem": (variant(start=lambda self, x: self.n(self.c(x))), "The ReLU of the stem is missing"),
    "ReLU before BN": (variant(start=lambda self, x: self.n(F.relu(self.c(x)))), "In the stem, the ReLU stands before the BN"),
    "max-pooling after the stem": (variant(start=lambda self, x: F.max_pool2d(Net.start(self, x), 3, 2, 1)), "Here no pooling follows"),
    "8 blocks a stage": (variant(blocks=(8, 8, 8)), "The stages have 8, 8, 8 blocks; the table says 6, 6, 12"),
    "stages of 12, 6 and 6": (variant(blocks=(12, 6, 6)), "The stages have 12, 6, 6 blocks, in another order"),
    "no stride in the third stage": (variant(strides=(1, 2, 1)), "Stage 3 starts with a block of stride 2"),
    "stride in the first stage": (variant(strides=(2, 2, 2)), "Stage 1 has stride 1"),
    "stride of every block": (
        variant(make=staticmethod(lambda i, o, n, s: nn.Sequential(*[ResidualBlock(i if k == 0 else o, o, s) for k in range(n)]))),
        "In stage 2, every block has the stride",
    ),
    "other widths": (variant(widths=(32, 64, 256)), "The stages have 32, 64, 128 channels"),
    "one block repeated": (
        variant(make=staticmethod(lambda i, o, n, s: nn.Sequential(ResidualBlock(i, o, s), *[ResidualBlock(o, o)] * (n - 1)))),
        "one block stands at several places",
    ),
    "a stage used again": (OneStage, "one block stands at several places"),
    "a stage left out": (variant(middle=lambda self, x: self.s[2](self.s[1](x))), "makes 24 blocks, and 18 of them run"),
    "stages in a list": (StagesInAList, "`self.all` is a Python list"),
    "pooling of a fixed size": (variant(pool=lambda self, x: nn.AvgPool2d(4)(x).flatten(1)), "pooling with windows of a fixed size"),
    "pooling of 2×2": (variant(pool=lambda self, x: F.avg_pool2d(x, 2).flatten(1)), MEAN),
    "max instead of mean": (variant(pool=lambda self, x: x.amax((2, 3))), "takes the largest number of each channel"),
    "adaptive max-pooling": (variant(pool=lambda self, x: F.adaptive_max_pool2d(x, 1).flatten(1)), "takes the largest number"),
    "sum instead of mean": (variant(pool=lambda self, x: x.sum((2, 3))), "sums up all positions"),
    "one pixel": (variant(pool=lambda self, x: x[:, :, 0, 0]), "takes the first pixel alone"),
    "no pooling": (FlatLinear, MEAN),
    "not flattened": (variant(pool=lambda self, x: F.adaptive_avg_pool2d(x, 1)), "Flatten what the pooling gives"),
    "all images in one row": (variant(pool=lambda self, x: F.adaptive_avg_pool2d(x, 1).flatten()), "flatten() without the 1"),
    "squeeze": (variant(pool=lambda self, x: F.adaptive_avg_pool2d(x, 1).squeeze()), "squeeze() drops every dimension"),
    "a whole batch's mean": (variant(pool=lambda self, x: x.mean((0, 2, 3), keepdim=True).flatten(1)), "number of images"),
    "mean over the channels": (variant(pool=lambda self, x: x.mean(1).flatten(1)), "the linear layer gets a tensor"),
    "two linear layers": (TwoLinears, "The table has one linear layer"),
    "softmax": (logits(lambda x: x.softmax(1)), "A softmax follows"),
    "log-softmax": (logits(lambda x: F.log_softmax(x, 1)), "A log-softmax follows"),
    "sigmoid": (logits(torch.sigmoid), "A sigmoid follows"),
    "ReLU at the end": (logits(F.relu), f"A ReLU follows the linear layer: {LOGITS}"),
    "argmax": (logits(lambda x: x.argmax(1)), "without argmax"),
    "dropout": (logits(lambda x: F.dropout(x, 0.2)), "dropout still drops"),
    "dropout in training": (
        variant(pool=lambda self, x: F.dropout(Net.pool(self, x), 0.2, self.training)),
        "there is a dropout with p=0.2",
    ),
    "features, too": (variant(forward=lambda self, x: (Net.forward(self, x), x)), "returns a tuple of 2"),
    "num_classes ignored": (variant(classes=10), "nn.Linear(128, num_classes)"),
    "100 classes by default": (Default100, "Without an argument there are 10 classes"),
    "another name": (PositionalOnly, "the same names, order and defaults"),
    "no return": (variant(forward=lambda self, x: None), "Its last line needs `return`"),
    "detached": (variant(middle=lambda self, x: Net.middle(self, x.detach())), "The stem's output is cut off from the gradient"),
    "features detached": (
        variant(pool=lambda self, x: Net.pool(self, x).detach()),
        "What the last stage gives to the linear layer is cut off",
    ),
    "eval in forward": (variant(start=lambda self, x: Net.start(self.eval(), x)), "`forward` must not call .train() or .eval()"),
    "normalised images": (
        variant(start=lambda self, x: Net.start(self, (x - x.mean()) / x.std())),
        "There is something that doesn't belong there: sub, std, div",
    ),
    "an instance": (Net(), "Hand over the class itself"),
}

EXERCISES = {
    checks.make_layer: (RIGHT_LAYERS, WRONG_LAYERS),
    checks.resnet25: (RIGHT_NETS, WRONG_NETS),
}
