"""Right and wrong answers to the exercises of notebook 06."""

import numpy as np
import torch
import torch.nn.functional as F
from answers02 import MyBatchNorm, NormByHand
from torch import nn

from utils import checks, models


class Plain(nn.Module):
    """The right block, with places for mistakes."""

    bias = False

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.a, self.m = self.make_conv(in_channels, channels, stride, 0), self.make_norm(channels, 0)
        self.b, self.n = self.make_conv(channels, channels, stride, 1), self.make_norm(channels, 1)
        self.also(in_channels, channels, stride)

    def also(self, in_channels, channels, stride):
        pass

    def make_conv(self, i, o, stride, number):
        return nn.Conv2d(i, o, 3, 1 if number else stride, 1, bias=self.bias)

    def make_norm(self, channels, number):
        return nn.BatchNorm2d(channels)

    def inner(self, x):
        return F.relu(self.m(self.a(x)))

    def main(self, x):
        return self.n(self.b(self.inner(x)))

    def forward(self, x):
        return F.relu(self.main(x))


def of(**members):
    return type("Plain", (Plain,), members)


def forward(function):
    return of(forward=function)


def also(function):
    return of(also=function)


class InPlace(nn.Sequential):
    """A right block, as an nn.Sequential."""

    def __init__(self, cin, cout, stride=1):
        super().__init__(
            nn.Conv2d(cin, cout, (3, 3), stride, padding=(1, 1), bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, (3, 3), padding="same", bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )


class InALoop(nn.Module):
    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.layers = nn.ModuleList()
        for i, s in ((cin, stride), (cout, 1)):
            self.layers += [nn.ZeroPad2d(1), nn.Conv2d(i, cout, 3, s, bias=False), nn.BatchNorm2d(cout)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            x = x.clamp_min(0) if isinstance(layer, nn.BatchNorm2d) else x
        return x


class Functional(nn.Module):
    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(cout, cin, 3, 3)), nn.Parameter(torch.randn(cout, cout, 3, 3))
        self.bn1, self.bn2, self.stride = nn.BatchNorm2d(cout), nn.BatchNorm2d(cout), stride

    def forward(self, x):
        x = torch.relu(self.bn1(F.conv2d(x, self.w1, None, self.stride, 1)))
        return self.bn2(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.w2)).relu()


class FromResidual(models.ResidualBlock):
    """Its shortcut multiplied by 0."""

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + 0 * self.shortcut(x))


def added(self, x):
    out = self.main(x)
    return F.relu(out + x if out.shape == x.shape else out)


def pre_activated(self, x):
    return self.b(F.relu(self.n(self.a(F.relu(self.m(x))))))


def in_place(self, x):
    return Plain.forward(self, x.relu_())


