"""The finished networks that later notebooks build on; each is built by hand in its own notebook first."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


class CNN(nn.Sequential):
    """Three convolutions and two linear layers for 32×32 images; notebook 01.

    Input (N, in_channels, 32, 32), logits (N, num_classes). 599,684 parameters for 3 channels and 100 classes.
    batch_norm: None, "after" the ReLU (599,908 parameters) or "before" it; dropout: probability after the first linear layer.
    """

    def __init__(self, num_classes=100, in_channels=3, batch_norm=None, dropout=0.0):
        if batch_norm not in (None, "after", "before"):
            raise ValueError(f'batch_norm must be None, "after" or "before", got {batch_norm!r}')
        if num_classes < 1 or in_channels < 1:
            raise ValueError(f"needs at least 1 class and 1 channel, got num_classes={num_classes}, in_channels={in_channels}")
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


def _shortcut(option, in_channels, out_channels, stride, norm):
    """The shortcut of a block, by the options A, B and C of He et al. 2015, section 3.3."""
    changes = stride != 1 or in_channels != out_channels
    if option not in ("A", "B", "C"):
        raise ValueError(f'shortcut must be "A", "B" or "C", got {option!r}')
    if option == "A" and out_channels < in_channels:
        raise ValueError(f"shortcut A adds channels of zeros: it cannot go from {in_channels} to {out_channels} channels")
    if option == "C" or (option == "B" and changes):
        projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        return nn.Sequential(projection, nn.BatchNorm2d(out_channels)) if norm else projection
    return ZeroPadding(out_channels - in_channels, stride) if changes else nn.Identity()


class ZeroPadding(nn.Module):
    """Shortcut A: every stride-th pixel, and `extra` channels of zeros behind the others. No parameters."""

    def __init__(self, extra, stride):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class ResidualBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with F = conv 3×3, BN, ReLU, conv 3×3, BN; notebook 02. He et al. 2015, sections 3.2 and 3.3.

    (N, in_channels, H, W) -> (N, channels, H / stride, W / stride), rounded up.
    shortcut: the paper's options. "A" pads with channels of zeros where the shape changes, "B" projects there by a 1×1 convolution,
    "C" projects everywhere. Where nothing is to be done, the shortcut is the identity.
    norm_shortcut: put a BN behind the projection, as the original code and torchvision do.
    """

    expansion = 1  # channels of the output for one of the `channels`
    preactivated = False

    def __init__(self, in_channels, channels, stride=1, shortcut="B", norm_shortcut=False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(shortcut, in_channels, channels, stride, norm_shortcut)

    def forward(self, x):
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x))  # the ReLU comes after the addition: the residual itself may be negative


class BasicBlock(ResidualBlock):
    """The residual block of ResNet-18 and 34, with a BN behind the projection; notebook 04. He et al. 2015, Table 1."""

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__(in_channels, channels, stride, shortcut, norm_shortcut=True)


class Bottleneck(nn.Module):
    """1×1 down to `channels`, 3×3, 1×1 up to 4 · channels, each with BN; notebook 04. He et al. 2015, section 4.1.

    (N, in_channels, H, W) -> (N, 4 · channels, H / stride, W / stride), rounded up. The 3×3 convolution has the stride ("v1.5",
    as in torchvision); in the paper, the first 1×1 has it.
    """

    expansion = 4
    preactivated = False

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(shortcut, in_channels, out_channels, stride, norm=True)

    def forward(self, x):
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.shortcut(x))


class PreActBlock(nn.Module):
    """F(x) + shortcut(x) with F = BN, ReLU, conv 3×3, BN, ReLU, conv 3×3; notebook 05. He et al. 2016, Figure 4(e).

    Shapes as ResidualBlock. Nothing follows the addition. A projection reads what the first BN and ReLU give; the identity and
    zero padding (option A) read x itself.
    """

    expansion = 1
    preactivated = True

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = _shortcut(shortcut, in_channels, channels, stride, norm=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        residual = self.conv1(active)
        residual = self.conv2(F.relu(self.bn2(residual)))
        return residual + self.shortcut(active if isinstance(self.shortcut, nn.Conv2d) else x)


class PreActBottleneck(nn.Module):
    """F(x) + shortcut(x) with F = three times BN, ReLU, convolution (1×1, 3×3, 1×1); notebook 05. He et al. 2016, section 4.1.

    Shapes and place of the stride as Bottleneck, shortcut as PreActBlock.
    """

    expansion = 4
    preactivated = True

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__()
        out_channels = channels * self.expansion
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.shortcut = _shortcut(shortcut, in_channels, out_channels, stride, norm=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        residual = self.conv1(active)
        residual = self.conv2(F.relu(self.bn2(residual)))
        residual = self.conv3(F.relu(self.bn3(residual)))
        return residual + self.shortcut(active if isinstance(self.shortcut, nn.Conv2d) else x)


STEMS = {"imagenet": (7, 2, True), "7x7": (7, 2, False), "cifar": (3, 1, False)}  # kernel, stride, max-pooling behind it


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling and a linear layer; notebooks 03 to 05. He et al. 2015, Table 1.

    (N, in_channels, H, W) -> logits (N, num_classes), for any height and width.
    block: one of the classes above, called as block(in_channels, width, stride, **block_options).
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
        if num_classes < 1 or in_channels < 1:
            raise ValueError(f"needs at least 1 class and 1 channel, got num_classes={num_classes}, in_channels={in_channels}")
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


resnet18, resnet34, resnet50, resnet101, resnet152 = (partial(resnet, depth) for depth in TABLE_1)
preact_resnet18, preact_resnet34, preact_resnet50, preact_resnet101, preact_resnet152 = (
    partial(resnet, depth, preactivated=True) for depth in TABLE_1
)


def cifar_resnet(depth, kind="v1", num_classes=10, in_channels=3, bottleneck=False):
    """The narrow networks for 32×32 images, 16, 32 and 64 channels wide. He et al. 2015, section 4.2; He et al. 2016, section 4.

    depth: 6n + 2 with two convolutions in a block and option A (20, 32, 44, 56, 110), 9n + 2 with bottlenecks and option B (164).
    kind: "v1", or "v2" for pre-activation.
    """
    blocks, rest = divmod(depth - 2, 9 if bottleneck else 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth must be {'9n' if bottleneck else '6n'} + 2 layers, got {depth}")
    if kind not in ("v1", "v2"):
        raise ValueError(f'kind must be "v1" or "v2", got {kind!r}')
    block = {"v1": (BasicBlock, Bottleneck), "v2": (PreActBlock, PreActBottleneck)}[kind][bottleneck]
    widths, shortcut = (16, 32, 64), "B" if bottleneck else "A"
    return he_normal_(ResNet(block, [blocks] * 3, in_channels, num_classes, "cifar", widths, shortcut=shortcut))


def he_normal_(model):
    """Draw the weights of all convolutions anew: normal, variance 2 / (output channels · kernel area). He et al. 2015b, equation 14."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def macs(model, shape):
    """Multiply-accumulates of all convolutions and linear layers for one image of this shape (channels, height, width)."""
    counts = []

    def count(layer, inputs, output):
        counts.append(layer.weight.numel() * output[0, 0].numel())  # each weight is used once at each position of the output

    model = copy.deepcopy(model).to("meta").eval()  # a device that knows shapes and computes nothing
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    model(torch.zeros(1, *shape, device="meta"))
    return sum(counts)
