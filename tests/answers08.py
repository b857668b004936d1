"""Right and wrong answers to the exercises of notebook 08."""

import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models


def inception(
    *, order=(0, 1, 2, 3), pool=lambda: nn.MaxPool2d(3, 1, 1), bias=False, norm=True, dim=1, last=True, swap=False, reduce=True, pad=True
):
    """A class for the Inception block, with places for mistakes."""

    def unit(i, o, k, relu=True):
        layers = [nn.Conv2d(i, o, k, padding=k // 2 if pad else 0, bias=bias)]
        return nn.Sequential(*layers, *[nn.BatchNorm2d(o)] * norm, *[nn.ReLU()] * relu)

    class Block(nn.Module):
        def __init__(self, i, one, three, five, pooled):
            super().__init__()
            if not reduce:
                three, five = (i, three[1]), (i, five[1])
            paths = [
                [unit(i, one, 1, last)],
                [unit(i, three[0], 1), unit(three[0], three[1], 3, last)],
                [unit(i, five[0], 1), unit(five[0], five[1], 5, last)],
                [unit(i, pooled, 1, last), pool()] if swap else [pool(), unit(i, pooled, 1, last)],
            ]
            self.paths = nn.ModuleList(nn.Sequential(*paths[number]) for number in order)

        def forward(self, x):
            return torch.cat([path(x) for path in self.paths], dim)

    return Block


class FunctionalInception(nn.Module):
    """A right block without nn.Sequential."""

    def __init__(self, cin, a, b, c, d):
        super().__init__()
        sizes = {"a": (cin, a, 1), "b": (cin, b[0], 1), "bb": (b[0], b[1], 3), "c": (cin, c[0], 1), "cc": (c[0], c[1], 5), "d": (cin, d, 1)}
        self.convs = nn.ModuleDict({name: nn.Conv2d(i, o, k, padding="same", bias=False) for name, (i, o, k) in sizes.items()})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(o) for name, (_, o, _) in sizes.items()})

    def forward(self, x):
        def step(name, x):
            return F.relu(self.norms[name](self.convs[name](x)))

        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat((step("a", x), step("bb", step("b", x)), step("cc", step("c", x)), step("d", pooled)), dim=1)


def grouped(*, everywhere=False, ignored=False, join=lambda y, s: F.relu(y + s), bias=False, norm_side=True, at=1, side=True):
    """A class for the block of ResNeXt, with places for mistakes."""

    class Block(nn.Module):
        def __init__(self, i, inside, o, groups, stride=1):
            super().__init__()
            widths, kernels = (i, inside, inside, o), (1, 3, 1)
            of = [groups if (n == 1 or everywhere) and not ignored else 1 for n in range(3)]
            self.convs = nn.ModuleList(
                nn.Conv2d(widths[n], widths[n + 1], k, stride if n == at else 1, k // 2, groups=of[n], bias=bias)
                for n, k in enumerate(kernels)
            )
            self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[1:])
            self.side = nn.Sequential()
            if side and (stride != 1 or i != o):
                self.side.append(nn.Conv2d(i, o, 1, stride, bias=False))
                if norm_side:
                    self.side.append(nn.BatchNorm2d(o))

        def forward(self, x):
            y = x
            for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
                y = norm(conv(y))
                y = F.relu(y) if number < 2 else y
            return join(y, self.side(x))

    return Block


class FromShared(models.Bottleneck):
    """A right block: the shared bottleneck, which knows groups by their width."""

    def __init__(self, in_channels, inside, out_channels, groups, stride=1):
        nn.Module.__init__(self)
        self.conv1, self.bn1 = nn.Conv2d(in_channels, inside, 1, bias=False), nn.BatchNorm2d(inside)
        self.conv2, self.bn2 = nn.Conv2d(inside, inside, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = nn.Conv2d(inside, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class SplitByHand(grouped()):
    """A right block: the groups computed one by one, with the weights of a grouped convolution that is called on the whole."""

    def forward(self, x):
        y = F.relu(self.norms[0](self.convs[0](x)), inplace=True)
        y = F.relu(self.norms[1](self.convs[1](y)))
        return (self.norms[2](self.convs[2](y)) + self.side(x)).clamp(min=0)


def zero(*names):
    @torch.no_grad()
    def function(block):
        for name in names:
            block.get_parameter(name).zero_()

    return function


def replace_forward(block):
    block.forward = lambda x: x


def replace_layer(block):
    block.conv2 = nn.Identity()
    zero("bn2.weight", "bn2.bias")(block)


@torch.no_grad()
def everything(block):
    for parameter in block.parameters():
        parameter.fill_(0)


def by_init(block):
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)


def by_data(block):
    block.bn2.weight.data *= 0
    block.bn2.bias.data *= 0


EXERCISES = {
    checks.inception_block: (
        {"the shared one": models.InceptionBlock, "as taught": inception(), "functional": FunctionalInception},
        {
            "paths in another order": (inception(order=(0, 2, 1, 3)), "joined in another order"),
            "average pooling": (inception(pool=lambda: nn.AvgPool2d(3, 1, 1)), "nn.MaxPool2d"),
            "no pooling": (inception(pool=nn.Identity), "does not pool"),
            "pooling last": (inception(swap=True), "in another order"),
            "bias": (inception(bias=True), "Set bias=False"),
            "no BN": (inception(norm=False), "Six convolutions, six BNs"),
            "no last ReLU": (inception(last=False), "The last ReLU of the paths is missing"),
            "no reduction": (inception(reduce=False), "reduce the channels"),
            "joined along the images": (inception(dim=0), "joined by torch.cat"),
            "no padding": (inception(pad=False), "keep height and width"),
            "pooling with stride": (inception(pool=lambda: nn.MaxPool2d(3, 2, 1)), "keep height and width"),
        },
    ),
    checks.resnext_block: (
        {"as taught": grouped(), "shared layers": FromShared, "functional": SplitByHand},
        {
            "groups ignored": (grouped(ignored=True), "Found groups [1, 1, 1]"),
            "groups everywhere": (grouped(everywhere=True), "groups for no other"),
            "ReLU before the addition": (grouped(join=lambda y, s: F.relu(y) + s), "Add first"),
            "no last ReLU": (grouped(join=lambda y, s: y + s), "The ReLU after the addition is missing"),
            "not added": (grouped(join=lambda y, s: F.relu(y)), "The shortcut is not added"),
            "bias": (grouped(bias=True), "Set bias=False"),
            "no BN behind the projection": (grouped(norm_side=False), "Put a BN behind the projection"),
            "stride on the first 1×1": (grouped(at=0), "Here, the 3×3 convolution has it"),
            "no projection": (grouped(side=False), "both paths must have the same shape"),
        },
    ),
    checks.make_identity: (
        {"in place": zero("bn2.weight", "bn2.bias"), "all weights": everything, "nn.init": by_init, "through .data": by_data},
        {
            "only γ": (zero("bn2.weight"), "and then adds its bias"),
            "only β": (zero("bn2.bias"), "which two numbers"),
            "the first BN": (zero("bn1.weight", "bn1.bias"), "which two numbers"),
            "the convolutions": (zero("conv1.weight", "conv2.weight"), "which two numbers"),
            "the last convolution and β": (zero("conv2.weight", "bn2.bias"), "silence the last BN"),
            "forward replaced": (replace_forward, "replace no layer and no method"),
            "a layer replaced": (replace_layer, "replace no layer and no method"),
            "nothing": (lambda block: None, "which two numbers"),
        },
    ),
}