RIGHT_BLOCKS = {
    "the shared one": models.PlainBlock,
    "as taught": Plain,
    "nn.Sequential": InPlace,
    "a loop, zeros around": InALoop,
    "functions": Functional,
    "a subclass of BatchNorm2d": of(make_norm=lambda self, c, n: MyBatchNorm(c)),
    "BN by hand": of(make_norm=lambda self, c, n: NormByHand(c)),
    "lazy layers": of(make_conv=lambda self, i, o, s, n: nn.LazyConv2d(o, 3, 1 if n else s, 1, bias=False)),
    "a function that makes it": lambda in_channels, channels, stride=1: Plain(in_channels, channels, stride),
    "prints": forward(lambda self, x: (print(x.shape), Plain.forward(self, x))[1]),
    "numpy integers": of(__init__=lambda self, i, c, stride=1: Plain.__init__(self, np.int64(i).item(), c, np.int64(stride).item())),
}
WRONG_BLOCKS = {
    "with a shortcut": (forward(added), "Leave out the shortcut"),
    "with a shortcut, ReLU first": (forward(lambda self, x: Plain.forward(self, x) + x), "Leave out the shortcut"),
    "with a projection": (models.ResidualBlock, "Leave out the shortcut"),
    "a basic block": (models.BasicBlock, "Leave out the shortcut"),
    "an unused projection": (also(lambda self, i, c, s: setattr(self, "shortcut", nn.Conv2d(i, c, 1, s))), "`shortcut` is made by"),
    "no last ReLU": (forward(Plain.main), "The last ReLU is missing"),
    "no ReLU between": (of(inner=lambda self, x: self.m(self.a(x))), "The ReLU between the convolutions is missing"),
    "no ReLUs": (forward(lambda self, x: self.n(self.b(self.m(self.a(x))))), "The ReLU between the convolutions is missing. The last ReLU"),
    "ReLU before BN": (of(inner=lambda self, x: self.m(F.relu(self.a(x)))), "The ReLU stands before the first BN"),
    "ReLU before the second BN": (forward(lambda self, x: self.n(F.relu(self.b(self.inner(x))))), "The ReLU stands before the second BN"),
    "ReLUs before both BNs": (forward(lambda self, x: self.n(F.relu(self.b(self.m(F.relu(self.a(x))))))), "The ReLUs stand before the BNs"),
    "pre-activated": (of(make_norm=lambda self, c, n: nn.BatchNorm2d(c), forward=pre_activated), "A BN stands after its convolution here"),
    "one BN": (of(main=lambda self, x: self.b(self.inner(x)), also=lambda self, i, c, s: delattr(self, "n")), "No BN reads what `b` gives"),
    "no BN": (of(make_norm=lambda self, c, n: nn.Identity()), "No BN reads what `a` and `b` give"),
    "one BN for both": (also(lambda self, i, c, s: setattr(self, "n", self.m)), "uses `m` 2 times"),
    "bias": (of(bias=True), "Set bias=False"),
    "stride on the second": (
        of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 3, s if n else 1, 1, bias=False)),
        "second has stride 1",
    ),
    "stride on both": (of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 3, s, 1, bias=False)), "expected (2, 10, 3, 3)"),
    "1×1": (of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 1, 1 if n else s, bias=False)), "Both convolutions are 3×3"),
    "5×5": (of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 5, 1 if n else s, 2, bias=False)), "Both convolutions are 3×3"),
    "stride ignored": (of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 3, 1, 1, bias=False)), "The stride isn't used"),
    "no padding": (
        of(make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 3, 1 if n else s, bias=False)),
        "needs padding=1 to keep its size",
    ),
    "channels ignored": (of(make_conv=lambda self, i, o, s, n: nn.Conv2d(8, 8, 3, 1 if n else s, 1, bias=False)), "8 channels"),
    "second reads x": (forward(lambda self, x: F.relu(self.n(self.b(x))) + 0 * self.inner(x)), "was made for 10"),
    "three convolutions": (
        of(
            also=lambda self, i, c, s: setattr(self, "c", nn.Conv2d(c, c, 3, 1, 1, bias=False)),
            forward=lambda self, x: F.relu(self.c(Plain.forward(self, x))),
        ),
        "A plain block has two 3×3 convolutions",
    ),
    "a pooling more": (forward(lambda self, x: F.max_pool2d(Plain.forward(self, x), 3, 1, 1)), "max-pooling"),
    "pooling for the stride": (
        of(
            make_conv=lambda self, i, o, s, n: nn.Conv2d(i, o, 3, 1, 1, bias=False),
            also=lambda self, i, c, s: setattr(self, "s", s),
            forward=lambda self, x: F.avg_pool2d(Plain.forward(self, x), self.s, ceil_mode=True),
        ),
        "The first convolution has the block's stride",
    ),
    "LeakyReLU": (forward(lambda self, x: F.leaky_relu(self.main(x))), "At the end stands a LeakyReLU"),
    "dropout": (forward(lambda self, x: F.dropout(Plain.forward(self, x), 0.1, self.training)), "there is a dropout with p=0.1"),
    "input changed": (forward(in_place), "Something works in place on x"),
    "detached": (forward(lambda self, x: Plain.forward(self, x.detach())), "no gradient reaches the input"),
    "detached in the middle": (
        forward(lambda self, x: F.relu(self.n(self.b(self.inner(x).detach())))),
        "first half of the block gives is cut off",
    ),
    "detached at the end": (forward(lambda self, x: Plain.forward(self, x).detach()), "cuts the way back"),
    "eval() inside": (forward(lambda self, x: Plain.forward(self.eval(), x)), "must not call .train() or .eval()"),
    "momentum": (of(make_norm=lambda self, c, n: nn.BatchNorm2d(c, momentum=0.5)), "Is `momentum` (0.1) changed"),
    "instance norm": (of(make_norm=lambda self, c, n: nn.InstanceNorm2d(c, affine=True)), "instance norm"),
    "no return": (forward(lambda self, x: None), "Its last line needs `return`"),
    "default stride 2": (
        of(__init__=lambda self, i, c, stride=2: Plain.__init__(self, i, c, stride)),
        "Without that argument, `stride` is 1",
    ),
    "an instance": (Plain(8, 8), "Hand over the class itself"),
}


