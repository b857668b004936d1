"""Checks of notebook 06: the plain block, how papers count layers, and a plain block that hands its input on."""

import itertools
import operator

import torch
from torch import nn

from .. import blocks, models
from . import guard
from .compare import Case, network
from .framework import exercise
from .guard import Failed
from .variations import CUT, OTHER_ACTIVATIONS, combine, other, relu, same

SHORTCUT = "Leave out the shortcut: a plain block returns ReLU(F(x)), and nothing is added to it."


def _plain(r, x, middle=relu, end=relu, norms=("bn1", "bn2")):
    first, second = (getattr(r, name) for name in norms)
    return end(second(r.conv2(middle(first(r.conv1(x))))))


def _plain_mistakes():
    middle = [
        (None, relu),
        ("The ReLU between the convolutions is missing.", same),
        *other(OTHER_ACTIVATIONS, "Between the convolutions"),
    ]
    ends = [
        (None, lambda y, x: relu(y)),
        ("The last ReLU is missing: without an addition, it follows the second BN.", lambda y, x: y),
        (SHORTCUT, lambda y, x: relu(y + x)),
        (SHORTCUT, lambda y, x: relu(y) + x),
        (SHORTCUT, lambda y, x: y + x),
        (SHORTCUT, lambda y, x: relu(relu(y) + x)),
        ("The block's input is multiplied with the result: leave it out.", lambda y, x: relu(y * x)),
        *[
            (f"At the end stands {name}: the block ends with a ReLU.", lambda y, x, act=act: act(y))
            for name, act in OTHER_ACTIVATIONS.items()
        ],
    ]
    yield from combine([middle, ends], lambda act, end: lambda r, x: end(_plain(r, x, act, same), x))
    ahead = "The ReLU stands before the {} BN: the order is convolution, BN, ReLU."
    first, second = (lambda r, x: r.bn1(relu(r.conv1(x)))), (lambda r, x: r.bn2(relu(r.conv2(x))))
    yield ahead.format("first"), lambda r, x: relu(r.bn2(r.conv2(first(r, x))))
    yield ahead.format("second"), lambda r, x: second(r, relu(r.bn1(r.conv1(x))))
    both = "The ReLUs stand before the BNs: the order is convolution, BN, ReLU."
    yield both, lambda r, x: second(r, first(r, x))
    yield both, lambda r, x: relu(second(r, first(r, x)))
    yield (
        "BN and ReLU stand before the convolutions: that is pre-activation. Here each BN follows its convolution.",
        lambda r, x: r.conv2(relu(r.bn2(r.conv1(relu(r.bn1(x)))))),
    )
    yield "The ReLU works on x before the block: the first convolution reads x itself.", lambda r, x: _plain(r, relu(x))
    yield "The ReLU works on x before the block, and the last one is missing.", lambda r, x: _plain(r, relu(x), end=same)
    yield (
        "The second convolution reads x: it must read what the first BN and ReLU give.",
        lambda r, x: relu(r.bn2(r.conv2(x))),
    )
    yield "The block gives back x: its layers' result is dropped.", lambda r, x: x
    yield "The two BNs follow each other: one stands after each convolution.", lambda r, x: relu(r.bn2(r.bn1(r.conv2(relu(r.conv1(x))))))
    yield f"The block's input {CUT}: nothing before this block would learn.", lambda r, x: _plain(r, x.detach())
    yield (
        f"What the first half of the block gives {CUT}.",
        lambda r, x: relu(r.bn2(r.conv2(relu(r.bn1(r.conv1(x))).detach()))),
    )
    yield f"The block's output {CUT}.", lambda r, x: _plain(r, x).detach()


def _plain_cases():
    for arguments, keywords, *shapes in (
        ((8, 8), {}, (2, 8, 6, 5)),
        ((6, 10), {"stride": 2}, (2, 6, 6, 5), (1, 6, 8, 8)),
        ((8, 8), {"stride": 2}, (3, 8, 9, 7)),
        ((5, 7), {}, (2, 5, 5, 9), (1, 5, 2, 3)),
        ((12, 8), {"stride": 1}, (2, 12, 4, 5)),
        ((4, 6), {"stride": 3}, (2, 4, 10, 8), (1, 4, 7, 12)),
        ((3, 16, 2), {}, (2, 3, 8, 6), (1, 3, 32, 32)),
        ((16, 16), {}, (2, 16, 4, 7)),
    ):
        yield Case("PlainBlock", arguments, keywords, [lambda a=arguments, k=keywords: blocks.PlainBlock(*a, **k)], shapes)


