"""The finished networks that later notebooks build on; each is built by hand in its own notebook first."""

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


class ResidualBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with F = conv 3×3, BN, ReLU, conv 3×3, BN; notebook 02. He et al. 2015, sections 3.2 and 3.3.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.
    shortcut: the paper's options. "A" pads with channels of zeros where the shape changes, "B" projects there by a 1×1 convolution,
    "C" projects everywhere. Where nothing is to be done, the shortcut is the identity.
    norm_shortcut: put a BN behind the projection, as the original code and torchvision do.
    """

    def __init__(self, in_channels, out_channels, stride=1, shortcut="B", norm_shortcut=False):
        super().__init__()
        if shortcut not in ("A", "B", "C"):
            raise ValueError(f'shortcut must be "A", "B" or "C", got {shortcut!r}')
        if shortcut == "A" and out_channels < in_channels:
            raise ValueError(f"shortcut A adds channels of zeros: it cannot go from {in_channels} to {out_channels} channels")
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        if shortcut == "C" or (shortcut == "B" and changes):
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            if norm_shortcut:
                self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(out_channels))
        else:
            self.shortcut = ZeroPadding(out_channels - in_channels, stride) if changes else nn.Identity()

    def forward(self, x):
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x))  # the ReLU comes after the addition: the residual itself may be negative


class ZeroPadding(nn.Module):
    """Shortcut A: every stride-th pixel, and `extra` channels of zeros behind the others. No parameters."""

    def __init__(self, extra, stride):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class StagedResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling and a linear layer, for images of any size; notebook 03.

    (N, in_channels, H, W) -> logits (N, num_classes).
    stages: (channels, blocks, stride of the first block) of each. stem: "imagenet" is a 7×7 convolution with stride 2, "cifar" a 3×3
    convolution with stride 1.
    """

    def __init__(self, stages, num_classes=1000, in_channels=3, stem="imagenet", norm_shortcut=False):
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f'stem must be "imagenet" or "cifar", got {stem!r}')
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        channels = stages[0][0]
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        layers = []
        for width, blocks, stride in stages:
            layers.append(make_layer(channels, width, blocks, stride, norm_shortcut))
            channels = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layers(x)
        return self.fc(x.mean((2, 3)))  # the mean over all positions, however many there are


def make_layer(in_channels, out_channels, blocks, stride, norm_shortcut=False):
    """One stage: `blocks` residual blocks, of which the first changes the shape."""
    first = ResidualBlock(in_channels, out_channels, stride, norm_shortcut=norm_shortcut)
    rest = [ResidualBlock(out_channels, out_channels) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet25(num_classes=10, in_channels=3, stem="imagenet", norm_shortcut=False):
    """24 blocks in three stages of 6, 6 and 12; 4,024,490 parameters (4,024,874 with norm_shortcut); notebook 03."""
    return StagedResNet([(32, 6, 1), (64, 6, 2), (128, 12, 2)], num_classes, in_channels, stem, norm_shortcut)