# ---- the depth ------------------------------------------------------------------------------------------------------


def layers(network, kinds=(nn.Conv2d, nn.Linear), leave_out=("shortcut",)):
    return [m for name, m in network.named_modules() if isinstance(m, kinds) and not any(part in name for part in leave_out)]


def count(condition):
    return lambda network: sum(condition(name, m) for name, m in network.named_modules())


def is_layer(m):
    return isinstance(m, (nn.Conv2d, nn.Linear))


def by_hand(network):
    total = 0
    for name, module in network.named_modules():
        if "shortcut" in name:
            continue
        if type(module).__name__ in ("Conv2d", "Linear"):
            total += 1
    return np.int64(total)


def recursive(module, name=""):
    if "shortcut" in name:
        return 0
    return int(is_layer(module)) + sum(recursive(child, key) for key, child in module.named_children())


def subtracted(network):
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    aside = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" in name]
    return len(convs) - len(aside) + len(list(filter(lambda m: isinstance(m, nn.Linear), network.modules())))


def by_running(network):
    """Counts the layers that are called, with hooks, and takes them off again."""
    seen = []
    handles = [
        m.register_forward_hook(lambda m, *_: seen.append(m))
        for name, m in network.named_modules()
        if is_layer(m) and "shortcut" not in name
    ]
    mode = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    network.train(mode)
    for handle in handles:
        handle.remove()
    return len(seen)


def keeps_counting(network, seen=[]):  # noqa: B006
    seen += layers(network)
    return len(seen)


def destroys(network):
    for module in network.modules():
        if hasattr(module, "shortcut"):
            module.shortcut = nn.Identity()
    return len(layers(network))


