"""Right and wrong answers to the exercises of notebook 05."""

import functools
import itertools
import math
import operator

import numpy as np
import torch
import torch.nn.functional as F
from answers02 import MyBatchNorm, NormByHand
from torch import nn

from utils import checks, models


class Block(nn.Module):
    """The right block or bottleneck, with places for mistakes."""

    kernels, widen = (3, 3), 1
    bias = False

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out, last = channels * self.widen, len(self.kernels) - 1
        self.widths = [in_channels, *[channels] * last, out]
        self.at = self.kernels.index(3)
        for number, kernel in enumerate(self.kernels):
            i, o = self.widths[number : number + 2]
            setattr(self, f"norm{number}", self.make_norm(number, i, o))
            setattr(self, f"conv{number}", self.make_conv(i, o, kernel, self.stride(number, stride)))
        self.side = self.make_side(in_channels, out, stride)
        self.also(in_channels, channels, stride)

    def also(self, in_channels, channels, stride):
        pass

    def make_norm(self, number, i, o):
        return nn.BatchNorm2d(i)

    def make_conv(self, i, o, kernel, stride):
        return nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=self.bias)

    def stride(self, number, stride):
        return stride if number == self.at else 1

    def make_side(self, i, o, stride):
        return nn.Conv2d(i, o, 1, stride, bias=False) if stride != 1 or i != o else None

    def pairs(self):
        return [(getattr(self, f"norm{n}"), getattr(self, f"conv{n}")) for n in range(len(self.kernels))]

    def act(self, number, norm, x):
        return F.relu(norm(x))

    def main(self, x):
        """(residual, what the first convolution reads)"""
        active = None
        for number, (norm, conv) in enumerate(self.pairs()):
            x = self.act(number, norm, x)
            active = x if number == 0 else active
            x = conv(x)
        return x, active

    def shortcut(self, x, active):
        return x if self.side is None else self.side(active)

    def join(self, y, s):
        return y + s

    def forward(self, x):
        y, active = self.main(x)
        return self.join(y, self.shortcut(x, active))


class Bottleneck(Block):
    kernels, widen = (1, 3, 1), 4


# ---- right, in an unusual way ---------------------------------------------------------------------------------------


