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


class Extra(Block):
    """The right block, and `extra` done after the constructor."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.extra(in_channels, out_channels, stride)


def also(do, base=Block):
    """A block whose constructor does one thing more: do(self, in_channels, out_channels, stride)."""
    return type("Also", (Extra, base) if base is not Block else (Extra,), {"extra": do})


def forward(function):
    """The right layers with another forward: function(self, x)."""
    return type("Forward", (Block,), {"forward": function})


def layer(name, make):
    """The right block with another layer: make(in_channels, out_channels, stride)."""
    return also(lambda self, i, o, stride: setattr(self, name, make(i, o, stride)))


# ---- right, in an unusual way ---------------------------------------------------------------------------------------


class ExplicitPadding(Block):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.a.padding = self.b.padding = 0

    def residual(self, x):
        return self.n(self.b(nn.ZeroPad2d(1)(F.relu(self.m(self.a(F.pad(x, (1, 1, 1, 1))))))))


class Lazy(Block):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.a, self.m = nn.LazyConv2d(out_channels, 3, stride, 1, bias=False), nn.LazyBatchNorm2d()


class MyBatchNorm(nn.BatchNorm2d):
    pass


class Functional(nn.Module):
    """Bare parameters, and functions."""

    def __init__(self, i, o, stride=1):
        super().__init__()
        self.stride, self.changes = stride, stride != 1 or i != o
        self.weights = nn.ParameterList([torch.randn(o, i, 3, 3), torch.randn(o, o, 3, 3)])
        self.norms = nn.ModuleDict({"first": nn.BatchNorm2d(o), "second": nn.BatchNorm2d(o)})
        self.projection = nn.Parameter(torch.randn(o, i, 1, 1)) if self.changes else None

    def norm(self, name, x):
        bn = self.norms[name]
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, training=self.training)

    def forward(self, x):
        y = self.norm("first", F.conv2d(x, self.weights[0], stride=self.stride, padding=1)).clamp_min(0)
        y = self.norm("second", torch.conv2d(y, self.weights[1], padding=1))
        return torch.maximum(y + (F.conv2d(x, self.projection, stride=self.stride) if self.changes else x), y.new_zeros(()))


class NormByHand(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        mean, var = self.mean, self.var
        if self.training:
            mean, var, n = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False), x[:, 0].numel()
            with torch.no_grad():
                self.mean.lerp_(mean, 0.1)
                self.var.lerp_(var * n / (n - 1), 0.1)
        mean, var, gamma, beta = (t[:, None, None] for t in (mean, var, self.gamma, self.beta))
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


class LinearProjection(Block):
    """A 1×1 convolution is a linear layer at every pixel."""

    def make_shortcut(self, i, o, stride):
        self.stride = stride
        return nn.Identity() if (i, stride) == (o, 1) else nn.Linear(i, o, bias=False)

    def forward(self, x):
        if isinstance(self.s, nn.Identity):
            return super().forward(x)
        shortcut = self.s(x[:, :, :: self.stride, :: self.stride].movedim(1, 3)).movedim(3, 1)
        return F.relu(self.residual(x) + shortcut)


def talkative(self, x):
    print("input", x.shape)
    self.last = Block.forward(self, x)
    return self.last


# ---- wrong ----------------------------------------------------------------------------------------------------------


class PlainList(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.layers = [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.layers += [nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)]
        self.s = Block.make_shortcut(self, i, o, stride)

    def forward(self, x):
        y = x
        for step in self.layers:
            y = step(y)
        return F.relu(y + self.s(x))


class ModuleListCalled(PlainList):
    def __init__(self, i, o, stride=1):
        super().__init__(i, o, stride)
        self.layers = nn.ModuleList(self.layers)

    def forward(self, x):
        return F.relu(self.layers(x) + self.s(x))


class Misspelt(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.block = Block(i, o, stride)

    def foward(self, x):
        return self.block(x)


class NoSuper(nn.Module):
    def __init__(self, i, o, stride=1):
        self.a = nn.Conv2d(i, o, 3, stride, 1)


class NoReturn(Block):
    def forward(self, x):
        F.relu(self.residual(x) + self.s(x))


class HalfWritten(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.a = nn.Conv2d(i, o, 3, stride, 1, bias=False)

    def forward(self, x):
        raise NotImplementedError


class StillRaises(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.a = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        raise NotImplementedError

    def forward(self, x):
        return self.a(x)


class MadeInForward(Block):
    def make_shortcut(self, i, o, stride):
        self.arguments = i, o, stride

    def forward(self, x):
        if self.s is None:
            self.s = Block.make_shortcut(self, *self.arguments)
        return super().forward(x)


class MadeAnew(MadeInForward):
    def forward(self, x):
        return F.relu(self.residual(x) + Block.make_shortcut(self, *self.arguments)(x))


class AtClassLevel(Block):
    norms = {}

    def __init__(self, i, o, stride=1):
        super().__init__(i, o, stride)
        self.m = self.norms.setdefault(o, nn.BatchNorm2d(o))


class StrideIgnored(Block):
    def __init__(self, i, o, stride=1):
        super().__init__(i, o, 1)


class StrideAlways2(Block):
    def __init__(self, i, o, stride=1):
        super().__init__(i, o, min(stride, 2))


class Default2(Block):
    def __init__(self, i, o, stride=2):
        super().__init__(i, o, stride)


class ThreeConvolutions(Block):
    def __init__(self, i, o, stride=1):
        super().__init__(i, o, stride)
        self.c, self.o = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)

    def forward(self, x):
        return F.relu(self.o(self.c(F.relu(self.residual(x)))) + self.s(x))


class OverwritesX(Block):
    def forward(self, x):
        x = F.relu(self.m(self.a(x)))
        x = self.n(self.b(x))
        return F.relu(x + self.s(x))


class OnlyStride2(Block):
    def make_shortcut(self, i, o, stride):
        return nn.Conv2d(i, o, 1, stride, bias=False) if stride == 2 or i != o else nn.Identity()


def sometimes(self, x):
    keep = 0 if self.training and torch.rand(1) < 0.5 else 1
    return F.relu(keep * self.residual(x) + self.s(x))


def set_seed(self, i, o, stride):
    torch.manual_seed(0)
    nn.init.kaiming_normal_(self.a.weight)


def leave_gradients_off(self, x):
    out = Block.forward(self, x)
    torch.set_grad_enabled(False)
    return out


def without_gradient(self, x):
    with torch.no_grad():
        shortcut = self.s(x)
    return F.relu(self.residual(x) + shortcut)


def batch_statistics_never(self, x):
    y = F.batch_norm(self.a(x), self.m.running_mean, self.m.running_var, self.m.weight, self.m.bias)
    return F.relu(self.n(self.b(F.relu(y))) + self.s(x))


def in_evaluation_mode(self, x):
    self.eval()
    return Block.forward(self, x)


RIGHT_BLOCKS = {
    "the shared one": models.ResidualBlock,
    "as taught": Block,
    "None, BN on the projection, in place": NoneAsIdentity,
    "Sequential, γ = 0": AsSequential,
    "padding=same": layer("b", lambda i, o, stride: nn.Conv2d(o, o, 3, padding="same", bias=False)),
    "explicit padding": ExplicitPadding,
    "lazy layers": Lazy,
    "a subclass of BatchNorm2d": layer("m", lambda i, o, stride: MyBatchNorm(o)),
    "functions and bare parameters": Functional,
    "BN by hand": layer("n", lambda i, o, stride: NormByHand(o)),
    "projection by a linear layer": LinearProjection,
    "prints, and keeps its output": forward(talkative),
    "a function that makes it": lambda in_channels, out_channels, stride=1: Block(in_channels, out_channels, stride),
    "scripted": lambda i, o, stride=1: torch.jit.script(NoneAsIdentity(i, o, stride)),
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
    "stride not an argument": (lambda i, o: Block(i, o), "with the same names, order and defaults"),
    "projection only for stride 2": (OnlyStride2, PROJECT),
    "padding on the projection": (layer("s", lambda i, o, stride: nn.Conv2d(i, o, 1, stride, 1, bias=False)), "its padding is too large"),
    "random in training": (forward(sometimes), "Nothing in this network is random"),
    "inference mode": (forward(torch.inference_mode()(Block.forward)), "torch.inference_mode() in `forward`"),
    "half precision": (also(lambda self, i, o, stride: self.half()), "leave .double(), .half()"),
    "no return": (NoReturn, "Its last line needs `return`"),
    "no super().__init__()": (NoSuper, "`super().__init__()` must be the first line"),
    "forward still the stub": (StillRaises, "`raise NotImplementedError` is still there"),
    "misspelt forward": (Misspelt, "no method `forward`, but one called `foward`"),
    "layers in a list": (PlainList, "`self.layers` is a Python list"),
    "a ModuleList called": (ModuleListCalled, "an nn.ModuleList is called"),
    "a shortcut made at the first call": (MadeInForward, "does not exist before the first call"),
    "a shortcut made in every call": (MadeAnew, "makes a layer anew in every call"),
    "a BN at class level": (AtClassLevel, "share their parameters, `m."),
    "one BN for both": (also(lambda self, i, o, stride: setattr(self, "n", self.m)), "uses `m` 2 times"),
    "an unused layer": (layer("fc", lambda i, o, stride: nn.Linear(o, 10)), "`fc` is made by ResidualBlock(32, 32) and never used"),
    "frozen": (also(lambda self, i, o, stride: self.a.weight.requires_grad_(False)), "requires_grad=False"),
    "stride ignored": (StrideIgnored, "The stride isn't used"),
    "stride always 2": (StrideAlways2, "That is what stride 2 gives"),
    "stride 2 by default": (Default2, "Without that argument, `stride` is 1"),
    "no padding": (layer("b", lambda i, o, stride: nn.Conv2d(o, o, 3, bias=False)), "without padding=1 makes the image smaller"),
    "another kernel": (layer("a", lambda i, o, stride: nn.Conv2d(i, o, 5, stride, 2, bias=False)), "main path are 3×3"),
    "groups": (layer("b", lambda i, o, stride: nn.Conv2d(o, o, 3, 1, 1, groups=o, bias=False)), "`groups` cuts a convolution"),
    "three convolutions": (ThreeConvolutions, "too many: `c`, which reads relu("),
    "a misspelt layer": (forward(lambda self, x: self.n(self.c(x))), "`__init__` makes no `self.c`"),
    "x overwritten": (OverwritesX, "is x overwritten on the main path?"),
    "a tuple": (forward(lambda self, x: (Block.forward(self, x), x)), "returns a tuple of 2"),
    "squeeze": (forward(lambda self, x: Block.forward(self, x).squeeze()), "squeeze() drops every dimension of size 1"),
    "LeakyReLU": (forward(lambda self, x: F.leaky_relu(self.residual(x) + self.s(x))), "After the addition stands a LeakyReLU"),
    "subtracted": (forward(lambda self, x: F.relu(self.residual(x) - self.s(x))), "The shortcut is subtracted"),
    "multiplied": (forward(lambda self, x: F.relu(self.residual(x) * self.s(x))), "The shortcut is multiplied"),
    "scaled": (forward(lambda self, x: F.relu(0.1 * self.residual(x) + self.s(x))), "something that doesn't belong there: mul"),
    "dropout": (forward(lambda self, x: F.dropout(Block.forward(self, x), 0.1, self.training)), "there is a dropout with p=0.1"),
    "momentum": (layer("n", lambda i, o, stride: nn.BatchNorm2d(o, momentum=0.9)), "Is `momentum` (0.1) changed"),
    "no running statistics": (layer("n", lambda i, o, stride: nn.BatchNorm2d(o, track_running_stats=False)), "`n` uses the mean and"),
    "group norm": (layer("n", lambda i, o, stride: nn.GroupNorm(1, o)), "has a group norm layer"),
    "F.batch_norm without a mode": (forward(batch_statistics_never), "in training mode, `m` computes as in evaluation"),
    "eval() in forward": (forward(in_evaluation_mode), "`forward` must not call .train() or .eval()"),
    "shortcut without gradient": (forward(without_gradient), "The shortcut is cut off from the gradient"),
    "detached result": (forward(lambda self, x: Block.forward(self, x).detach()), ".detach() in `forward` cuts the way back"),
    "a seed set inside": (also(set_seed), "your code calls torch.manual_seed"),
    "gradients left off": (forward(leave_gradients_off), "leaves torch.set_grad_enabled(False) behind"),
    "an instance": (Block(8, 8), "Hand over the class itself"),
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


def by_strided_identity(x, out_channels, stride):
    """A 1×1 convolution whose weights are the identity, and zeros."""
    weight = torch.eye(out_channels, x.shape[1], dtype=x.dtype)[..., None, None]
    return F.conv2d(x, weight, stride=stride)


def by_index(x, out_channels, stride):
    rows, columns = (torch.arange(0, size, stride) for size in x.shape[2:])
    missing = torch.zeros(len(x), out_channels - x.shape[1], len(rows), len(columns), dtype=x.dtype)
    return torch.hstack([x.index_select(2, rows).index_select(3, columns), missing])


def in_place(x, out_channels, stride):
    x.clamp_(min=-100).mul_(0.5)
    return pad()(x, out_channels, stride)


RIGHT_PADDINGS = {"cat": by_cat, "module": by_module, "filling": by_filling, "conv": by_strided_identity, "index": by_index}
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

WRONG_PADDINGS |= {
    "no return": (lambda x, o, s: None, "Its last line needs `return`"),
    "stride always 2": (lambda x, o, s: pad()(x, o, 2), "The stride is always 2"),
    "maximum": (lambda x, o, s: F.pad(F.max_pool2d(x, s, ceil_mode=True), (0, 0, 0, 0, 0, o - x.shape[1])), "Found the largest"),
    "zeros on both sides": (lambda x, o, s: F.pad(x[..., ::s, ::s], (0, 0, 0, 0, 1, o - x.shape[1] - 1)), "on both sides"),
    "stride on the height alone": (lambda x, o, s: pad()(x[:, :, ::s], o, 1), "works on the height only"),
    "cut out": (lambda x, o, s: pad()(x[:, :, : -(-x.shape[2] // s), : -(-x.shape[3] // s)], o, 1), "upper left part"),
    "detached": (lambda x, o, s: pad()(x.detach(), o, s), "the output has no gradient"),
    "input changed": (in_place, "x itself has other numbers after the call"),
    "arguments swapped": (lambda x, s, o: pad()(x, o, s), "expected (2, 6, 4, 4)"),
    "two arguments": (lambda x, o: pad()(x, o, 2), "takes 2 positional arguments but 3 were given"),
}

EXERCISES = {
    checks.residual_block: (RIGHT_BLOCKS, WRONG_BLOCKS),
    checks.zero_padding: (RIGHT_PADDINGS, WRONG_PADDINGS),
}