RIGHT_DEPTHS = {
    "as taught": lambda network: len(layers(network)),
    "by parameters": lambda network: sum(p.ndim in (2, 4) for name, p in network.named_parameters() if "shortcut" not in name),
    "in parts": lambda network: len(layers(network.stem)) + len(layers(network.stages)) + len(layers(network.head)),
    "by hand, numpy": by_hand,
    "recursive": recursive,
    "subtracted": subtracted,
    "by running it": by_running,
    "prints": lambda network: (print(network), len(layers(network)))[1],
    "sum of a tensor": lambda network: torch.tensor([1 for _ in layers(network)]).sum(),
    "by its weights": lambda n: len([k for k, v in n.state_dict().items() if v.dim() >= 2 and k.find("shortcut") < 0]),
}
NAME = "contains `shortcut` somewhere"
WRONG_DEPTHS = {
    "with shortcuts": (lambda network: len(layers(network, leave_out=())), "convolutions of the shortcuts don't count"),
    "no linear layer": (lambda network: len(layers(network, nn.Conv2d)), "The linear layers count, too"),
    "linear layers alone": (lambda network: len(layers(network, nn.Linear)), "The convolutions count, too"),
    "all convolutions, no linear layer": (
        lambda network: len(layers(network, nn.Conv2d, ())),
        "leave out every name that contains `shortcut`. The linear layers count",
    ),
    "with batch norms": (lambda network: len(layers(network, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))), "Batch norms don't count"),
    "with ReLUs": (lambda network: len(layers(network, (nn.Conv2d, nn.Linear, nn.ReLU))), "that are no layers count there"),
    "all modules": (lambda network: len(list(network.modules())), "that are no layers count there"),
    "all leaves": (count(lambda name, m: not list(m.children()) and "shortcut" not in name), "that are no layers count there"),
    "all parameters": (lambda network: len(list(network.parameters())), "The parameters' tensors are counted"),
    "all weights": (count(lambda name, m: hasattr(m, "weight") and "shortcut" not in name), "Batch norms"),
    "all numbers": (lambda network: sum(p.numel() for p in network.parameters()), "Numbers are counted"),
    "3×3 only": (lambda n: sum(m.kernel_size == (3, 3) for m in layers(n, nn.Conv2d)) + 1, "other kernels than 3×3 count, too"),
    "no 1×1": (count(lambda name, m: is_layer(m) and getattr(m, "kernel_size", 0) != (1, 1)), "A 1×1 convolution on the main path counts"),
    "one linear layer": (lambda n: len(layers(n, nn.Conv2d)) + 1, "a network may have several of them, or none"),
    "children alone": (lambda n: sum(is_layer(m) for m in n.children()), "children() gives the outermost parts alone"),
    "stages alone": (lambda n: len(layers(n.stages)), "stem and head have layers, too"),
    "exact name": (count(lambda name, m: is_layer(m) and "shortcut" not in name.split(".")), NAME),
    "ends with it": (count(lambda name, m: is_layer(m) and not name.endswith("shortcut")), NAME),
    "begins with it": (
        count(lambda name, m: is_layer(m) and not name.startswith("shortcut")),
        "leave out every name that contains `shortcut`",
    ),
    "with a dot": (count(lambda name, m: is_layer(m) and ".shortcut" not in name), NAME),
    "with two dots": (count(lambda name, m: is_layer(m) and ".shortcut." not in name), NAME),
    "downsample": (count(lambda name, m: is_layer(m) and "downsample" not in name), "leave out every name that contains `shortcut`"),
    "by stride": (
        count(lambda name, m: is_layer(m) and not (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride == (2, 2))),
        "A projection need not have a stride",
    ),
    "blocks": (lambda network: sum(len(stage) for stage in network.stages), "expected 18"),
    "two for each block": (lambda network: 2 * sum(len(stage) for stage in network.stages) + 2, "with other convolutions exist"),
    "always 18": (lambda network: 18, "It gives 18 for every network"),
    "one less": (lambda network: len(layers(network)) - 1, "one too small"),
    "a list": (layers, "Return a whole number: how many there are"),
    "a float": (lambda network: float(len(layers(network))), "returns 18.0, a float"),
    "a string": (lambda network: str(len(layers(network))), "returns a str"),
    "nothing": (lambda network: None, "Its last line needs `return`"),
    "True": (lambda network: all(is_layer(m) for m in layers(network)), "It returns True".replace("It", "it")),
    "kept": (keeps_counting, "Is the count kept from call to call?"),
    "destroys": (destroys, "count, and change nothing"),
    "modules unpacked": (lambda network: sum("shortcut" not in n for n, m in network.modules()), "named_modules() gives pairs"),
    "fc": (lambda network: len(layers(network.conv1)) + len(network.fc), "goes through all layers of any network"),
    "no argument": (lambda: 18, "with the same names, order and defaults"),
    "network.shortcut": (lambda network: sum(is_layer(m) and not m.shortcut for m in network.modules()), "goes through all layers"),
}


# ---- a plain block as the identity ----------------------------------------------------------------------------------


def setting(kernel=nn.init.dirac_, weight=None, bias=None, layers=(1, 2)):
    """An answer that sets each half of the block in the same way. weight, bias: functions of (x, bn)."""
    weight = weight or (lambda x, bn: (x.var((0, 2, 3), unbiased=False) + bn.eps).sqrt())
    bias = bias or (lambda x, bn: x.mean((0, 2, 3)))

    @torch.no_grad()
    def answer(block, x):
        for number in layers:
            conv, bn = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
            kernel(conv.weight)
            bn.weight.copy_(torch.as_tensor(weight(x, bn)))
            bn.bias.copy_(torch.as_tensor(bias(x, bn)))

    return answer


