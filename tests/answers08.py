"""Right and wrong answers to the exercises of notebook 08."""

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F
from answers02 import MyBatchNorm, NormByHand
from torch import nn

from utils import checks, models

# ---- Inception ------------------------------------------------------------------------------------------------------


class Inception(nn.Module):
    """The right block, with places for mistakes."""

    bias, dim, order = False, 1, (0, 1, 2, 3)

    def __init__(self, i, one, three, five, pooled):
        super().__init__()
        self.paths = nn.ModuleList(self.make_paths(i, one, three, five, pooled))
        self.also()

    def also(self):
        pass

    def make_paths(self, i, one, three, five, pooled):
        return [
            self.unit(i, one, 1, "1"),
            nn.Sequential(self.unit(i, three[0], 1, "2a"), self.unit(three[0], three[1], 3, "2b")),
            nn.Sequential(self.unit(i, five[0], 1, "3a"), self.unit(five[0], five[1], 5, "3b")),
            self.fourth(i, pooled),
        ]

    def fourth(self, i, pooled):
        return nn.Sequential(self.pool(), self.unit(i, pooled, 1, "4"))

    def pool(self):
        return nn.MaxPool2d(3, 1, 1)

    def unit(self, i, o, k, place):
        return nn.Sequential(self.conv(i, o, k), self.norm(o, place), self.act(place))

    def conv(self, i, o, k):
        return nn.Conv2d(i, o, k, padding=k // 2, bias=self.bias)

    def norm(self, o, place):
        return nn.BatchNorm2d(o)

    def act(self, place):
        return nn.ReLU()

    def outputs(self, x):
        return [path(x) for path in self.paths]

    def forward(self, x):
        outputs = self.outputs(x)
        return torch.cat([outputs[number] for number in self.order], self.dim)


def of(base, **members):
    return type(base.__name__, (base,), members)


inception = functools.partial(of, Inception)


class Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class FunctionalInception(nn.Module):
    """Without nn.Sequential."""

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


class Filled(FunctionalInception):
    """Writes each path's output into its place."""

    def forward(self, x):
        def step(name, x):
            return self.norms[name](self.convs[name](x)).clamp(min=0)

        padded = F.pad(x, (1, 1, 1, 1), value=float("-inf"))
        parts = step("a", x), step("bb", step("b", x)), step("cc", step("c", x)), step("d", F.max_pool2d(padded, 3, 1))
        return torch.hstack(parts)


class Unfolded(FunctionalInception):
    """The maximum of nine shifted images."""

    def forward(self, x):
        def step(name, x):
            return torch.relu_(self.norms[name](self.convs[name](x)))

        h, w = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        shifted = torch.stack([padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)])
        return torch.cat([step("a", x), step("bb", step("b", x)), step("cc", step("c", x)), step("d", shifted.amax(0))], -3)


def out_of_order(self, x):
    """The paths computed from the last to the first."""
    return [path(x) for path in list(self.paths)[::-1]][::-1]


