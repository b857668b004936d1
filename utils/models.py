"""The finished networks that later notebooks build on; each is built by hand in its own notebook first."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from . import weights
from .blocks import BasicBlock, Bottleneck, InceptionBlock, PlainBlock, PreActBlock, PreActBottleneck, ResidualBlock, ZeroPadding  # noqa: F401


class CNN(nn.Sequential):
    """Three convolutions and two linear layers for 32×32 images; notebook 01.

    Input (N, in_channels, 32, 32), logits (N, num_classes). 599,684 parameters for 3 channels and 100 classes.
    batch_norm: None, "after" the ReLU (599,908 parameters) or "before" it; dropout: probability after the first linear layer.
    """

    def __init__(self, num_classes=100, in_channels=3, batch_norm=None, dropout=0.0):
        if batch_norm not in (None, "after", "before"):
            raise ValueError(f'batch_norm must be None, "after" or "before", got {batch_norm!r}')
        _check(num_classes, in_channels)
        widths = [in_channels, 16, 32, 64]
        layers = []
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers.append(nn.Conv2d(width_in, width_out, 3, padding="same"))
            if batch_norm == "before":
                layers.append(nn.BatchNorm2d(width_out))
            layers.append(nn.ReLU())
            if batch_norm == "after":
                layers.append(nn.BatchNorm2d(width_out))
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(64 * 4 * 4, 512), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(512, num_classes))


def _check(num_classes, in_channels):
    if num_classes < 1 or in_channels < 1:
        raise ValueError(f"needs at least 1 class and 1 channel, got num_classes={num_classes}, in_channels={in_channels}")


STEMS = {"imagenet": (7, 2, True), "7x7": (7, 2, False), "cifar": (3, 1, False)}  # kernel, stride, max-pooling after it


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling and a linear layer; notebooks 03 to 05. He et al. 2015, Table 1.

    (N, in_channels, H, W) -> logits (N, num_classes), for any height and width.
    block: a class of blocks.py, or one like them, called as block(in_channels, width, stride, **block_options).
    layers: number of blocks in each stage. widths: their `channels`; from the second stage on, the first block has stride 2.
    stem: "imagenet" is a 7×7 convolution with stride 2 and a 3×3 max-pooling with stride 2, "7x7" is the same without the pooling,
    "cifar" a 3×3 convolution with stride 1.

    Pre-activated blocks begin with BN and ReLU: none then follows the stem, and one pair precedes the pooling.
    """

    def __init__(self, block, layers, in_channels=3, num_classes=1000, stem="imagenet", widths=(64, 128, 256, 512), **block_options):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
        if not 1 <= len(layers) <= len(widths) or min(layers) < 1:
            raise ValueError(f"layers must give at least 1 block for each of up to {len(widths)} stages, got {list(layers)}")
        _check(num_classes, in_channels)
        kernel, stride, pool = STEMS[stem]
        channels = widths[0]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False))
        if not block.preactivated:
            self.stem.extend([nn.BatchNorm2d(channels), nn.ReLU()])
        if pool:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.Sequential()
        for number, (width, blocks) in enumerate(zip(widths, layers, strict=False)):
            self.stages.append(make_stage(block, channels, width, blocks, 1 if number == 0 else 2, **block_options))
            channels = width * block.expansion
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
        if block.preactivated:
            self.head = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), *self.head)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def make_stage(block, in_channels, channels, blocks, stride, **block_options):
    """A row of `blocks` blocks, of which the first may change the shape; (N, in_channels, H, W) -> (N, channels · expansion, …)."""
    first = block(in_channels, channels, stride, **block_options)
    rest = [block(channels * block.expansion, channels, **block_options) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet25(num_classes=10, in_channels=3, stem="7x7", norm_shortcut=False):
    """24 blocks in three stages of 6, 6 and 12; 4,024,490 parameters (4,024,874 with norm_shortcut); notebook 03."""
    return ResNet(ResidualBlock, (6, 6, 12), in_channels, num_classes, stem, widths=(32, 64, 128), norm_shortcut=norm_shortcut)


TABLE_1 = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # blocks in each stage


def resnet(depth, num_classes=1000, in_channels=3, stem="imagenet", preactivated=False):
    """ResNet-18, 34, 50, 101 or 152 of He et al. 2015, Table 1; notebook 04. preactivated: version 2, notebook 05.

    11,689,512, 21,797,672, 25,557,032, 44,549,160 and 60,192,808 parameters with 1,000 classes, those of torchvision.
    """
    if depth not in TABLE_1:
        raise ValueError(f"no ResNet-{depth} in Table 1: use {', '.join(map(str, TABLE_1))}")
    basic, bottleneck = (PreActBlock, PreActBottleneck) if preactivated else (BasicBlock, Bottleneck)
    return he_normal_(ResNet(basic if depth < 50 else bottleneck, TABLE_1[depth], in_channels, num_classes, stem))


# As in torchvision, each depth has a function of its own.


def resnet18(num_classes=1000, **options):
    return resnet(18, num_classes, **options)


def resnet34(num_classes=1000, **options):
    return resnet(34, num_classes, **options)


def resnet50(num_classes=1000, **options):
    return resnet(50, num_classes, **options)


def resnet101(num_classes=1000, **options):
    return resnet(101, num_classes, **options)


def resnet152(num_classes=1000, **options):
    return resnet(152, num_classes, **options)


def preact_resnet18(num_classes=1000, **options):
    return resnet(18, num_classes, preactivated=True, **options)


def preact_resnet34(num_classes=1000, **options):
    return resnet(34, num_classes, preactivated=True, **options)


def preact_resnet50(num_classes=1000, **options):
    return resnet(50, num_classes, preactivated=True, **options)


def preact_resnet101(num_classes=1000, **options):
    return resnet(101, num_classes, preactivated=True, **options)


def preact_resnet152(num_classes=1000, **options):
    return resnet(152, num_classes, preactivated=True, **options)


def resnext50(num_classes=1000, in_channels=3, stem="imagenet"):
    """ResNeXt-50 (32×4d) of Xie et al. 2017, Table 1; 25,028,904 parameters with 1,000 classes, as torchvision's; notebook 08."""
    return he_normal_(ResNet(Bottleneck, TABLE_1[50], in_channels, num_classes, stem, groups=32, group_width=4))


def cifar_resnet(depth, kind="v1", num_classes=10, in_channels=3, bottleneck=False):
    """The narrow networks for 32×32 images, 16, 32 and 64 channels wide. He et al. 2015, section 4.2; He et al. 2016, section 4.

    depth: 6n + 2 with two convolutions in a block and option A (20, 32, 44, 56, 110), 9n + 2 with bottlenecks and option B (164).
    kind: "v1", "v2" for pre-activation, or "plain" for no shortcuts, with the same parameters as v1 (6n + 2 only).
    """
    blocks, rest = divmod(depth - 2, 9 if bottleneck else 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth must be {'9n' if bottleneck else '6n'} + 2 layers, got {depth}")
    if kind not in ("plain", "v1", "v2"):
        raise ValueError(f'kind must be "plain", "v1" or "v2", got {kind!r}')
    if kind == "plain" and bottleneck:
        raise ValueError("there are no plain networks of bottlenecks: use bottleneck=False")
    if kind == "plain":
        block, options = PlainBlock, {}
    elif bottleneck:
        block, options = Bottleneck if kind == "v1" else PreActBottleneck, {"shortcut": "B"}
    else:
        block, options = BasicBlock if kind == "v1" else PreActBlock, {"shortcut": "A"}
    return he_normal_(ResNet(block, [blocks] * 3, in_channels, num_classes, "cifar", widths=(16, 32, 64), **options))


TRAINED = {f"{family}{depth}-cifar10": (depth, kind) for family, kind in (("resnet", "v1"), ("plain", "plain")) for depth in (20, 56)}


def load(name, folder=weights.FOLDER):
    """A network that notebook 06 has trained on CIFAR-10, in evaluation mode: "resnet20-cifar10", "resnet56-cifar10", "plain20-cifar10"
    or "plain56-cifar10".

    weights.record(name) says how it was trained, and what it reaches. Raises FileNotFoundError or ValueError, in one line.
    """
    if name not in TRAINED:
        raise ValueError(f"no trained network {name!r}: there are {', '.join(TRAINED)}")
    depth, kind = TRAINED[name]
    with torch.random.fork_rng(devices=[]):  # the numbers drawn here are replaced at once, and must not shift those of a notebook
        return weights.load(cifar_resnet(depth, kind), name, folder)


def he_normal_(model):
    """Draw the weights of all convolutions anew: normal, variance 2 / (output channels · kernel area). He et al. 2015b, equation 14."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def macs(model, shape):
    """Multiply-accumulates of all convolutions and matrix products for one image of this shape (channels, height, width)."""
    model = copy.deepcopy(model).to("meta").eval()  # a device that knows shapes and computes nothing
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops() // 2  # PyTorch counts the multiplication and the addition