IDENTITY = setting()


def and_then(function, first=IDENTITY):
    def answer(block, x):
        first(block, x)
        return function(block, x)

    return answer


def kernel_by_hand(kernel):
    kernel.zero_()
    for channel in range(len(kernel)):
        kernel[channel, channel, 1, 1] = 1


def all_channels(kernel):
    kernel.zero_()
    kernel[:, :, 1, 1] = 1


def corner(kernel):
    kernel.zero_()
    for channel in range(len(kernel)):
        kernel[channel, channel, 0, 0] = 1


@torch.no_grad()
def permuted(block, x):
    """The first half turns the order of the channels round, the second turns it back."""
    IDENTITY(block, x)
    for conv in (block.conv1, block.conv2):
        conv.weight.copy_(conv.weight.flip(0))
    for parameter in (block.bn1.weight, block.bn1.bias):
        parameter.copy_(parameter.flip(0))


@torch.no_grad()
def scaled(block, x):
    """The first kernels multiply by 100, and the first BN, which then hardly knows eps, makes up for it."""
    IDENTITY(block, x)
    block.conv1.weight.mul_(100)
    block.bn1.weight.copy_((1e4 * x.var((0, 2, 3), unbiased=False) + block.bn1.eps).sqrt() / 100)


@torch.no_grad()
def measured(block, x):
    """Runs the layers, and looks at what they give."""
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(conv.weight)
        y = conv(x)
        bn.weight.copy_(torch.sqrt(y.permute(1, 0, 2, 3).flatten(1).var(1, correction=0) + bn.eps))
        bn.bias.copy_(y.permute(1, 0, 2, 3).flatten(1).mean(1))


def through_data(block, x):
    block.conv1.weight.data = nn.init.dirac_(torch.empty_like(block.conv1.weight))
    block.conv2.weight.data = nn.init.dirac_(torch.empty_like(block.conv2.weight))
    for bn in (block.bn1, block.bn2):
        bn.weight.data[:] = ((x * x).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2 + bn.eps) ** 0.5
        bn.bias.data[:] = x.mean(dim=(0, 2, 3))


@torch.no_grad()
def by_state(block, x):
    deviation, mean = (x.var((0, 2, 3), unbiased=False) + 1e-5).sqrt(), x.mean((0, 2, 3))
    kernel = nn.init.dirac_(torch.empty_like(block.conv1.weight))
    new = {"conv1.weight": kernel, "conv2.weight": kernel}
    new |= {f"bn{n}.{key}": value for n in (1, 2) for key, value in (("weight", deviation), ("bias", mean))}
    block.load_state_dict(block.state_dict() | new)


def new_parameters(block, x):
    with torch.no_grad():
        for number in (1, 2):
            getattr(block, f"conv{number}").weight = nn.Parameter(nn.init.dirac_(torch.empty_like(block.conv1.weight)))
            bn = getattr(block, f"bn{number}")
            bn.weight = nn.Parameter((x.var((0, 2, 3), unbiased=False) + bn.eps).sqrt())
            bn.bias = nn.Parameter(x.mean((0, 2, 3)))


def forgotten(block, x):
    block.conv1.weight[:] = 0


def silent(block, x):
    for parameter in (block.bn2.weight, block.bn2.bias):
        nn.init.zeros_(parameter)


def in_evaluation(block, x):
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(conv.weight)
        bn.reset_running_stats()
        bn.reset_parameters()
    block.eval()


def another_block(block, x):
    block = models.PlainBlock(x.shape[1], x.shape[1])
    IDENTITY(block, x)
    return block


def class_replaced(block, x):
    type(block).forward = lambda self, x: x


def without_norms(block, x):
    block.bn1, block.bn2 = nn.Identity(), nn.Identity()


def x_changed(block, x):
    x.sub_(x.mean((0, 2, 3), keepdim=True))