RIGHT_INCEPTION = {
    "the shared one": models.InceptionBlock,
    "as taught": Inception,
    "functional": FunctionalInception,
    "hstack and −∞": Filled,
    "the maximum of shifted images": Unfolded,
    "lazy layers": inception(conv=lambda self, i, o, k: nn.LazyConv2d(o, k, padding=k // 2, bias=False)),
    "a subclass of BatchNorm2d": inception(norm=lambda self, o, place: MyBatchNorm(o)),
    "BN by hand": inception(norm=lambda self, o, place: NormByHand(o)),
    "ReLUs in place": inception(act=lambda self, place: nn.ReLU(inplace=True)),
    "from the last to the first": inception(outputs=out_of_order),
    "a ReLU more after the joining": inception(forward=lambda self, x: F.relu(Inception.forward(self, x))),
    "zeros around": inception(
        conv=lambda self, i, o, k: nn.Sequential(nn.ZeroPad2d(k // 2), nn.Conv2d(i, o, k, bias=False)),
    ),
    "numpy integers": inception(conv=lambda self, i, o, k: nn.Conv2d(int(np.int64(i)), o, k, padding=int(np.int64(k // 2)), bias=False)),
}


def swap(*places):
    """BN after the ReLU at these places."""
    return inception(
        unit=lambda self, i, o, k, place: (
            nn.Sequential(self.conv(i, o, k), nn.ReLU(), nn.BatchNorm2d(o)) if place in places else Inception.unit(self, i, o, k, place)
        )
    )


def no_relu(*places):
    return inception(act=lambda self, place: nn.Identity() if place in places else nn.ReLU())


def late_pool(self, i, pooled):
    return nn.Sequential(self.unit(i, pooled, 1, "4"), self.pool())


def pool(make):
    return inception(pool=lambda self: make())


def path_detached(number, inside=False):
    def outputs(self, x):
        found = [path(x.detach() if inside and n == number else x) for n, path in enumerate(self.paths)]
        return [out.detach() if n == number and not inside else out for n, out in enumerate(found)]

    return inception(outputs=outputs)


def padded_with_zeros(x):
    return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)


def with_shortcut(self, x):
    y = Inception.forward(self, x)
    return y + x if y.shape == x.shape else y


def chained(self, x):
    outputs = []
    for path in self.paths:
        x = path(x)
        outputs.append(x)
    return outputs


WRONG_INCEPTION = {
    "paths in another order": (inception(order=(0, 2, 1, 3)), "joined in another order (1×1, 5×5, 3×3, pooling)"),
    "pooling first": (inception(order=(3, 0, 1, 2)), "joined in another order"),
    "average pooling": (pool(lambda: nn.AvgPool2d(3, 1, 1)), "takes the mean of 3×3 pixels"),
    "average pooling of what is there": (pool(lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)), "takes the mean of 3×3 pixels"),
    "no pooling": (pool(nn.Identity), "does not pool"),
    "5×5 pooling": (pool(lambda: nn.MaxPool2d(5, 1, 2)), "The pooling windows are 5×5"),
    "pooling with zeros around": (pool(lambda: Act(padded_with_zeros)), "is padded with zeros"),
    "pooling twice": (pool(lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1))), "The pooling windows are 5×5"),
    "global pooling": (pool(lambda: Act(lambda x: F.adaptive_avg_pool2d(x, 1).expand_as(x))), "pools over the whole image"),
    "pooled and enlarged": (pool(lambda: Act(lambda x: F.interpolate(F.max_pool2d(x, 3, 2, 1), size=x.shape[2:]))), "enlarges the result"),
    "pooling last": (inception(fourth=late_pool), "The pooling comes after the 1×1 convolution"),
    "pooling with stride 2": (pool(lambda: nn.MaxPool2d(3, 2, 1)), "have different sizes: 8×7, 8×7, 8×7, 4×4"),
    "pooling with the default stride": (pool(lambda: nn.MaxPool2d(3, padding=1)), "its stride is 3 by default"),
    "pooling without padding": (pool(lambda: nn.MaxPool2d(3, 1)), "have different sizes: 8×7, 8×7, 8×7, 6×5"),
    "ceil_mode": (pool(lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "have different sizes"),
    "bias": (inception(bias=True), "Set bias=False"),
    "no BN": (inception(norm=lambda self, o, p: nn.Identity()), "No BN reads what"),
    "BN at the ends only": (
        inception(norm=lambda self, o, p: nn.Identity() if p in ("2a", "3a") else nn.BatchNorm2d(o)),
        "No BN reads what",
    ),
    "one BN after the joining": (
        inception(
            also=lambda self: setattr(self, "end", nn.LazyBatchNorm2d()), forward=lambda self, x: self.end(Inception.forward(self, x))
        ),
        "one BN after each: six",
    ),
    "no ReLUs": (inception(act=lambda self, place: nn.Identity()), "All ReLUs are missing"),
    "no last ReLU": (no_relu("1", "2b", "3b", "4"), "The last ReLU of each path is missing"),
    "no inner ReLU": (no_relu("2a", "3a"), "before the 3×3 and the 5×5 are missing"),
    "no ReLU before the 3×3": (no_relu("2a"), "The ReLU of the 1×1 before the 3×3 is missing"),
    "no ReLU after the pooling path": (no_relu("4"), "of the 1×1 after the pooling is missing"),
    "no ReLU in the first": (no_relu("1"), "The ReLU of the first path is missing"),
    "ReLU before BN": (swap("1", "2a", "2b", "3a", "3b", "4"), "The ReLUs stand before the BNs"),
    "ReLU before BN once": (swap("3b"), "The ReLU of the 5×5 stands before its BN"),
    "LeakyReLU": (inception(act=lambda self, place: nn.LeakyReLU()), "The activations are a LeakyReLU"),
    "ReLU on x": (inception(forward=lambda self, x: Inception.forward(self, F.relu(x))), "A ReLU works on x before the paths"),
    "ReLU on x in place": (inception(forward=lambda self, x: Inception.forward(self, F.relu_(x))), "Something works in place on x"),
    "no reduction": (
        inception(make_paths=lambda self, i, a, b, c, d: Inception.make_paths(self, i, a, (i, b[1]), (i, c[1]), d)),
        "give three[0] and five[0]",
    ),
    "3×3 and 5×5 without 1×1": (
        inception(
            make_paths=lambda self, i, a, b, c, d: [
                self.unit(i, a, 1, ""),
                self.unit(i, b[1], 3, ""),
                self.unit(i, c[1], 5, ""),
                self.fourth(i, d),
            ]
        ),
        "1×1; 1×1 and 3×3; 1×1 and 5×5",
    ),
    "three and five swapped": (
        inception(make_paths=lambda self, i, a, b, c, d: Inception.make_paths(self, i, a, c, b, d)),
        "5×5 convolution 6 → 12",
    ),
    "5×5 as two 3×3": (
        inception(
            conv=lambda self, i, o, k: (
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.Conv2d(o, o, 3, padding=1, bias=False))
                if k == 5
                else Inception.conv(self, i, o, k)
            )
        ),
        "3×3 convolution 2 → 4",
    ),
    "all 3×3": (inception(conv=lambda self, i, o, k: nn.Conv2d(i, o, 3, padding=1, bias=False)), "The kernels: 1×1"),
    "dilated 3×3 for 5×5": (
        inception(
            conv=lambda self, i, o, k: nn.Conv2d(i, o, 3, padding=2, dilation=2, bias=False) if k == 5 else Inception.conv(self, i, o, k)
        ),
        "expected 5×5 convolution 2 → 4",
    ),
    "joined along the images": (inception(dim=0), "torch.cat(…, dim=1) joins the channels"),
    "with a shortcut": (inception(forward=with_shortcut), "an Inception block has no shortcut"),
    "joined along the height": (inception(dim=2), "torch.cat(…, dim=1) joins the channels"),
    "added": (inception(forward=lambda self, x: sum(self.outputs(x))), "are added"),
    "stacked": (inception(forward=lambda self, x: torch.stack(self.outputs(x))), "stack"),
    "chained": (inception(outputs=chained), "Each convolution reads what belongs to its path"),
    "no padding": (inception(conv=lambda self, i, o, k: nn.Conv2d(i, o, k, bias=False)), "have different sizes: 8×7, 6×5, 4×3, 8×7"),
    "padding 1 everywhere": (inception(conv=lambda self, i, o, k: nn.Conv2d(i, o, k, padding=1, bias=False)), "have different sizes"),
    "one path missing": (inception(order=(0, 1, 2)), "one + three[1] + five[1] + pool of them"),
    "x joined, too": (
        inception(outputs=lambda self, x: [*Inception.outputs(self, x), x], order=(0, 1, 2, 3, 4)),
        "one + three[1] + five[1] + pool of them",
    ),
    "detached path": (path_detached(3), "What the pooling path gives is cut off"),
    "detached input of a path": (path_detached(1, inside=True), "What the 3×3 path reads is cut off"),
    "detached": (inception(forward=lambda self, x: Inception.forward(self, x.detach())), "no gradient reaches the input"),
    "dropout": (inception(forward=lambda self, x: F.dropout(Inception.forward(self, x), 0.4, self.training)), "a dropout with p=0.4"),
    "a list of layers": (
        inception(
            also=lambda self: (setattr(self, "all", list(self.paths)), delattr(self, "paths"), setattr(self, "paths", None)),
            outputs=lambda self, x: [path(x) for path in self.all],
        ),
        "`self.all` is a Python list",
    ),
    "eval() inside": (inception(forward=lambda self, x: Inception.forward(self.eval(), x)), "must not call .train() or .eval()"),
    "momentum": (inception(norm=lambda self, o, place: nn.BatchNorm2d(o, momentum=0.01)), "Is `momentum` (0.1) changed"),
    "a tuple": (inception(forward=lambda self, x: tuple(self.outputs(x))), "returns a tuple of 4"),
    "no return": (inception(forward=lambda self, x: None), "Its last line needs `return`"),
    "three as a number": (inception(make_paths=lambda self, i, a, b, c, d: [nn.Conv2d(i, b, 3)]), "`three` and `five` are pairs"),
    "four arguments": (lambda i, one, three, five: None, "with the same names, order and defaults"),
    "a max-pooling more": (
        inception(forward=lambda self, x: F.max_pool2d(Inception.forward(self, x), 3, 1, 1)),
        "Something is pooled after",
    ),
}


# ---- ResNeXt --------------------------------------------------------------------------------------------------------


class ResNeXt(nn.Module):
    """The right block, with places for mistakes."""

    bias = False

    def __init__(self, i, inside, o, groups, stride=1):
        super().__init__()
        widths = (i, inside, inside, o)
        self.convs = nn.ModuleList(self.make_conv(n, widths[n], widths[n + 1], groups, stride) for n in range(3))
        self.norms = nn.ModuleList(self.make_norm(w, n) for n, w in enumerate(widths[1:]))
        self.side = self.make_side(i, o, stride)
        self.also(i, inside, o)

    def also(self, i, inside, o):
        pass

    def make_conv(self, n, i, o, groups, stride):
        return nn.Conv2d(i, o, 3 if n == 1 else 1, stride if n == 1 else 1, int(n == 1), groups=groups if n == 1 else 1, bias=self.bias)

    def make_norm(self, width, n):
        return nn.BatchNorm2d(width)

    def make_side(self, i, o, stride):
        if (i, stride) == (o, 1):
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def act(self, n, x):
        return F.relu(x)

    def residual(self, x):
        for n, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            x = self.act(n, x) if n < 2 else x
        return x

    def join(self, y, s):
        return F.relu(y + s)

    def forward(self, x):
        return self.join(self.residual(x), self.side(x))


resnext = functools.partial(of, ResNeXt)


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


class AsSequential(nn.Module):
    def __init__(self, i, inside, o, groups, stride=1):
        super().__init__()
        self.down = None if (i, stride) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        self.body = nn.Sequential(
            nn.Conv2d(i, inside, 1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(inplace=True),
            nn.ZeroPad2d(1),
            nn.Conv2d(inside, inside, 3, stride, groups=groups, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, o, 1, bias=False),
            nn.BatchNorm2d(o),
        )

    def forward(self, x):
        shortcut = x if self.down is None else self.down(x)
        return shortcut.add(self.body(x)).clamp(min=0)


class Split(ResNeXt):
    """The groups one by one, each with its part of the weights."""

    def residual(self, x):
        y = F.relu(self.norms[0](self.convs[0](x)))
        conv = self.convs[1]
        parts = zip(y.chunk(conv.groups, 1), conv.weight.chunk(conv.groups, 0), strict=True)
        y = torch.cat([F.conv2d(part, weight, None, conv.stride, 1) for part, weight in parts], 1)
        return self.norms[2](self.convs[2](F.relu(self.norms[1](y))))


RIGHT_RESNEXT = {
    "as taught": ResNeXt,
    "shared layers": FromShared,
    "Sequential": AsSequential,
    "groups one by one": Split,
    "a subclass of BatchNorm2d": resnext(make_norm=lambda self, w, n: MyBatchNorm(w)),
    "BN by hand": resnext(make_norm=lambda self, w, n: NormByHand(w) if n == 1 else nn.BatchNorm2d(w)),
    "lazy layers": resnext(
        make_conv=lambda self, n, i, o, g, s: nn.LazyConv2d(
            o, 1 + 2 * (n == 1), s if n == 1 else 1, int(n == 1), groups=g if n == 1 else 1, bias=False
        )
    ),
    "added in place": resnext(join=lambda self, y, s: F.relu(y.add_(s), inplace=True)),
    "prints": resnext(forward=lambda self, x: (print(x.shape), ResNeXt.forward(self, x))[1]),
    "γ of the last BN 0": resnext(also=lambda self, i, inside, o: nn.init.zeros_(self.norms[2].weight)),
    "a function that makes it": lambda i, inside, o, groups, stride=1: ResNeXt(i, inside, o, groups, stride),
}


def conv(stride_at=(1,), groups_at=(1,), kernels=(1, 3, 1), pad=True, fixed=None):
    def make(self, n, i, o, groups, stride):
        k = kernels[n]
        g = (fixed or groups) if n in groups_at else 1
        return nn.Conv2d(i, o, k, stride if n in stride_at else 1, k // 2 if pad else 0, groups=g, bias=False)

    return resnext(make_conv=make)


def side(when=lambda i, o, s: (i, s) != (o, 1), norm=True, stride=True, groups=1, bias=False):
    def make(self, i, o, s):
        if not when(i, o, s):
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(i, o, 1, s if stride else 1, bias=bias, groups=groups), *[nn.BatchNorm2d(o)] * norm)

    return resnext(make_side=make)


def join(function):
    return resnext(join=lambda self, y, s: function(y, s))


def swapped(self, x):
    for n in range(3):
        x = self.convs[n](x)
        x = self.norms[n](F.relu(x) if n < 2 else x)
    return x


def pre(self, x):
    for norm, conv in zip((self.norms[2], self.norms[0], self.norms[1]), self.convs, strict=True):
        x = conv(F.relu(norm(x)))
    return x


def relu_before_last(self, x):
    y = F.relu(self.norms[1](self.convs[1](F.relu(self.norms[0](self.convs[0](x))))))
    return self.norms[2](F.relu(self.convs[2](y)))


def no_gradient(self, x):
    with torch.no_grad():
        s = self.side(x)
    return F.relu(self.residual(x) + s)


PROJECT = "is x itself here, but this block changes the shape"
WRONG_RESNEXT = {
    "groups ignored": (conv(groups_at=()), "has the block's groups"),
    "groups everywhere": (conv(groups_at=(0, 1, 2)), "Only the 3×3 convolution has the groups"),
    "groups on the 1×1": (conv(groups_at=(0,)), "the 3×3 convolution has"),
    "groups on the last": (conv(groups_at=(1, 2)), "the 3×3 convolution has"),
    "always 4 groups": (conv(fixed=4), "groups 4, no bias; expected"),
    "depthwise": (resnext(make_conv=lambda self, n, i, o, g, s: ResNeXt.make_conv(self, n, i, o, i, s)), "has the block's groups"),
    "groups as width": (
        resnext(make_conv=lambda self, n, i, o, g, s: ResNeXt.make_conv(self, n, i, o, i // g, s)),
        "has the block's groups",
    ),
    "groups on the projection": (side(groups=2), "Only the 3×3 convolution has the groups"),
    "ReLU before the addition": (join(lambda y, s: F.relu(y) + s), "The ReLU is applied to the residual before the addition"),
    "no last ReLU": (join(lambda y, s: y + s), "The ReLU after the addition is missing"),
    "not added": (join(lambda y, s: F.relu(y)), "The shortcut is not added"),
    "added twice": (join(lambda y, s: F.relu(y + s + s)), "The shortcut is added twice"),
    "joined": (join(lambda y, s: F.relu(torch.cat([y, s], 1))), "here they are added"),
    "multiplied": (join(lambda y, s: F.relu(y * s)), "The shortcut is multiplied"),
    "GELU": (join(lambda y, s: F.gelu(y + s)), "After the addition stands a GELU"),
    "no inner ReLUs": (resnext(act=lambda self, n, x: x), "The ReLUs between the convolutions are missing"),
    "no first ReLU": (resnext(act=lambda self, n, x: F.relu(x) if n else x), "The ReLU after the first 1×1 and its BN is missing"),
    "no second ReLU": (resnext(act=lambda self, n, x: x if n else F.relu(x)), "The ReLU after the 3×3 and its BN is missing"),
    "ReLU before BN": (resnext(residual=swapped), "The ReLUs stand before the BNs"),
    "ReLU before the last BN": (resnext(residual=relu_before_last), "between the last convolution and its BN"),
    "pre-activation": (resnext(residual=pre), "as many channels as the convolution before it gives"),
    "bias": (resnext(bias=True), "Set bias=False"),
    "bias on the projection": (side(bias=True), "Set bias=False"),
    "no BN after the projection": (side(norm=False), "No BN reads what `side.0` gives"),
    "no BN": (resnext(make_norm=lambda self, w, n: nn.Identity()), "No BN reads what"),
    "stride on the first 1×1": (conv(stride_at=(0,)), "The 3×3 convolution and the projection have the block's stride"),
    "stride on the last 1×1": (conv(stride_at=(2,)), "The 3×3 convolution and the projection have the block's stride"),
    "stride twice": (conv(stride_at=(0, 1)), "the stride is there twice"),
    "stride ignored": (
        resnext(__init__=lambda self, i, n, o, groups, stride=1: ResNeXt.__init__(self, i, n, o, groups)),
        "The stride isn't used",
    ),
    "no stride on the projection": (side(stride=False), "the block's stride is missing on this path"),
    "no projection": (side(when=lambda i, o, s: False), PROJECT),
    "projection for the channels only": (side(when=lambda i, o, s: i != o), PROJECT),
    "projection for the stride only": (side(when=lambda i, o, s: s != 1), PROJECT),
    "projection everywhere": (side(when=lambda i, o, s: True), "the shortcut is the identity"),
    "a 3×3 too few": (conv(kernels=(1, 1, 1)), "are 1×1, 3×3 and 1×1"),
    "3×3 first": (conv(kernels=(3, 3, 1)), "are 1×1, 3×3 and 1×1"),
    "no padding": (conv(pad=False), "without padding=1 makes the image smaller"),
    "in place on x": (resnext(forward=lambda self, x: ResNeXt.forward(self, x.relu_())), "Something works in place on x"),
    "one BN for two": (resnext(also=lambda self, *a: self.norms.__setitem__(1, self.norms[0])), "uses `norms.0` 2 times"),
    "detached shortcut": (join(lambda y, s: F.relu(y + s.detach())), "The shortcut is cut off"),
    "no_grad around the shortcut": (resnext(forward=no_gradient), "The shortcut is cut off"),
    "detached residual": (join(lambda y, s: F.relu(y.data + s)), "The main path is cut off"),
    "eval() inside": (resnext(forward=lambda self, x: ResNeXt.forward(self.eval(), x)), "must not call .train() or .eval()"),
    "dropout": (join(lambda y, s: F.relu(F.dropout2d(y, 0.5) + s)), "two calls"),
    "no default stride": (lambda i, n, o, groups, stride: ResNeXt(i, n, o, groups, stride), "same names, order and defaults"),
    "groups by another name": (lambda i, n, o, g, stride=1: ResNeXt(i, n, o, g, stride), "same names, order and defaults"),
    "default stride 2": (
        resnext(__init__=lambda self, i, n, o, groups, stride=2: ResNeXt.__init__(self, i, n, o, groups, stride)),
        "`stride` is 1",
    ),
    "four times as wide": (
        resnext(__init__=lambda self, i, n, o, groups, stride=1: ResNeXt.__init__(self, i, n, 4 * n, groups, stride)),
        "48",
    ),
    "no return": (resnext(forward=lambda self, x: None), "Its last line needs `return`"),
}


# ---- the identity ---------------------------------------------------------------------------------------------------


def zero(*names, value=0.0):
    @torch.no_grad()
    def function(block):
        for name in names:
            block.get_parameter(name).fill_(value)

    return function


LAST = zero("bn2.weight", "bn2.bias")


def and_then(function, first=LAST):
    def answer(block):
        first(block)
        return function(block)

    return answer


def replace_forward(block):
    block.forward = lambda x: x


def patch_class(block):
    type(block).forward = lambda self, x: x


def replace_layer(block):
    block.conv2 = nn.Identity()
    LAST(block)


def replace_norm(block):
    block.bn2 = nn.BatchNorm2d(len(block.bn2.weight))
    LAST(block)


def with_hook(block):
    block.register_forward_hook(lambda module, args, out: args[0])


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


def new_parameters(block):
    block.bn2.weight = nn.Parameter(torch.zeros_like(block.bn2.weight))
    block.bn2.bias = nn.Parameter(torch.zeros_like(block.bn2.bias))


def by_state(block):
    state = block.state_dict()
    block.load_state_dict({k: v * 0 if k in ("bn2.weight", "bn2.bias") else v for k, v in state.items()})


@torch.no_grad()
def by_convolution(block):
    block.conv2.weight.zero_()
    block.bn2.bias.zero_()
    block.bn2.running_mean.zero_()


@torch.no_grad()
def by_first_norm(block):
    block.bn1.weight.fill_(0)
    block.bn1.bias.fill_(-1)
    block.bn2.bias[:] = 0
    block.bn2.running_mean[:] = 0


def no_grad_forgotten(block):
    block.bn2.weight[:] = 0
    block.bn2.bias[:] = 0


def no_grad_forgotten_in_place(block):
    block.bn2.weight *= 0


def new_block(block):
    block = models.ResidualBlock(16, 16)
    LAST(block)
    return block


def copied(block):
    block = copy.deepcopy(block)
    LAST(block)
    return block


def dirac(block):
    nn.init.dirac_(block.conv1.weight)
    nn.init.dirac_(block.conv2.weight)


@torch.no_grad()
def first_channels(block):
    block.bn2.weight[:3] = 0
    block.bn2.bias.zero_()


def infinite_eps(block):
    block.bn2.eps = float("inf")
    nn.init.zeros_(block.bn2.bias)


def no_affine(block):
    block.bn2.weight = None
    block.bn2.bias = None


def plain_tensor(block):
    block.bn2.weight = torch.zeros(16)


@torch.no_grad()
def hard_coded(block):
    block.bn2.weight.copy_(torch.zeros(16))
    block.bn2.bias.copy_(torch.zeros(16))


RIGHT_IDENTITIES = {
    "in place": LAST,
    "all weights": everything,
    "nn.init": by_init,
    "through .data": by_data,
    "new parameters": new_parameters,
    "load_state_dict": by_state,
    "the last convolution, β and the running mean": by_convolution,
    "the first BN, β and the running mean": by_first_norm,
    "returns the block": and_then(lambda block: block),
    "prints": and_then(print),
    "γ and β, −0": zero("bn2.weight", "bn2.bias", value=-0.0),
    "statistics, too": and_then(lambda block: block.bn2.reset_running_stats()),
}
WRONG_IDENTITIES = {
    "only γ": (zero("bn2.weight"), "and then adds its bias"),
    "only β": (zero("bn2.bias"), "The bias of the last BN is 0, but its weight isn't"),
    "the first BN": (zero("bn1.weight", "bn1.bias"), "`bn1` makes everything 0 before the last BN, but that BN adds its bias"),
    "the convolutions": (zero("conv1.weight", "conv2.weight"), "`conv2` makes everything 0 before the last BN, but that BN adds its bias"),
    "the last convolution and β": (zero("conv2.weight", "bn2.bias"), "Silence the last BN itself"),
    "γ of both": (zero("bn1.weight", "bn2.weight"), "and then adds its bias"),
    "the first convolution": (zero("conv1.weight"), "The residual must be 0 for every x"),
    "γ = 1": (and_then(zero("bn2.weight", value=1.0)), "The bias of the last BN is 0, but its weight isn't"),
    "small": (zero("bn2.weight", "bn2.bias", value=1e-9), "small but not 0"),
    "some channels": (first_channels, "is 0 for 3 of 16 channels"),
    "convolutions that hand on": (dirac, "The residual must be 0 for every x"),
    "statistics of the last BN": (lambda block: block.bn2.reset_running_stats(), "The residual must be 0"),
    "new BNs": (lambda block: block.bn2.reset_parameters(), "The bias of the last BN is 0, but its weight isn't"),
    "forward replaced": (replace_forward, "replace no method"),
    "forward of the class replaced": (patch_class, "A method of the class ResidualBlock itself is replaced".replace("A m", "a m")),
    "a hook": (with_hook, "has a hook now"),
    "a layer replaced": (replace_layer, "replace no layer"),
    "a BN replaced": (replace_norm, "`block.bn2` is another layer now"),
    "nothing": (lambda block: None, "No weight of the block that was handed over has changed"),
    "a new block": (new_block, "returning another one changes nothing"),
    "a copy": (copied, "returning another one changes nothing"),
    "no_grad forgotten": (no_grad_forgotten, "where no gradient is recorded"),
    "no_grad forgotten, *=": (no_grad_forgotten_in_place, "where no gradient is recorded"),
    "eval()": (and_then(lambda block: block.eval()), "in another mode than before"),
    "eps": (infinite_eps, "`eps` of `block.bn2` is another one"),
    "no γ and β": (no_affine, "`block.bn2`"),
    "a plain tensor": (plain_tensor, "A parameter is replaced by something else"),
    "16 channels only": (hard_coded, "5"),
    "the shortcut removed": (lambda block: setattr(block, "shortcut", nn.ReLU()), "`block.shortcut` is a ReLU now"),
    "a misspelt layer": (lambda block: nn.init.zeros_(block.bn3.weight), "Is `self.bn1` meant?"),
}

# ---- Inception with a shortcut --------------------------------------------------------------------------------------


class Shortcut(nn.Module):
    """The right block, with places for mistakes."""

    bias, kernel = False, 1

    def __init__(self, i, o, one, three, five, pool):
        super().__init__()
        self.paths = self.make_paths(i, one, three, five, pool)
        self.conv = nn.Conv2d(one + three[1] + five[1] + pool, o, self.kernel, padding=self.kernel // 2, bias=self.bias)
        self.norm = self.make_norm(o)
        self.side = self.make_side(i, o)
        self.also(i, o)

    def also(self, i, o):
        pass

    def make_paths(self, *channels):
        return models.InceptionBlock(*channels)

    def make_norm(self, o):
        return nn.BatchNorm2d(o)

    def make_side(self, i, o):
        return nn.Identity() if i == o else nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))

    def residual(self, x):
        return self.norm(self.conv(self.paths(x)))

    def join(self, y, s):
        return F.relu(y + s)

    def forward(self, x):
        return self.join(self.residual(x), self.side(x))


shortcut = functools.partial(of, Shortcut)


class Flat(nn.Module):
    """A subclass of nothing: the four paths as learnt in exercise 1, all else in one nn.Sequential."""

    def __init__(self, cin, cout, a, b, c, d):
        super().__init__()
        inside = Inception(cin, a, b, c, d)
        self.f = nn.Sequential(inside, nn.LazyConv2d(cout, 1, bias=False), nn.BatchNorm2d(cout))
        self.p = None if cin == cout else nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        return (self.f(x) + (x if self.p is None else self.p(x))).clamp_min(0)


class Heir(models.InceptionBlock):
    """Inherits the paths."""

    def __init__(self, in_channels, out_channels, one, three, five, pool):
        super().__init__(in_channels, one, three, five, pool)
        self.last = nn.Sequential(nn.Conv2d(one + three[-1] + five[-1] + pool, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.side = nn.Sequential()
        if in_channels != out_channels:
            self.side.extend([nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)])

    def forward(self, x):
        return torch.relu(self.last(super().forward(x)).add_(self.side(x)))


class Summed(Shortcut):
    """The 1×1 convolution cut into four, one for each path: joining and convolving is a sum."""

    def residual(self, x):
        outputs = [self.paths.one(x), self.paths.three(x), self.paths.five(x), self.paths.pool(x)]
        weights = self.conv.weight.split([out.shape[1] for out in outputs], dim=1)
        return self.norm(sum(F.conv2d(out, weight) for out, weight in zip(outputs, weights, strict=True)))


RIGHT_SHORTCUT = {
    "as taught": Shortcut,
    "in one Sequential": Flat,
    "a subclass of the Inception block": Heir,
    "shortcut first": shortcut(forward=lambda self, x: F.relu(self.side(x) + self.residual(x))),
    "the convolution in four": Summed,
    "a subclass of BatchNorm2d": shortcut(make_norm=lambda self, o: MyBatchNorm(o)),
    "BN by hand": shortcut(make_norm=lambda self, o: NormByHand(o)),
    "γ of the last BN 0": shortcut(also=lambda self, i, o: nn.init.zeros_(self.norm.weight)),
    "a function that makes it": lambda i, o, one, three, five, pool: Shortcut(i, o, one, three, five, pool),
}


def ends(function):
    return shortcut(join=lambda self, y, s: function(y, s))


def joined_otherwise(self, x):
    p = self.paths
    return self.norm(self.conv(torch.cat([p.pool(x), p.one(x), p.three(x), p.five(x)], 1)))


class WithoutWidening(Shortcut):
    """Adds what the paths give, where the channels allow it."""

    def __init__(self, i, o, one, three, five, pool):
        super().__init__(i, o, one, three, five, pool)
        if i == o == one + three[1] + five[1] + pool:
            self.conv = self.norm = nn.Identity()


WRONG_SHORTCUT = {
    "no 1×1 after the paths": (WithoutWidening, "goes through a 1×1 convolution to out_channels"),
    "the paths' outputs added": (
        shortcut(forward=lambda self, x: F.relu(self.paths(x) + self.side(x))),
        "one path, of shape (2, 27, 8, 7) and x",
    ),
    "no shortcut": (ends(lambda y, s: F.relu(y)), "The shortcut is not added"),
    "ReLU before the addition": (ends(lambda y, s: F.relu(y) + s), "The ReLU is applied to the residual before the addition"),
    "a ReLU on both": (ends(lambda y, s: F.relu(F.relu(y) + s)), "The ReLU is applied to the residual before the addition"),
    "no last ReLU": (ends(lambda y, s: y + s), "The ReLU after the addition is missing"),
    "GELU": (ends(lambda y, s: F.gelu(y + s)), "After the addition stands a GELU"),
    "joined with x": (ends(lambda y, s: F.relu(torch.cat([y, s], 1))), "here they are added"),
    "multiplied": (ends(lambda y, s: F.relu(y * s)), "The shortcut is multiplied"),
    "added twice": (ends(lambda y, s: F.relu(y + s + s)), "The shortcut is added twice"),
    "scaled": (ends(lambda y, s: F.relu(0.1 * y + s)), "is scaled by 0.1"),
    "detached shortcut": (ends(lambda y, s: F.relu(y + s.detach())), "The shortcut is cut off"),
    "detached paths": (ends(lambda y, s: F.relu(y.detach() + s)), "The main path is cut off"),
    "no BN after the 1×1": (shortcut(make_norm=lambda self, o: nn.Identity()), "No BN reads what `conv` gives"),
    "ReLU before the last BN": (
        shortcut(residual=lambda self, x: self.norm(F.relu(self.conv(self.paths(x))))),
        "A ReLU stands between the last 1×1 convolution and its BN",
    ),
    "bias": (shortcut(bias=True), "Set bias=False"),
    "a 3×3 after the paths": (shortcut(kernel=3), "are 1×1"),
    "projection everywhere": (
        shortcut(make_side=lambda self, i, o: nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))),
        "the shortcut is the identity: add x itself",
    ),
    "no projection": (shortcut(make_side=lambda self, i, o: nn.Identity()), "is x itself here, but this block changes the shape"),
    "projection without BN": (
        shortcut(make_side=lambda self, i, o: nn.Identity() if i == o else nn.Conv2d(i, o, 1, bias=False)),
        "No BN reads what `side` gives",
    ),
    "another order": (shortcut(residual=joined_otherwise), "joined in another order than in InceptionBlock"),
    "the paths read ReLU(x)": (shortcut(residual=lambda self, x: Shortcut.residual(self, F.relu(x))), "they read x itself"),
    "in place on x": (shortcut(forward=lambda self, x: Shortcut.forward(self, x.relu_())), "Something works in place on x"),
    "eval() inside": (shortcut(forward=lambda self, x: Shortcut.forward(self.eval(), x)), "must not call .train() or .eval()"),
    "one convolution for both": (
        shortcut(make_side=lambda self, i, o: nn.Identity() if i == o else nn.Sequential(self.conv, nn.BatchNorm2d(o))),
        "one + three[1] + five[1] + pool",
    ),
    "no out_channels": (lambda in_channels, one, three, five, pool: None, "with the same names, order and defaults"),
    "no return": (shortcut(forward=lambda self, x: None), "Its last line needs `return`"),
}

EXERCISES = {
    checks.inception_block: (RIGHT_INCEPTION, WRONG_INCEPTION),
    checks.resnext_block: (RIGHT_RESNEXT, WRONG_RESNEXT),
    checks.make_identity: (RIGHT_IDENTITIES, WRONG_IDENTITIES),
    checks.inception_shortcut: (RIGHT_SHORTCUT, WRONG_SHORTCUT),
}