def _plain_extra(step):
    if step.kind == "conv" and step.weight.shape[2:] == (1, 1):
        return "A plain block has no shortcut, and so no projection: leave it out."
    return "A plain block has two 3×3 convolutions, and one BN after each."


@exercise(
    "6.1",
    "PlainBlock",
    finished=lambda: blocks.PlainBlock,
    causes=[
        (
            r"Kernel size can't be greater than",
            "The image has become smaller than the kernel: a 3×3 convolution needs padding=1 to keep its size, and the stride stands once.",
        ),
        (r"running_mean should contain", "A BN stands after its convolution here, and has as many channels as that gives: `channels`."),
    ],
    ladder=[
        "It is notebook 02's ResidualBlock without everything that belongs to the shortcut: no self.shortcut, no addition.",
        "forward:\n  x = F.relu(self.bn1(self.conv1(x)))\n  return F.relu(self.bn2(self.conv2(x)))",
    ],
)
def plain_block(answer):
    """cls(in_channels, channels, stride=1): conv 3×3, BN, ReLU, conv 3×3, BN, ReLU, and no shortcut."""
    claims = {
        "runs": "it is built and called without an error, for eight choices of channels and strides",
        "shape": "(N, in_channels, H, W) becomes (N, channels, H / stride, W / stride), rounded up",
        "layers": "two 3×3 convolutions without bias, and two BNs: 4,672 parameters for 16 → 16",
        "order": "the output is ReLU(BN(conv(ReLU(BN(conv(x))))))",
    }
    advice = {
        "added": SHORTCUT,
        "kernel": "Both convolutions are 3×3.",
        "stride": "The first convolution has the block's stride; the second has stride 1.",
        "extra": _plain_extra,
        "missing": lambda step: "A plain block has two 3×3 convolutions, and one BN after each.",
    }
    yield from network(answer, list(_plain_cases()), claims, list(_plain_mistakes()), advice)


# ---- the depth that papers name -------------------------------------------------------------------------------------


class Net(nn.Module):
    """A network of our own: stem, stages, head, as models.ResNet has them."""

    def __init__(self, stem, stages, head):
        super().__init__()
        self.stem, self.head = nn.Sequential(*stem), nn.Sequential(*head)
        self.stages = nn.Sequential(*(nn.Sequential(block) if isinstance(block, Block) else block for block in stages))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