RIGHT_IDENTITIES = {
    "dirac_": IDENTITY,
    "kernels by hand": setting(kernel_by_hand),
    "channels in another order inside": permuted,
    "scaled inside": scaled,
    "measured on the way": measured,
    "through .data": through_data,
    "load_state_dict": by_state,
    "new parameters": new_parameters,
    "returns the block": and_then(lambda block, x: block),
    "prints": and_then(print),
}
WRONG_IDENTITIES = {
    "nothing": (lambda block, x: None, "No number of the block that was handed over has changed"),
    "as for a residual block": (silent, "whose shortcut still adds x"),
    "kernels alone": (lambda block, x: [nn.init.dirac_(c.weight) for c in (block.conv1, block.conv2)], "`bn1.weight`"),
    "the numbers of a new BN": (setting(weight=lambda x, bn: 1.0, bias=lambda x, bn: 0.0), "still has a spread of 1"),
    "β forgotten": (setting(bias=lambda x, bn: 0.0), "so the batch's mean is lost"),
    "γ = 1": (setting(weight=lambda x, bn: 1.0), "`bn1.weight` is 1"),
    "the variance": (setting(weight=lambda x, bn: x.var((0, 2, 3), unbiased=False)), "is the variance"),
    "1 / the spread": (setting(weight=lambda x, bn: 1 / (x.var((0, 2, 3), unbiased=False) + bn.eps).sqrt()), "not 1 over it"),
    "n − 1": (setting(weight=lambda x, bn: (x.var((0, 2, 3)) + bn.eps).sqrt()), "unbiased=False"),
    "no eps": (setting(weight=lambda x, bn: x.var((0, 2, 3), unbiased=False).sqrt()), "leaves eps out"),
    "one γ for all": (setting(weight=lambda x, bn: x.std(unbiased=False)), "`bn1.weight` is the same for all channels"),
    "one β for all": (setting(bias=lambda x, bn: x.mean()), "`bn1.bias` is the same for all channels"),
    "β has the wrong sign": (setting(bias=lambda x, bn: -x.mean((0, 2, 3))), "is not the mean that BN has subtracted"),
    "the first half alone": (setting(layers=(1,)), "`conv2.weight` doesn't hand its input on"),
    "the second half alone": (setting(layers=(2,)), "`conv1.weight` doesn't hand its input on"),
    "all channels summed": (setting(all_channels), "mixes channels"),
    "the corner": (setting(corner), "doesn't hand its input on"),
    "kernels of ones": (setting(nn.init.ones_), "doesn't hand its input on"),
    "running statistics": (setting(weight=lambda x, bn: (bn.running_var + bn.eps).sqrt(), bias=lambda x, bn: bn.running_mean),
                           "is not what undoes BN's division"),
    "for evaluation": (in_evaluation, "in another mode than before"),
    "no_grad forgotten": (forgotten, "where no gradient is recorded"),
    "another block": (another_block, "returning another one changes nothing"),
    "forward replaced": (lambda block, x: setattr(block, "forward", lambda x: x), "replace no method"),
    "forward of the class replaced": (class_replaced, "the method of the class PlainBlock itself is replaced"),
    "a hook": (lambda block, x: block.register_forward_hook(lambda module, args, out: args[0]), "has a hook now"),
    "BNs taken out": (without_norms, "is a Identity now"),
    "x changed": (and_then(x_changed), "x itself has been changed"),
    "a shortcut": (lambda block, x: block.shortcut(x), "A plain block has no shortcut"),
    "a BN's weight as a kernel": (lambda block, x: nn.init.dirac_(block.bn1.weight), "is for a kernel"),
    "a plain tensor": (lambda block, x: setattr(block.bn1, "weight", x.mean((0, 2, 3))), "A parameter is replaced by something else"),
}  # fmt: skip

EXERCISES = {
    checks.plain_block: (RIGHT_BLOCKS, WRONG_BLOCKS),
    checks.paper_depth: (RIGHT_DEPTHS, WRONG_DEPTHS),
    checks.plain_identity: (RIGHT_IDENTITIES, WRONG_IDENTITIES),
}
