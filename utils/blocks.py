"""The blocks of which the networks in models.py are built; each is written by hand in its own notebook first.

All but InceptionBlock are called as Block(in_channels, channels, stride=1, ...) and give channels · Block.expansion channels.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import relu


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
    """Shortcut A: every stride-th pixel, and `extra` channels of zeros after the others. No parameters."""

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
    norm_shortcut: put a BN after the projection, as the original code and torchvision do.
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
        residual = relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return relu(residual + self.shortcut(x))  # the ReLU comes after the addition: the residual itself may be negative


class BasicBlock(ResidualBlock):
    """The residual block of ResNet-18 and 34, with a BN after the projection; notebook 04. He et al. 2015, Table 1."""

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__(in_channels, channels, stride, shortcut, norm_shortcut=True)


class PlainBlock(nn.Module):
    """The residual block without its shortcut: conv 3×3, BN, ReLU, conv 3×3, BN, ReLU; notebook 06. He et al. 2015, section 3.3.

    Shapes and parameters as ResidualBlock with shortcut A.
    """

    expansion = 1
    preactivated = False

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class Bottleneck(nn.Module):
    """1×1 down to `channels`, 3×3, 1×1 up to 4 · channels, each with BN; notebook 04. He et al. 2015, section 4.1.

    (N, in_channels, H, W) -> (N, 4 · channels, H / stride, W / stride), rounded up. The 3×3 convolution has the stride ("v1.5",
    as in torchvision); in the paper, the first 1×1 has it.
    groups, group_width: more than one group makes it a block of ResNeXt (notebook 08; Xie et al. 2017, section 3.3): the 3×3
    convolution then works on that many groups, of group_width channels each in a stage of 64 channels and more in later ones.
    """

    expansion = 4
    preactivated = False

    def __init__(self, in_channels, channels, stride=1, shortcut="B", groups=1, group_width=64):
        super().__init__()
        out_channels = channels * self.expansion
        inside = channels * group_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(shortcut, in_channels, out_channels, stride, norm=True)

    def forward(self, x):
        residual = relu(self.bn1(self.conv1(x)))
        residual = relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return relu(residual + self.shortcut(x))


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
        active = relu(self.bn1(x))
        residual = self.conv1(active)
        residual = self.conv2(relu(self.bn2(residual)))
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
        active = relu(self.bn1(x))
        residual = self.conv1(active)
        residual = self.conv2(relu(self.bn2(residual)))
        residual = self.conv3(relu(self.bn3(residual)))
        return residual + self.shortcut(active if isinstance(self.shortcut, nn.Conv2d) else x)


class InceptionBlock(nn.Module):
    """Four paths side by side, whose outputs are joined along the channels; notebook 08. Szegedy et al. 2015, Figure 2(b).

    (N, in_channels, H, W) -> (N, one + three[1] + five[1] + pool, H, W): a 1×1 convolution; 1×1, then 3×3; 1×1, then 5×5; a 3×3
    max-pooling, then 1×1. three, five: channels after the first and the second convolution of the path. BN and ReLU follow each
    convolution, as in Ioffe and Szegedy 2015.
    """

    def __init__(self, in_channels, one, three, five, pool):
        super().__init__()
        self.one = _conv_bn_relu(in_channels, one, 1)
        self.three = nn.Sequential(_conv_bn_relu(in_channels, three[0], 1), _conv_bn_relu(three[0], three[1], 3))
        self.five = nn.Sequential(_conv_bn_relu(in_channels, five[0], 1), _conv_bn_relu(five[0], five[1], 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv_bn_relu(in_channels, pool, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


def _conv_bn_relu(in_channels, channels, kernel):
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