class AsSequential(nn.Module):
    """The layers in one nn.Sequential after the first BN and ReLU, which both paths share; Identity where due."""

    def __init__(self, cin, width, stride=1):
        super().__init__()
        out = width * self.expansion
        self.start = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU())
        self.projects = (cin, stride) != (out, 1)
        self.skip = nn.Conv2d(cin, out, 1, stride, bias=False) if self.projects else nn.Identity()
        k = 3 if self.expansion == 1 else 1
        layers = [nn.Conv2d(cin, width, k, stride if k == 3 else 1, k // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if k == 1:
            layers += [nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, out, k, padding=k // 2, bias=False))

    def forward(self, x):
        active = self.start(x)
        return self.skip(active if self.projects else x) + self.body(active)


class Functional(nn.Module):
    """Bare parameters, and functions."""

    def __init__(self, i, width, stride=1):
        super().__init__()
        self.kernels = (3, 3) if self.expansion == 1 else (1, 3, 1)
        widths = [i, *[width] * (len(self.kernels) - 1), width * self.expansion]
        self.strides = [
            stride if (n, k) in ((0, 3), (1, 3)) and (n == 1) == (len(self.kernels) == 3) else 1 for n, k in enumerate(self.kernels)
        ]
        self.weights = nn.ParameterList([torch.randn(b, a, k, k) for a, b, k in zip(widths, widths[1:], self.kernels, strict=False)])
        self.norms = nn.ModuleDict({f"n{number}": nn.BatchNorm2d(w) for number, w in enumerate(widths[:-1])})
        self.stride, changes = stride, stride > 1 or i != widths[-1]
        self.register_parameter("projection", nn.Parameter(torch.randn(widths[-1], i, 1, 1)) if changes else None)

    def forward(self, x):
        shortcut, y = x, x
        for number, (kernel, weight) in enumerate(zip(self.kernels, self.weights, strict=True)):
            bn = self.norms[f"n{number}"]
            y = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, training=self.training).clamp(min=0)
            if number == 0 and self.projection is not None:
                shortcut = torch.conv2d(y, self.projection, stride=self.stride)
            y = F.conv2d(F.pad(y, [kernel // 2] * 4), weight, stride=self.strides[number])
        return torch.add(shortcut, y)


def of(cls, **members):
    return type(cls.__name__, (cls,), members)


def right(base, shared):
    def linear_side(self, i, o, stride):
        self.step = stride
        return nn.Linear(i, o, bias=False) if stride != 1 or i != o else None

    def by_linear(self, x, active):
        if self.side is None:
            return x
        return self.side(active[:, :, :: self.step, :: self.step].movedim(1, 3)).movedim(3, 1)

    def lazy(self, i, o, kernel, stride):
        return nn.LazyConv2d(o, kernel, stride, kernel // 2, bias=False)

    def same_padding(self, i, o, kernel, stride):
        return nn.Conv2d(i, o, kernel, stride, "same" if stride == 1 else kernel // 2, bias=False)

    def shortcut_first(self, x):
        active = F.relu(self.norm0(x))
        s = self.shortcut(x, active)
        s = s + self.conv0.weight.new_zeros(())
        for number, (norm, conv) in enumerate(self.pairs()):
            active = active if number == 0 else norm(active).relu_()
            active = conv(active)
        return active + s

    def in_place(self, y, s):
        y += s
        return y

    def prints(self, x):
        print(x.shape)
        self.kept = base.forward(self, x)
        return self.kept

    return {
        "the shared one": shared,
        "as taught": base,
        "Sequential": of(AsSequential, expansion=base.widen),
        "functions and bare parameters": of(Functional, expansion=base.widen),
        "projection by a linear layer": of(base, make_side=linear_side, shortcut=by_linear),
        "lazy convolutions": of(base, make_conv=lazy),
        "padding=same": of(base, make_conv=same_padding),
        "shortcut first, ReLU in place": of(base, forward=shortcut_first),
        "added in place": of(base, join=in_place),
        "a subclass of BatchNorm2d": of(base, make_norm=lambda self, n, i, o: MyBatchNorm(i)),
        "BN by hand": of(base, make_norm=lambda self, n, i, o: NormByHand(i) if n == 1 else nn.BatchNorm2d(i)),
        "prints, and keeps its output": of(base, forward=prints),
        "a function that makes it": lambda in_channels, channels, stride=1: base(in_channels, channels, stride),
        "torch.maximum, and a ModuleList": of(base, act=lambda self, n, norm, x: torch.maximum(norm(x), x.new_zeros(()))),
    }


# ---- wrong ----------------------------------------------------------------------------------------------------------


def version_1(self, x):
    pairs = self.pairs()
    for number, (norm, conv) in enumerate(pairs):
        x = norm(conv(x))
        x = x if number == len(pairs) - 1 else F.relu(x)
    return x, None


def after(self, number, i, o):
    return nn.BatchNorm2d(o)


def last_left_out(self, x):
    y = active = F.relu(self.norm0(x))
    for number, (norm, conv) in enumerate(self.pairs()[:-1]):
        y = conv(y if number == 0 else F.relu(norm(y)))
    return y, active


def without(*numbers):
    return lambda self, number, norm, x: norm(x) if number in numbers else F.relu(norm(x))


def in_place_on_x(self, number, norm, x):
    return F.relu(norm(F.relu_(x) if number == 0 else x))


def read(what):
    return lambda self, x, active: what(self, x) if self.side is None else self.side(what(self, x))


def computed_twice(self, x, active):
    return x if self.side is None else self.side(F.relu(self.norm0(x)))


def extra_norm(self, i, c, s):
    self.end = nn.BatchNorm2d(c * self.widen)


def one_norm_for_two(self, i, c, s):
    self.norm1 = self.norm0 if i == c else self.norm1


def eval_inside(self, x):
    self.norm0.eval()
    return Block.forward(self, x)


def cut(self, x):
    y, active = self.main(x)
    with torch.no_grad():
        s = self.shortcut(x.clone(), active)
    return y + s


def only_if(condition):
    return lambda self, i, o, stride: nn.Conv2d(i, o, 1, stride, bias=False) if condition(i, o, stride) else None


def wrong(base):
    n = len(base.kernels)
    path = {"shape": "is x itself here, but this block changes the shape"}

    def make(**members):
        return of(base, **members)

    found = {
        "ReLU after the addition": (make(join=lambda self, y, s: F.relu(y + s)), "A ReLU follows the addition"),
        "version 1": (make(main=version_1, make_norm=after, shortcut=read(lambda self, x: x)), "BN and ReLU stand before each"),
        "version 1, ReLU at the end": (
            make(main=version_1, make_norm=after, shortcut=read(lambda self, x: x), join=lambda self, y, s: F.relu(y + s)),
            "BN and ReLU stand before each",
        ),
        "projection of x": (make(shortcut=read(lambda self, x: x)), "The projection reads x: it must read what the first BN and ReLU"),
        "projection of ReLU(x)": (
            make(shortcut=lambda self, x, a: x if self.side is None else self.side(F.relu(x))),
            "The projection reads ReLU(x)",
        ),
        "identity of the activated": (
            make(shortcut=lambda self, x, a: a if self.side is None else self.side(a)),
            "adds what the first BN and ReLU give: it must add x itself",
        ),
        "x overwritten by its BN": (
            make(forward=lambda self, x: base.forward(self, x) if self.side else self.main(x)[0] + F.relu(x)),
            "The identity shortcut adds ReLU(x)",
        ),
        "projection everywhere": (make(make_side=only_if(lambda i, o, s: True)), "the shortcut is the identity: add x itself"),
        "projection never": (make(make_side=only_if(lambda i, o, s: False)), path["shape"]),
        "projection where the channels change": (make(make_side=only_if(lambda i, o, s: i != o)), path["shape"]),
        "projection where the stride changes": (make(make_side=only_if(lambda i, o, s: s != 1)), path["shape"]),
        "BN after the projection": (
            make(
                make_side=lambda self, i, o, s: (
                    None if (i, s) == (o, 1) else nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
                )
            ),
            "none follows the last one or the projection",
        ),
        "a BN at the end": (make(also=extra_norm, join=lambda self, y, s: self.end(y + s)), "none follows the last one or the projection"),
        "no ReLUs": (make(act=without(*range(n))), "The ReLUs are missing"),
        "no first ReLU": (make(act=without(0)), "The first ReLU is missing"),
        "no last ReLU": (make(act=without(n - 1)), ("The first", "The second", "The third")[n - 1] + " ReLU is missing"),
        "ReLU before BN": (make(act=lambda self, k, norm, x: norm(F.relu(x))), "The ReLUs stand before the BNs"),
        "second ReLU before BN": (
            make(act=lambda self, k, norm, x: norm(F.relu(x)) if k == 1 else F.relu(norm(x))),
            "The second ReLU stands before its BN",
        ),
        "GELU": (make(act=lambda self, k, norm, x: F.gelu(norm(x))), "The activations are a GELU"),
        "last convolution left out": (make(main=last_left_out), f"`norm{n - 1}` is made" if n == 2 else "look at its channels"),
        "not added": (make(join=lambda self, y, s: y), "The shortcut is not added"),
        "added twice": (make(join=lambda self, y, s: y + s + s), "The shortcut is added twice"),
        "mean": (make(join=lambda self, y, s: (y + s) / 2), "The mean of both paths is taken"),
        "subtracted": (make(join=lambda self, y, s: y - s), "The shortcut is subtracted"),
        "multiplied": (make(join=lambda self, y, s: y * s), "The shortcut is multiplied"),
        "concatenated": (make(join=lambda self, y, s: torch.cat([y, s], 1)), "torch.cat puts the paths side by side: here they are added"),
        "scaled": (make(join=lambda self, y, s: 0.3 * y + s), "something that doesn't belong there: mul"),
        "ReLU on the residual": (make(join=lambda self, y, s: F.relu(y) + s), "applied to the residual before the addition"),
        "ReLU on the shortcut": (make(join=lambda self, y, s: y + F.relu(s)), "The identity shortcut adds ReLU(x)"),
        "dropout": (make(join=lambda self, y, s: F.dropout(y, 0.2, self.training) + s), "there is a dropout with p=0.2"),
        "bias left on": (make(bias=True), "Set bias=False"),
        "bias on the projection": (
            make(make_side=lambda self, i, o, s: nn.Conv2d(i, o, 1, s) if (i, s) != (o, 1) else None),
            "Set bias=False",
        ),
        "no stride on the projection": (
            make(make_side=lambda self, i, o, s: nn.Conv2d(i, o, 1, bias=False) if (i, s) != (o, 1) else None),
            "the block's stride is missing on this path",
        ),
        "stride ignored": (
            make(stride=lambda self, k, s: 1, make_side=lambda self, i, o, s: base.make_side(self, i, o, 1)),
            "The stride isn't used",
        ),
        "stride on the last": (make(stride=lambda self, k, s: s if k == n - 1 else 1), "have the block's stride"),
        "stride everywhere": (make(stride=lambda self, k, s: s), "the stride is there twice"),
        "groups": (
            make(make_conv=lambda self, i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, groups=o if i == o else 1, bias=False)),
            "`groups` cuts",
        ),
        "no padding": (
            make(make_conv=lambda self, i, o, k, s: nn.Conv2d(i, o, k, s, bias=False)),
            "without padding=1 makes the image smaller",
        ),
        "BN with the output's channels": (make(make_norm=after), "it has as many channels as that convolution reads"),
        "input changed in place": (make(act=in_place_on_x), "Something works in place on x"),
        "the first BN called twice": (make(shortcut=computed_twice), "compute that once"),
        "one BN for two": (make(also=one_norm_for_two), "uses `norm0` 2 times" if n == 2 else "uses `norm0` 2 times"),
        "detached shortcut": (make(join=lambda self, y, s: y + s.detach()), "The shortcut is cut off from the gradient"),
        "detached residual": (make(join=lambda self, y, s: y.detach() + s), "The main path is cut off from the gradient"),
        "no gradient through the shortcut": (make(forward=cut), "The shortcut is cut off from the gradient"),
        "detached input": (make(forward=lambda self, x: base.forward(self, x.data)), "no gradient reaches the input"),
        "eval() inside": (
            make(forward=eval_inside if n == 2 else lambda self, x: base.forward(self.eval(), x)),
            "must not call .train() or .eval()",
        ),
        "momentum": (make(make_norm=lambda self, k, i, o: nn.BatchNorm2d(i, momentum=0.9)), "Is `momentum` (0.1) changed"),
        "no affine": (make(make_norm=lambda self, k, i, o: nn.BatchNorm2d(i, affine=False)), "Leave `affine` at its default"),
        "group norm": (make(make_norm=lambda self, k, i, o: nn.GroupNorm(1, i)), "has a group norm layer"),
        "no return": (make(forward=lambda self, x: None), "Its last line needs `return`"),
        "a tuple": (make(forward=lambda self, x: self.main(x)), "returns a tuple of 2"),
        "default stride 2": (
            make(__init__=lambda self, i, c, stride=2: base.__init__(self, i, c, stride)),
            "Without that argument, `stride` is 1",
        ),
        "no default stride": (
            make(__init__=lambda self, i, c, stride: base.__init__(self, i, c, stride)),
            "with the same names, order and defaults",
        ),
        "a seed set inside": (
            make(also=lambda self, i, c, s: (torch.manual_seed(0), nn.init.normal_(self.conv0.weight))),
            "calls torch.manual_seed",
        ),
        "frozen": (make(also=lambda self, i, c, s: self.conv1.requires_grad_(False)), "requires_grad=False"),
        "an unused layer": (make(also=lambda self, i, c, s: setattr(self, "fc", nn.Linear(2, 2))), "`fc` is made by"),
        "a list of layers": (
            make(
                also=lambda self, i, c, s: (setattr(self, "all", [self.conv0]), delattr(self, "conv0")),
                pairs=lambda self: [
                    (self.norm0, self.all[0]),
                    *[(getattr(self, f"norm{k}"), getattr(self, f"conv{k}")) for k in range(1, n)],
                ],
            ),
            "`self.all` is a Python list",
        ),
    }
    return found


# ---- the weights of a sum -------------------------------------------------------------------------------------------


def by_loop(factors):
    weights = [1.0]
    for factor in factors:
        weights = [factor * weight for weight in weights]
        weights.append(1.0)
    return weights


def from_behind(factors):
    weights = [1]
    for factor in reversed(factors):
        weights.insert(0, weights[0] * factor)
    return weights


def recursive(factors):
    return (1.0,) if not factors else (*(factors[-1] * weight for weight in recursive(factors[:-1])), 1.0)


def by_autograd(factors):
    """The weights are the derivatives of the last x."""
    terms = [torch.zeros((), requires_grad=True) for _ in range(len(factors) + 1)]
    x = terms[0] * 1
    for factor, term in zip(factors, terms[1:], strict=True):
        x = factor * x + term
    return torch.stack(torch.autograd.grad(x, terms))


def by_symbols(factors):
    """x_L as {name: weight}."""
    x = {"x_0": 1.0}
    for number, factor in enumerate(factors):
        x = {name: weight * factor for name, weight in x.items()} | {f"F_{number}": 1.0}
    return list(x.values())


RIGHT_WEIGHTS = {
    "by loop": by_loop,
    "from behind": from_behind,
    "recursive, a tuple": recursive,
    "autograd, a tensor in float32": by_autograd,
    "by names": by_symbols,
    "numpy": lambda factors: np.cumprod([1.0, *factors[::-1]])[::-1],
    "torch": lambda factors: torch.tensor([1.0, *factors[::-1]]).cumprod(0).flip(0),
    "prod of slices": lambda factors: [math.prod(factors[i:]) for i in range(len(factors) + 1)],
    "accumulate": lambda factors: [*itertools.accumulate(reversed(factors), operator.mul, initial=1.0)][::-1],
    "reduce": lambda factors: functools.reduce(lambda w, f: [f * a for a in w] + [1], factors, [1]),
    "prints": lambda factors: (print(factors), by_loop(factors))[1],
}


def changes_its_input(factors):
    result = by_loop(factors)
    factors.clear()
    return result


def divides(factors):
    total = math.prod(factors)
    weights = [total]
    for factor in factors:
        total = total / factor
        weights.append(total)
    return weights


WRONG_WEIGHTS = {
    "reversed": (lambda f: by_loop(f)[::-1], "the wrong way round"),
    "x_0 missing": (lambda f: by_loop(f)[1:], "The weight of x_0 is missing"),
    "last missing": (lambda f: by_loop(f)[:-1], "The last weight is missing"),
    "its own factor, too": (lambda f: [math.prod(f)] + [math.prod(f[i:]) for i in range(len(f))], "its own one does not"),
    "factors before": (lambda f: [math.prod(f)] + [math.prod(f[:i]) for i in range(len(f))], "the factors of the blocks before it"),
    "cumprod": (lambda f: np.cumprod([1.0, *f]), "here it is the factors up to its own"),
    "powers of the first": (lambda f: [(f or [1])[0] ** n for n in range(len(f), -1, -1)], "powers of the first factor"),
    "powers of the last": (lambda f: [([1] + f)[-1] ** n for n in range(len(f), -1, -1)], "powers of the last factor"),
    "sums": (lambda f: [sum(f)] + [sum(f[i + 1 :]) for i in range(len(f))], "The factors are added"),
    "x_0 kept whole": (lambda f: [1.0, *by_loop(f)[1:]], "every block multiplies it"),
    "first block left out": (lambda f: [math.prod(f[1:]), *by_loop(f)[1:]], "the first block multiplies it, too"),
    "factors alone": (lambda f: [math.prod(f), *f], "The weight of an F is not the factor of its own block"),
    "ones": (lambda f: [math.prod(f)] + [1.0] * len(f), "each later block multiplies it"),
    "gated": (
        lambda f: [math.prod(f)] + [(1 - f[i]) * math.prod(f[i + 1 :]) for i in range(len(f))],
        "added with the weight 1",
    ),
    "normalised": (lambda f: [w / (sum(by_loop(f)) or 1e9) for w in by_loop(f)], "they need not add up to 1"),
    "sums so far": (lambda f: list(itertools.accumulate(by_loop(f))), "return each weight by itself"),
    "x_0 alone": (math.prod, "Return all weights"),
    "nothing": (lambda f: None, "Its last line needs `return`"),
    "a generator": (lambda f: (w for w in by_loop(f)), "wrap it in list(…)"),
    "a dict": (lambda f: dict(enumerate(by_loop(f))), "returns a dict"),
    "nested": (lambda f: [[w, 0] for w in by_loop(f)], "Return a flat list"),
    "divides": (divides, "A factor may be 0"),
    "input changed": (changes_its_input, "don't write into `factors`"),
    "no blocks": (lambda f: [f[0] * by_loop(f[1:])[0], *by_loop(f)[1:]], "Then x_0 is all there is"),
    "off at the end": (lambda f: [0.9 * w if len(f) > 50 else w for w in by_loop(f)], "It is right for 7 of 9 lists"),
    "two arguments": (lambda factor, blocks: [factor**blocks], "path_weights([0.5, 0.5])"),
}

EXERCISES = {
    checks.preact_block: (
        right(Block, models.PreActBlock),
        wrong(Block)
        | {
            "a residual block": (models.BasicBlock, "stand before each"),
            "a plain block": (models.PlainBlock, "BN and ReLU stand before each of the 2 convolutions"),
        },
    ),
    checks.preact_bottleneck: (
        right(Bottleneck, models.PreActBottleneck),
        wrong(Bottleneck)
        | {
            "stride on the first 1×1": (
                of(Bottleneck, stride=lambda self, k, s: s if k == 0 else 1),
                "The 3×3 convolution and the projection",
            ),
            "no widening": (of(Bottleneck, widen=1), "The output has 4 · channels channels"),
            "a bottleneck of version 1": (models.Bottleneck, "stand before each"),
            "a basic block": (models.PreActBlock, "expected (2, 32, 6, 5)"),
        },
    ),
    checks.path_weights: (RIGHT_WEIGHTS, WRONG_WEIGHTS),
}
