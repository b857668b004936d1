"""Checks of notebook 08: the Inception block, the block of ResNeXt, and the identity."""

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import nn

from .. import models
from . import blocks
from .framework import count_parameters, exercise, inputs

PATHS = "All four paths keep height and width: padding=1 for a 3×3 kernel (and for the pooling, with stride=1), padding=2 for a 5×5."


@exercise("8.1", "InceptionBlock", raw=True, causes=[("", PATHS + " They are joined by torch.cat(…, dim=1).")])
def inception_block(cls):
    """cls(in_channels, one, three, five, pool): four paths, each convolution with BN and ReLU, joined along the channels."""
    one, three, five, pool = 8, (6, 12), (2, 4), 3
    block, x = blocks.disturb(cls(16, one, three, five, pool)).eval(), torch.randn(2, 16, 8, 8)
    out, seen = inputs(block, (nn.Conv2d, nn.BatchNorm2d), x.clone())
    yield (
        "16 channels become 8 + 12 + 4 + 3 = 27, (2, 16, 8, 8) becomes (2, 27, 8, 8)",
        tuple(out.shape) == (2, 27, 8, 8),
        (f"Found {tuple(out.shape)}.\n{PATHS}"),
    )
    convs = [(m, given) for m, given in seen if isinstance(m, nn.Conv2d)]
    found = sorted((m.kernel_size[0], m.in_channels, m.out_channels) for m, _ in convs)
    expected = [(1, 16, 2), (1, 16, 3), (1, 16, 6), (1, 16, 8), (3, 6, 12), (5, 2, 4)]
    yield (
        f"six convolutions (kernel, in, out): {expected}",
        found == expected,
        (f"Found {found}.\nThe 1×1 convolutions in front of the 3×3 and of the 5×5 reduce the channels to three[0] and five[0]."),
    )
    biased = any(m.bias is not None for m, _ in convs)
    yield "no convolution has a bias", not biased, "Set bias=False: the BN behind a convolution subtracts any bias again."
    norms = [(m, given) for m, given in seen if isinstance(m, nn.BatchNorm2d)]
    yield "a BN behind each convolution", len(norms) == 6, f"Found {len(norms)}.\nSix convolutions, six BNs."
    if found != expected or biased or len(norms) != 6 or out.shape[1:] != (27, 8, 8):
        return

    with torch.no_grad():
        behind = {m.out_channels: next((n for n, at in norms if blocks.same(at, m(given))), None) for m, given in convs}
        by_width = {m.out_channels: m for m, _ in convs}
    yield (
        "each BN reads what a convolution gives",
        None not in behind.values(),
        "A BN stands elsewhere: put it right behind its convolution.",
    )
    if None in behind.values():
        return

    @torch.no_grad()
    def path(given, *widths, last=torch.relu):
        for width in widths:
            given = behind[width](by_width[width](given))
            given = last(given) if width == widths[-1] else torch.relu(given)
        return given

    def parts(pooled, last=torch.relu):
        return [path(x, one, last=last), path(x, *three, last=last), path(x, *five, last=last), path(pooled, pool, last=last)]

    right = parts(F.max_pool2d(x, 3, 1, 1))
    hint = "The layers are there, but a path joins them in another order: 1×1, then 3×3 or 5×5; pooling, then 1×1; BN and ReLU behind each."
    for others in permutations(right):
        if blocks.same(out, torch.cat(others, 1)):
            hint = "The paths are joined in another order: 1×1, 3×3, 5×5, pooling."
    for pooled, last, wrong in (
        (F.max_pool2d(x, 3, 1, 1), nn.Identity(), "The last ReLU of the paths is missing: one follows each convolution."),
        (F.avg_pool2d(x, 3, 1, 1), torch.relu, "Found the mean of 3×3 pixels.\nThe fourth path takes their maximum: nn.MaxPool2d."),
        (x, torch.relu, "The fourth path does not pool."),
    ):
        if blocks.same(out, torch.cat(parts(pooled, last), 1)):
            hint = wrong
    yield "the output is that of the four paths, 1×1, 3×3, 5×5 and pooling, joined", blocks.same(out, torch.cat(right, 1)), hint
    number = count_parameters(cls(192, 64, (96, 128), (16, 32), 32))
    yield "the first block of GoogLeNet, (192, 64, (96, 128), (16, 32), 32): 164,064 parameters", number == 164_064, f"Found {number:,}."


@exercise("8.2", "ResNeXtBlock", raw=True, causes=[("", blocks.BOTH_PATHS)])
def resnext_block(cls):
    """cls(in_channels, inside, out_channels, groups, stride=1): a bottleneck whose 3×3 convolution works on groups of channels."""
    groups = 4
    seen = inputs(cls(32, 16, 32, groups), nn.Conv2d, torch.randn(2, 32, 8, 8))[1]
    found = [m.groups for m, _ in seen]
    yield (
        "the 3×3 convolution has the groups, the 1×1 convolutions have one",
        found == [1, groups, 1],
        (f"Found groups {found}.\nUse nn.Conv2d(inside, inside, 3, …, groups=groups) for the second convolution, and groups for no other."),
    )
    if found != [1, groups, 1]:
        return

    def block(in_channels, inside, stride):
        return cls(in_channels, inside, 2 * inside, groups, stride)

    cases = [(32, 16, 1, [1_728]), (16, 16, 1, [2_048]), (32, 16, 2, [2_816]), (64, 64, 2, [30_464])]
    yield from blocks.in_short("ResNeXtBlock", block, cases, kernels=(1, 3, 1), expansion=2, norm=True)
    number = count_parameters(cls(256, 128, 256, 32))
    yield "the block of ResNeXt-50, (256, 128, 256, 32): 71,168 parameters", number == 71_168, f"Found {number:,}."


@exercise(
    "8.3", "make_identity", raw=True, causes=[("", "It is called with a block, and changes the numbers in its layers; it returns nothing.")]
)
def make_identity(function):
    """function(block): set the weights of a residual block so that it hands on what is not negative."""
    block = blocks.disturb(models.ResidualBlock(16, 16))
    nn.init.uniform_(block.bn1.running_mean, 0.5, 1.5)
    nn.init.uniform_(block.bn2.running_mean, 0.5, 1.5)
    before = [(name, type(module)) for name, module in block.named_modules()]
    function(block)
    kept = before == [(name, type(module)) for name, module in block.named_modules()] and "forward" not in vars(block)
    yield "the block still has its layers, and its own forward", kept, "Only set weights: replace no layer and no method."
    x = torch.rand(4, 16, 8, 8)
    with torch.no_grad():
        out = {mode: block.train(mode == "training")(x.clone()) for mode in ("training", "evaluation")}
    for mode, y in out.items():
        off = (y - x).abs().max().item()
        hint = f"Found a difference of up to {off:.2g}.\n"
        if mode == "evaluation" and blocks.same(out["training"], x):
            hint += "In training, a BN subtracts the mean of the batch, in evaluation its running mean: silence the last BN itself."
        elif block.bn2.weight.any():
            hint += "The residual must be 0 for every x: which two numbers of each channel of the last BN make its output 0?"
        else:
            hint += "The last BN multiplies by its weight, and then adds its bias: it must be 0, too."
        yield f"in {mode}, block(x) is x for every x that is not negative", off == 0, hint
