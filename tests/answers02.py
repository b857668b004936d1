"""Right and wrong answers to the exercises of notebook 02."""

import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, models


class Block(nn.Module):
    """The right block, with places for mistakes."""

    bias = False
    norm_shortcut = False

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.a = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=self.bias)
        self.b = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=self.bias)
        self.m, self.n = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)
        self.s = self.make_shortcut(in_channels, out_channels, stride)

    def make_shortcut(self, i, o, stride):
        return nn.Identity() if (i, stride) == (o, 1) else nn.Conv2d(i, o, 1, stride, bias=False)

    def residual(self, x):
        return self.n(self.b(F.relu(self.m(self.a(x)))))

    def forward(self, x):
        return F.relu(self.residual(x) + self.s(x))


class NoneAsIdentity(nn.Module):
    """None for the identity, a BN on the projection, in-place operations where they do no harm."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.down = None
        if stride > 1 or in_channels != out_channels:
            self.down = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, (1, 1), (stride, stride), bias=False), nn.BatchNorm2d(out_channels)
            )
        self.first = nn.Conv2d(in_channels, out_channels, (3, 3), (stride, stride), padding="same" if stride == 1 else 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm2(self.second(self.relu(self.norm1(self.first(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class AsSequential(nn.Module):
    """All in nn.Sequential, the shortcut computed first, γ of the last BN 0 at the start."""

    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.skip = nn.Sequential()
        if (cin, stride) != (cout, 1):
            self.skip.append(nn.Conv2d(cin, cout, 1, stride, bias=False))
        self.body = nn.Sequential(
            nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
            nn.Conv2d(cout, cout, 3, 1, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x):
        return (self.skip(x) + self.body(x)).clamp(min=0)


class Bias(Block):
    bias = True


class NoStrideOnShortcut(Block):
    def make_shortcut(self, i, o, stride):
        return super().make_shortcut(i, o, 1)


class AlwaysIdentity(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity()


class AlwaysProjection(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Conv2d(i, o, 1, stride, bias=False)


class OnlyStrideCounts(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity() if stride == 1 else nn.Conv2d(i, o, 1, stride, bias=False)


class OnlyChannelsCount(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity() if i == o else nn.Conv2d(i, o, 1, stride, bias=False)


class PoolingShortcut(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity() if (i, stride) == (o, 1) else nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(i, o, 1, bias=False))


class BiasOnProjection(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity() if (i, stride) == (o, 1) else nn.Conv2d(i, o, 1, stride)


class WideProjection(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Identity() if (i, stride) == (o, 1) else nn.Conv2d(i, o, 3, stride, 1, bias=False)


class EarlyReLU(Block):
    def forward(self, x):
        return F.relu(self.residual(x)) + self.s(x)


class TwoReLUs(Block):
    def forward(self, x):
        return F.relu(F.relu(self.residual(x)) + self.s(x))


class NoLastReLU(Block):
    def forward(self, x):
        return self.residual(x) + self.s(x)


class NoMiddleReLU(Block):
    def residual(self, x):
        return self.n(self.b(self.m(self.a(x))))


class ReLUBeforeNorm(Block):
    def residual(self, x):
        return self.n(self.b(self.m(F.relu(self.a(x)))))


class PreActivated(Block):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.m = nn.BatchNorm2d(in_channels)

    def residual(self, x):
        return self.b(F.relu(self.n(self.a(F.relu(self.m(x))))))


class AddedBeforeNorm(Block):
    def forward(self, x):
        return F.relu(self.n(self.b(F.relu(self.m(self.a(x)))) + self.s(x)))


class NotAdded(Block):
    def forward(self, x):
        return F.relu(self.residual(x))


class Concatenated(Block):
    def forward(self, x):
        return F.relu(torch.cat([self.residual(x), self.s(x)], 1))


class NoNorm(Block):
    def residual(self, x):
        return self.b(F.relu(self.a(x)))


class OneNorm(Block):
    def residual(self, x):
        return self.b(F.relu(self.m(self.a(x))))


class InPlace(Block):
    def residual(self, x):
        return self.n(self.b(F.relu(self.m(self.a(F.relu_(x))))))


class StrideTwice(Block):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.b.stride = (stride, stride)


class StrideSecond(Block):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.a.stride, self.b.stride = (1, 1), (stride, stride)


class Detached(Block):
    def forward(self, x):
        return super().forward(x.detach())


RIGHT_BLOCKS = {
    "the shared one": models.ResidualBlock,
    "as taught": Block,
    "None, BN on the projection, in place": NoneAsIdentity,
    "Sequential, γ = 0": AsSequential,
    "shortcut with BN": lambda *a, **k: models.ResidualBlock(*a, **k, norm_shortcut=True),
}
PROJECT = "it needs a projection, with the block's stride and output channels"
WRONG_BLOCKS = {
    "bias left on": (Bias, "Set bias=False"),
    "no stride on the shortcut": (NoStrideOnShortcut, "the block's stride is missing on this path"),
    "identity where a projection is due": (AlwaysIdentity, PROJECT),
    "identity where only the channels change": (OnlyStrideCounts, PROJECT),
    "identity where only the stride changes the shape": (OnlyChannelsCount, PROJECT),
    "projection where the identity would do": (AlwaysProjection, "add x itself"),
    "pooling before the projection": (PoolingShortcut, "pixels pooled are rounded down"),
    "bias on the projection": (BiasOnProjection, "Set bias=False"),
    "3×3 projection": (WideProjection, "that of the shortcut is 1×1"),
    "ReLU before the addition": (EarlyReLU, "before the addition"),
    "ReLU before and after the addition": (TwoReLUs, "before the addition"),
    "no ReLU after the addition": (NoLastReLU, "after the addition is missing"),
    "no ReLU in the middle": (NoMiddleReLU, "between the convolutions is missing"),
    "ReLU before BN": (ReLUBeforeNorm, "The ReLU stands before the first BN"),
    "pre-activation": (PreActivated, "that is pre-activation"),
    "added before BN": (AddedBeforeNorm, "The shortcut is added before the last BN"),
    "not added": (NotAdded, "The shortcut is not added"),
    "concatenated": (Concatenated, "torch.cat puts the paths side by side: here they are added"),
    "no batch norm": (NoNorm, "`m` is made by ResidualBlock(32, 32) and never used"),
    "one batch norm": (OneNorm, "`n` is made by ResidualBlock(32, 32) and never used"),
    "input changed in place": (InPlace, "Something works in place on x"),
    "stride on both convolutions": (StrideTwice, "the stride is there twice"),
    "stride on the second convolution": (StrideSecond, "second convolution has stride 1"),
    "detached": (Detached, "no gradient reaches the input"),
    "stride not an argument": (lambda i, o: Block(i, o), "TypeError"),
}


def by_cat(x, out_channels, stride):
    x = x[..., ::stride, ::stride]
    return torch.cat([x, x.new_zeros(len(x), out_channels - x.shape[1], *x.shape[2:])], 1)


def by_module(x, out_channels, stride):
    return models.ZeroPadding(out_channels - x.shape[1], stride)(x)


def by_filling(x, out_channels, stride):
    n, c, h, w = x.shape
    out = torch.zeros(n, out_channels, -(-h // stride), -(-w // stride))
    out[:, :c] = F.max_pool2d(x, 1, stride)
    return out


def pad(before=0, extra=0, offset=0, value=0.0, pool=False):
    def answer(x, out_channels, stride):
        x = F.avg_pool2d(x, stride, ceil_mode=True) if pool else x[:, :, offset::stride, offset::stride]
        missing = out_channels - x.shape[1] + extra
        return F.pad(x, (0, 0, 0, 0, missing if before else 0, 0 if before else missing), value=value)

    return answer


RIGHT_PADDINGS = {"cat": by_cat, "module": by_module, "filling": by_filling}
WRONG_PADDINGS = {
    "zeros first": (pad(before=1), "put them after"),
    "averaged": (pad(pool=True), "Found the mean of stride × stride pixels"),
    "ones": (pad(value=1.0), "they are zeros"),
    "one channel too many": (pad(extra=1), "no more and no less"),
    "second pixel first": (pad(offset=1), "begin with the first one"),
    "no stride": (lambda x, o, s: pad()(x, o, 1), "The stride isn't used"),
    "channels repeated": (lambda x, o, s: torch.cat([x, x], 1)[:, :o, ::s, ::s], "The channels of x are repeated"),
    "no channels": (lambda x, o, s: x[:, :, ::s, ::s], "`out_channels` isn't used"),
    "padded pixels": (lambda x, o, s: F.pad(x, (0, o - x.shape[1])), "channels come third"),
}

EXERCISES = {
    checks.residual_block: (RIGHT_BLOCKS, WRONG_BLOCKS),
    checks.zero_padding: (RIGHT_PADDINGS, WRONG_PADDINGS),
}