class Block(nn.Module):
    """A residual block with convolutions of these kernels, and the shortcut's convolutions under a name of our choice."""

    def __init__(self, in_channels, channels, kernels, name=None, projections=(1,), nested=False):
        super().__init__()
        widths = [in_channels, *[channels] * len(kernels)]
        layers = []
        for number, kernel in enumerate(kernels):
            layers += [nn.Conv2d(widths[number], channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.main = nn.Sequential(nn.Sequential(*layers)) if nested else nn.Sequential(*layers)
        self.side = name
        if name:
            inside = [
                nn.Conv2d(in_channels if n == 0 else channels, channels, kernel, padding=kernel // 2)
                for n, kernel in enumerate(projections)
            ]
            single = len(inside) == 1 and not name.startswith("shortcut_")
            setattr(self, name, inside[0] if single else nn.Sequential(*inside, nn.BatchNorm2d(channels)))

    def forward(self, x):
        return self.main(x) + (getattr(self, self.side)(x) if self.side else x)


def _stem(channels, kernel=3, bias=False):
    return [nn.Conv2d(3, channels, kernel, padding=kernel // 2, bias=bias), nn.BatchNorm2d(channels), nn.ReLU()]


def _head(*widths):
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for number, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.ReLU()] * (number > 0) + [nn.Linear(a, b)]
    return layers


def _networks():
    """{name: (network, depth)}: first those that the notebook names, narrow; then others, with what they are for."""
    narrow = {"widths": (4, 8, 12, 16), "num_classes": 10}
    return {
        "ResNet-18": (models.ResNet(models.BasicBlock, models.TABLE_1[18], **narrow), 18),
        "a ResNet-20 for CIFAR": (models.ResNet(models.BasicBlock, (3, 3, 3), 3, 10, "cifar", (4, 8, 16)), 20),
        "a plain network of 56 layers": (models.ResNet(models.PlainBlock, (9, 9, 9), 3, 10, "cifar", (4, 8, 16)), 56),
        "a pre-activated ResNet-50": (models.ResNet(models.PreActBottleneck, models.TABLE_1[50], **narrow), 50),
        "ResNet-25": (models.ResNet(models.ResidualBlock, (6, 6, 12), 3, 10, "7x7", (4, 8, 12)), 50),
        "a network with three linear layers at its end": (
            Net(_stem(4), [Block(4, 4, (3, 3)), Block(4, 6, (3, 3), "shortcut")], _head(6, 8, 8, 10)),
            8,
        ),
        "a network whose last layer is a convolution": (
            Net(_stem(4, 7), [Block(4, 6, (1, 3, 1), "shortcut")], [nn.Conv2d(6, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]),
            5,
        ),
        "a network whose projections are called shortcut_projection": (
            Net(_stem(4), [Block(4, 6, (3, 3), "shortcut_projection"), Block(6, 8, (3, 1, 5), "shortcut_projection")], _head(8, 10)),
            7,
        ),
        "a network whose projections are called conv_shortcut": (
            Net(_stem(4), [nn.Sequential(Block(4, 6, (3, 3), "conv_shortcut", nested=True), Block(6, 6, (3, 3)))], _head(6, 10)),
            6,
        ),
        "a network with 3×3 convolutions in its shortcuts": (
            Net(
                _stem(4, 5, bias=True),
                [Block(4, 6, (3, 3, 3), "shortcut", (3,)), Block(6, 8, (1, 1), "shortcut", (1, 3))],
                _head(8, 8, 10),
            ),
            8,
        ),
        "a network inside a network": (
            Net([Net(_stem(4), [Block(4, 4, (1, 3, 1))], [])], [Block(4, 6, (3,), "shortcut")], [nn.Sequential(*_head(6, 10))]),
            6,
        ),
    }  # fmt: skip


def _layer(m):
    return isinstance(m, (nn.Conv2d, nn.Linear))


def _main(name):
    return "shortcut" not in name


LINEAR = "The linear layers count, too."
SEVERAL = "Count the linear layers that are there: a network may have several of them, or none."
SHORTCUTS = "The convolutions of the shortcuts don't count: leave out every name that contains `shortcut`."
NORMS = "Batch norms don't count: only convolutions and linear layers do."
ONES = "A 1×1 convolution on the main path counts, too: it is the name that tells a shortcut, not the kernel."
KERNELS = "Convolutions with other kernels than 3×3 count, too: 1×1 on the main path, 7×7 in a stem."
WHOLE = "A shortcut's name contains `shortcut` somewhere, as in `stages.0.0.conv_shortcut` or `shortcut_projection.0`."
OWN = "Networks differ in their parts and names: network.named_modules() goes through all layers of any network."
NESTED = "Only the layers on the outside are looked at: children() doesn't look into blocks. named_modules() does."
ALL = "Modules that are no layers count there, such as ReLUs or nn.Sequential: count nn.Conv2d and nn.Linear alone."
TENSORS = "The parameters' tensors are counted: those of a BN, and biases, are no layers. Count modules."
NAMES = {  # which names are left out
    None: _main,
    SHORTCUTS: lambda name: True,
    "Here a shortcut's name contains `shortcut`; other names belong to other libraries.": lambda name: "downsample" not in name,
    WHOLE: lambda name: "shortcut" not in name.split("."),
}
for part in (".shortcut.", "shortcut.", ".shortcut", "shortcut.0"):
    NAMES[f"{WHOLE} Not every such name contains `{part}`."] = lambda name, part=part: part not in name
NAMES[f"{WHOLE} It need not end with it."] = lambda name: not name.endswith("shortcut")
NAMES[f"{WHOLE} It need not end with it, or with `shortcut.0`."] = lambda name: not name.endswith(("shortcut", "shortcut.0"))
NAMES[f"{WHOLE} It need not begin with it."] = lambda name: not name.startswith("shortcut")
CONVS = {  # which convolutions count
    None: lambda m: True,
    ONES: lambda m: m.kernel_size != (1, 1),
    KERNELS: lambda m: m.kernel_size == (3, 3),
    KERNELS + " ": lambda m: m.kernel_size in ((1, 1), (3, 3)),
    "A projection need not have a stride, it is its name that tells it.": lambda m: m.kernel_size != (1, 1) or m.stride == (1, 1),
    ONES + "  ": lambda m: m.kernel_size != (1, 1) or m.in_channels == m.out_channels,
    "Convolutions without a bias count, too.": lambda m: m.bias is not None,
    "Convolutions with a bias count, too.": lambda m: m.bias is None,
    "The convolutions count, too.": lambda m: False,
}
LINEARS = {None: len, LINEAR: lambda linear: 0, SEVERAL: lambda linear: 1, "Two layers are added: " + SEVERAL: lambda linear: 2}


def _counts():
    """(hint, function): what may be counted instead, those with one mistake first."""
    choices = list(itertools.product(NAMES.items(), CONVS.items(), LINEARS.items()))
    for (a, name_counts), (b, counts), (c, linears) in sorted(choices, key=lambda c: sum(part[0] is not None for part in c)):
        hints = [hint.strip() for hint in (a, b, c) if hint]
        if hints:
            yield (
                " ".join(hints),
                lambda net, named=name_counts, counts=counts, linears=linears: (
                    sum(named(name) and counts(m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d))
                    + linears([m for m in net.modules() if isinstance(m, nn.Linear)])
                ),
            )
    for shortcuts, named in ((None, _main), (SHORTCUTS, lambda name: True)):
        for hint, keep in (
            (NORMS, lambda m: isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))),
            (f"{NORMS} {LINEAR}", lambda m: isinstance(m, (nn.Conv2d, nn.BatchNorm2d))),
            (ALL, lambda m: isinstance(m, (nn.Conv2d, nn.Linear, nn.ReLU))),
            (ALL, lambda m: isinstance(m, (nn.Conv2d, nn.Linear, nn.ReLU, nn.BatchNorm2d))),
            (f"{ALL} Batch norms are none, either.", lambda m: not list(m.children())),
            (f"{ALL} Batch norms are none, either.", lambda m: bool(list(m.parameters(recurse=False)))),
            (ALL, lambda m: True),
        ):
            text = f"{hint} {shortcuts}" if shortcuts else hint
            yield text, lambda net, named=named, keep=keep: sum(named(name) and keep(m) for name, m in net.named_modules())
        text = f"{TENSORS} {shortcuts}" if shortcuts else TENSORS
        yield text, lambda net, named=named: sum(named(name) for name, _ in net.named_parameters())
        yield text, lambda net, named=named: sum(named(name) and "weight" in name for name, _ in net.named_parameters())
        yield text, lambda net, named=named: sum(named(name) and "bias" in name for name, _ in net.named_parameters())
        yield text, lambda net, named=named: sum(named(name) for name in net.state_dict())
    yield "Numbers are counted, and not layers: count modules.", lambda net: sum(p.numel() for p in net.parameters())
    yield NESTED, lambda net: sum(_layer(m) for m in net.children())
    yield NESTED, lambda net: len(list(net.children()))
    yield (
        "The shortcuts are counted: it is them that don't count.",
        lambda net: sum(_layer(m) and not _main(n) for n, m in net.named_modules()),
    )
    for hint, part in (("stem and head", "stages"), ("stem and stages", "head"), ("stages and head", "stem")):
        yield f"Only the {part} is looked at: {hint} have layers, too.", lambda net, part=part: counted(getattr(net, part))
    yield "The linear layers count, and so does the stem.", lambda net: counted(net.stages)
    yield "The number is one too small: every layer counts, the first and the last one, too.", lambda net: counted(net) - 1
    yield "The number is one too large: nothing is added to that of the layers.", lambda net: counted(net) + 1
    yield "Blocks are counted: each has several layers.", lambda net: sum(len(stage) for stage in net.stages)
    yield "Blocks are counted as two layers each: those with other convolutions exist, too.", lambda net: 2 * sum(map(len, net.stages)) + 2


def _description(net):
    on_main = [m for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and _main(name)]
    aside = sum(isinstance(m, nn.Conv2d) and not _main(name) for name, m in net.named_modules())
    linear = sum(isinstance(m, nn.Linear) for m in net.modules())
    return f"{len(on_main)} convolutions on the main path, {linear} linear layer{'s' * (linear != 1)}, {aside} convolutions in shortcuts"


def _number(found):
    """found as an int, or None if it is no whole number."""
    try:
        return None if isinstance(found, bool) else operator.index(found)
    except TypeError:
        return None


def _snapshot(net):
    parts = [(name, type(m), m.training, sorted(vars(m))) for name, m in net.named_modules()]
    return parts, {name: p.clone() for name, p in net.state_dict().items()}


@exercise(
    "6.2",
    "paper_depth",
    finished=lambda: counted,
    causes=[
        (r"has no attribute '(fc|stem|stages|head|layer\d|conv1|shortcut|features|blocks?)'", OWN),
        (r"too many values to unpack|cannot unpack|not enough values to unpack|object is not subscriptable",
         "named_modules() gives pairs: for name, module in network.named_modules()."),
    ],
    ladder=[
        "for name, module in network.named_modules(): goes through all layers, at any depth, with names like `stages.1.0.shortcut.0`.",
        'Two conditions for a layer that counts: isinstance(module, (nn.Conv2d, nn.Linear)), and "shortcut" not in name.',
    ],
)  # fmt: skip
def paper_depth(answer):
    """function(network): convolutions on the main path plus linear layers; no shortcuts (He et al. 2015, Table 1)."""
    networks = _networks()
    known, others = list(networks)[:5], list(networks)[5:]
    claims = "it returns a whole number", "it is right for five networks of the notebooks", f"it is right for {len(others)} others"
    stays = "the network stays as it is, and a second call gives the same number"
    found, failure, values, changed, repeated = {}, None, [], None, None
    for name, (net, _) in networks.items():
        before = _snapshot(net)
        try:
            value = answer.run(answer.thing, net, doing=f"paper_depth({name})")
            again = answer.run(answer.thing, net, doing=f"paper_depth({name}), for the second time")
        except Failed as failed:
            if not found or name in known or failed.error is None:
                raise
            failure = failed
            break
        after = _snapshot(net)
        found[name], values = _number(value), [*values, value]
        if before[0] != after[0] or any(not torch.equal(p, after[1][key]) for key, p in before[1].items()):
            changed = changed or name
        elif found[name] is not None and _number(again) != found[name]:
            repeated = repeated or name
    kinds = [value for value in values if _number(value) is None]
    yield claims[0], not kinds, _kind(kinds[0]) if kinds else ""
    wrong = [name for name in found if found[name] != networks[name][1]]
    blame = "" if kinds or not wrong else _miscounted(wrong[0], found, networks)
    if repeated and not kinds:
        blame = f"Found: for {repeated}, a second call gives another number.\n"
        blame += "Is the count kept from call to call? Begin with 0 inside the function."
    first = bool(set(wrong) & set(known))
    yield claims[1], None if kinds else not first, blame if first else ""
    good = not set(wrong) & set(others) and not failure
    yield claims[2], None if kinds or first else good, failure.hints if failure else "" if good else blame
    hint = f"Found: after the call, {changed} has other modules, modes or numbers.\nOnly look at the network: count, and change nothing."
    yield stays, not (changed or repeated), hint if changed else blame


def _kind(value):
    if value is None:
        return "Found: it returns None.\nIts last line needs `return`."
    if isinstance(value, float):
        return f"Found: it returns {value}, a float.\nReturn a whole number: sum(…) or len(…) of the layers is one."
    if isinstance(value, bool):
        return f"Found: it returns {value}.\nReturn the number of layers: isinstance(…) tells only whether one module is such a layer."
    if isinstance(value, (list, tuple, set, dict)):
        return f"Found: it returns a {type(value).__name__} with {len(value)} entries.\nReturn a whole number: how many there are."
    return f"Found: it returns a {type(value).__name__}.\nReturn a whole number."


def _miscounted(name, found, networks):
    net, depth = networks[name]
    text = f"Found: {found[name]:,} for {name}; expected {depth}: {_description(net)}.\n"
    if set(found.values()) == {0}:
        return (
            f"{text}It gives 0 for every network: no module that it looks at passes the conditions. children() gives the outermost parts "
            "alone; named_modules() goes through all."
        )
    if len(set(found.values())) == 1:
        return f"{text}It gives {found[name]:,} for every network: count the layers of the network that is handed over."
    for hint, function in _counts():
        if all(_attempted(function, networks[other][0]) == number for other, number in found.items()):
            return text + hint
    rule = "Count what network.named_modules() gives: every nn.Conv2d and nn.Linear whose name doesn't contain `shortcut`."
    right = [other for other, number in found.items() if number == networks[other][1]]
    if right:
        return f"{text}It is right for {len(right)} networks of {len(found)} ({', '.join(right[:2])}, …). {rule}"
    return text + rule


def _attempted(function, net):
    try:
        return function(net)
    except (AttributeError, TypeError):
        return None


def counted(network):
    """Number of convolutions and linear layers, without those of shortcuts."""
    return sum(isinstance(m, (nn.Conv2d, nn.Linear)) and "shortcut" not in name for name, m in network.named_modules())


# ---- a plain block as the identity ----------------------------------------------------------------------------------

KERNEL = (
    "A kernel hands its channel on if it is 1 in its middle, for the channel itself, and 0 everywhere else: nn.init.dirac_(kernel) does it."
)
UNDO = "In training, a BN subtracts the batch's mean and divides by √(variance + eps). Its weight and its bias must undo that, in each channel."
SIZE = "The weight must be √(variance + eps) of what the BN reads, "
EACH = ", a number for each channel, over all images and pixels: x.mean((0, 2, 3))."


def identity_for(block, x):
    """The project's own answer."""
    with torch.no_grad():
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            nn.init.dirac_(conv.weight)
            norm.weight.copy_((x.var((0, 2, 3), unbiased=False) + norm.eps).sqrt())
            norm.bias.copy_(x.mean((0, 2, 3)))


def _batches():
    """(what it is, channels, a block with other numbers than a new one, a batch of images without negative numbers)"""
    for name, channels, size in (
        ("a block with 16 channels", 16, (4, 6, 5)),
        ("a block with 5 channels", 5, (2, 3, 4)),
        ("a block with 24 channels", 24, (3, 7, 6)),
        ("a block with 1 channel", 1, (5, 4, 4)),
    ):
        block, (images, height, width) = models.PlainBlock(channels, channels), size
        for norm in (block.bn1, block.bn2):
            for key in ("weight", "bias", "running_mean", "running_var"):
                nn.init.uniform_(getattr(norm, key), 0.5, 1.5)
        spread = torch.tensor([1.0, 3.0, 0.01, 0.3]).repeat(6)[:channels, None, None]  # 0.01: there, eps is no trifle
        x = spread * torch.rand(images, channels, height, width) + spread * torch.rand(channels, 1, 1)
        x[torch.rand(x.shape) < 0.2] = 0
        x[:, 4:5] = 2.0  # a channel that is the same everywhere
        yield name, channels, block, x


def _near(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def _why(block, x, out):
    """Why out isn't x, as far as the block's numbers tell."""
    if not out.isfinite().all():
        return (
            "There are numbers that are not finite in it. Is something divided by a spread of 0? One channel of x is the same everywhere."
        )
    if not out.any():
        return "Everything is 0: that makes an identity of a residual block, whose shortcut still adds x. A plain block has only this one path."
    for number in (1, 2):
        weight, name = getattr(block, f"conv{number}").weight, f"`conv{number}.weight`"
        ideal = nn.init.dirac_(torch.empty_like(weight))
        if not torch.equal(weight, ideal):
            if torch.equal(weight.amax((0, 1)), ideal.amax((0, 1))) and not weight[:, :, [0, 0, 2, 2], [0, 2, 0, 2]].any():
                return f"{name} mixes channels: each must read its own alone. {KERNEL}"
            return f"{name} doesn't hand its input on. {KERNEL}"
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    for name, norm in (("bn1", block.bn1), ("bn2", block.bn2)):
        weight, bias = norm.weight, norm.bias
        right, n = (variance + norm.eps).sqrt(), x.numel() // len(mean)
        found = [
            (_near(weight, torch.ones_like(weight)), f"is 1, so what comes out still has a spread of 1. {UNDO}"),
            (_near(weight, variance) or _near(weight, variance + norm.eps), f"is the variance. {SIZE}the root of it."),
            (_near(weight, 1 / right), f"is 1 / √(variance + eps): BN divides by that root, so the weight must multiply. {SIZE}not 1 over it."),
            (_near(weight, (variance * n / (n - 1) + norm.eps).sqrt()) or _near(weight, (variance * n / (n - 1)).sqrt()),
             f"has the variance over n − 1. {SIZE}and BN divides by n: x.var(…, unbiased=False)."),
            (_near(weight, variance.sqrt()), f"leaves eps out, which counts in channels of little spread. {SIZE}with block.{name}.eps."),
            (len(weight) > 1 and bool((weight - weight[0]).abs().max() < 1e-6), f"is the same for all channels. {SIZE.rstrip(', ')}{EACH}"),
            (not _near(weight, right), f"is not what undoes BN's division. {UNDO}"),
        ]  # fmt: skip
        for holds, text in found:
            if holds and not _near(weight, right):
                return f"`{name}.weight` {text}"
        if not _near(bias, mean):
            if not bias.any():
                return f"`{name}.bias` is 0, so the batch's mean is lost: it must be added again. {UNDO}"
            if len(bias) > 1 and (bias - bias[0]).abs().max() < 1e-6:
                return f"`{name}.bias` is the same for all channels. It must be the mean of what the BN reads{EACH}"
            return f"`{name}.bias` is not the mean that BN has subtracted. {UNDO}"
    return UNDO


@exercise(
    "6.3",
    "plain_identity",
    finished=lambda: identity_for,
    causes=[
        (r"a (view of a )?leaf Variable that requires grad",
         "A parameter may only be changed where no gradient is recorded: put `with torch.no_grad():` around it."),
        (r"cannot assign .* as parameter", "A parameter is replaced by something else: set its numbers, with .copy_(…)."),
        (r"Only tensors with 3, 4, or 5 dimensions|dimensions \(3, 4, or 5\)", "nn.init.dirac_ is for a kernel: block.conv1.weight."),
        (r"has no attribute 'shortcut'", "A plain block has no shortcut: conv1, bn1, conv2 and bn2 are all that there is."),
    ],
    ladder=[
        KERNEL,
        UNDO + " What the second convolution reads is x again, if the first half is right: so the second half needs the same numbers.",
        "with torch.no_grad():\n  for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):\n    nn.init.dirac_(conv.weight)\n"
        "    bn.weight.copy_((x.var((0, 2, 3), unbiased=False) + bn.eps).sqrt())\n    bn.bias.copy_(x.mean((0, 2, 3)))",
    ],
)  # fmt: skip
def plain_identity(answer):
    """function(block, x): set the numbers of a plain block so that, in training, it hands on this batch, which is not negative."""
    claims = {
        "runs": "it runs with four blocks, of 16, 5, 24 and 1 channels",
        "parts": "only numbers of the block are set: layers, methods, settings, modes and x stay as they are",
        "same": "in training, block(x) is x, but for rounding errors",
    }
    hints, forward = {}, models.PlainBlock.forward
    try:
        for name, _, block, x in _batches():
            before, given, numbers = guard.parts(block), x.clone(), [p.clone() for p in block.parameters()]
            result = answer.run(answer.thing, block, x, doing=f"plain_identity(block, x) with {name}")
            if models.PlainBlock.forward is not forward:
                hints["parts"] = "Found: the method of the class PlainBlock itself is replaced.\nOnly set numbers in the block."
            elif changed := guard.changed(before, guard.parts(block)):
                hints["parts"] = changed
            elif not torch.equal(x, given):
                hints["parts"] = "Found: x itself has been changed.\nOnly look at it: the block must hand on the x that it is given."
            if hints:
                break
            with torch.no_grad():
                out = answer.run(block, x.clone(), doing=f"{name} in training, after plain_identity(block, x)")
            off = (out - given).abs().amax((0, 2, 3)) / (1e-3 + given.amax((0, 2, 3)))
            if not off.max() < 1e-3:  # NaN, too
                untouched = all(torch.equal(a, b) for a, b in zip(numbers, block.parameters(), strict=True))
                why = _why(block, given, out)
                if untouched:
                    other_block = isinstance(result, nn.Module) and result is not block
                    why = "No number of the block that was handed over has changed: it is that block that must change" + (
                        ", and returning another one changes nothing." if other_block else "."
                    )
                hints["same"] = f"Found: {name}: a difference of up to {(out - given).abs().max().item():.2g}.\n{why}"
                break
    except Failed as failed:
        yield claims["runs"], False, failed.hints
        yield claims["parts"], None, ""
        yield claims["same"], None, ""
        return
    finally:
        models.PlainBlock.forward = forward
    yield claims["runs"], True, ""
    yield claims["parts"], "parts" not in hints, hints.get("parts", "")
    yield claims["same"], None if "parts" in hints else "same" not in hints, hints.get("same", "")
