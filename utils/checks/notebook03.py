"""Checks of notebook 03: a stage of blocks, and ResNet-25."""

import functools

import torch
import torch.nn.functional as F

from .. import blocks, models
from .compare import network
from .framework import exercise
from .networks import explained, network_mistakes
from .stages import NO_MODULE, NamedCase, Seen, improved, not_in_a_row, returned, stage_hint

OTHERS = "Only the first block reads in_channels and has the stride: all others go from out_channels to out_channels, with stride 1."


def _layer_cases():
    for arguments, *shapes in (
        ((16, 32, 3, 2), (2, 16, 8, 6), (2, 16, 16, 16)),
        ((8, 8, 2, 1), (2, 8, 5, 4)),
        ((4, 8, 1, 3), (2, 4, 10, 7)),
        ((6, 4, 4, 1), (3, 6, 4, 5), (1, 6, 7, 7)),
        ((5, 5, 2, 2), (2, 5, 9, 6)),
        ((3, 7, 5, 1), (2, 3, 4, 4)),
    ):
        references = [functools.partial(models.make_stage, blocks.ResidualBlock, *arguments, norm_shortcut=norm) for norm in (False, True)]
        yield NamedCase("make_layer", arguments, {}, references, shapes, ways=4)


def stage_mistakes():
    """What may be done to the right stage r."""
    relu = torch.relu
    yield "The result of the blocks is not used: x itself is returned.", lambda r, x: x
    yield "The last block's result is not used.", lambda r, x: r[:-1](x)
    yield "The first block is left out of the way through.", lambda r, x: r[1:](x)
    yield (
        "The stage's input is added to its output: the shortcuts are in the blocks, and there is none around a stage.",
        lambda r, x: r(x) + x,
    )
    yield "The stage's input is added to its output, and a ReLU follows.", lambda r, x: relu(r(x) + x)
    yield "Every block reads x: each must read what the block before it gives.", lambda r, x: r[-1](x)
    yield "The blocks' outputs are added up: each block reads what the one before gives, and the last one's output is returned.", _summed
    for name, pool in (("max-pooling", F.max_pool2d), ("average pooling", F.avg_pool2d)):
        yield f"A {name} follows: the stride of the first block is all that makes the image smaller.", lambda r, x, pool=pool: pool(r(x), 2)
    yield from (
        ("The stage's input is cut off from the gradient (.detach(), .data, no_grad).", lambda r, x: r(x.detach())),
        ("After the first block, the gradient is cut off (.detach(), .data, no_grad).", lambda r, x: r[1:](r[0](x).detach())),
        ("Before the last block, the gradient is cut off (.detach(), .data, no_grad).", lambda r, x: r[-1](r[:-1](x).detach())),
    )


def _summed(r, x):
    total = 0
    for block in r:
        x = block(x)
        total = total + x
    return total


@exercise(
    "3.1",
    "make_layer",
    finished=lambda: functools.partial(models.make_stage, blocks.ResidualBlock),
    causes=[
        (r"expected input\[[\d, ]+\] to have \d+ channels", OTHERS),
        (r"running_mean should contain", OTHERS),
        NO_MODULE,
        (r"Block\.__init__\(\) ", "A block is made by ResidualBlock(in_channels, out_channels, stride), with stride=1 as default."),
    ],
    ladder=[
        "Write the blocks of make_layer(16, 32, 3, 2) down one below the other: which channels does each read, and which does it give?",
        "The first is ResidualBlock(in_channels, out_channels, stride), all others ResidualBlock(out_channels, out_channels).",
        "layers = [ResidualBlock(in_channels, out_channels, stride)]\nfor _ in range(blocks - 1):\n"
        "    layers.append(ResidualBlock(out_channels, out_channels))\nreturn nn.Sequential(*layers)",
    ],
)
def make_layer(answer):
    """function(in_channels, out_channels, blocks, stride) -> module of that many residual blocks; the first changes the shape."""
    cases = list(_layer_cases())
    claims = {
        "runs": "it returns a module that can be called, for six choices of arguments",
        "shape": "(N, in_channels, H, W) becomes (N, out_channels, H / stride, W / stride)",
        "own": "each block has weights of its own",
        "layers": "there are `blocks` blocks; the first has the stride and, where the shape changes, a projection: 51,584 parameters for "
        "make_layer(16, 32, 3, 2), or 51,648 with a BN after the projection",
        "order": "each block reads what the one before gives, and nothing else happens",
    }
    advice = {
        "stride": "The first block has the stride that is given; all others have 1.",
        "in": OTHERS,
        "out": "All blocks give out_channels.",
        "extra": lambda step: (
            "Only the first block may change the shape and project; all others have the identity as shortcut."
            if step.kind == "conv" and step.weight.shape[2:] == (1, 1)
            else "A stage is a row of `blocks` residual blocks, and nothing else."
        ),
        "missing": lambda step: "A stage is a row of `blocks` residual blocks: each has two 3×3 convolutions with their BNs.",
    }

    def explain():
        for case in cases:
            seen = Seen(answer, case, blocks.ResidualBlock)
            wide, width, count, stride = case.arguments
            expected = [(wide, width, stride)] + [(width, width, 1)] * (count - 1)
            if hint := (
                returned(seen, answer) or stage_hint(seen, expected, "ResidualBlock", out="out_channels") or not_in_a_row(seen, expected)
            ):
                return hint
        return None

    yield from improved(network(answer, cases, claims, list(stage_mistakes()), advice), explain)


# ---- ResNet-25 ------------------------------------------------------------------------------------------------------

LAYOUT = {"layers": (6, 6, 12), "widths": (32, 64, 128), "expansion": 1, "first": 32, "strides": (1, 2, 2), "table": "the table"}
STAGES = "The stages have 6, 6 and 12 blocks with 32, 64 and 128 channels."
NET_ADVICE = {
    "kernel": "The stem is a 7×7 convolution; those of the blocks are 3×3, and 1×1 on the shortcuts.",
    "stride": "The stem has stride 2, and so has the first block of the second and of the third stage; all others have stride 1.",
    "padding": "The 7×7 convolution of the stem has padding 3.",
    "in": "The channels go 3 → 32 (stem) → 32 → 64 → 128, and the linear layer reads 128.",
    "out": "The channels go 3 → 32 (stem) → 32 → 64 → 128, and the linear layer gives num_classes.",
    "extra": lambda step: (
        "The table has one linear layer."
        if step.kind == "linear"
        else "A convolution and its BN make the stem; all others are in the blocks."
    ),
    "missing": lambda step: (
        "A linear layer, 128 → num_classes, is the last one." if step.kind == "linear" else f"The stem: convolution, BN, ReLU. {STAGES}"
    ),
}


@exercise(
    "3.2",
    "ResNet25",
    finished=lambda: models.resnet25,
    causes=[(r"expected input\[\d+, \d+, \d+\]", "A layer gets a single image without the first dimension: what takes it away?")],
    ladder=[
        "Follow the shape of one image: 3×32×32 → 32×16×16 (stem) → 32×16×16 → 64×8×8 → 128×4×4 → 128 (mean) → num_classes.",
        "__init__: the stem as nn.Sequential(convolution, BN, ReLU), then make_layer(32, 32, 6, 1), make_layer(32, 64, 6, 2), "
        "make_layer(64, 128, 12, 2), and nn.Linear(128, num_classes).",
        "forward:\n  x = self.stage3(self.stage2(self.stage1(self.stem(x))))\n  return self.fc(x.mean((2, 3)))",
    ],
)
def resnet25(answer):
    """cls(num_classes=10): stem 7×7 with stride 2, stages of 6, 6 and 12 blocks with 32, 64 and 128 channels, pooling, linear layer."""
    references = [functools.partial(models.resnet25, norm_shortcut=norm) for norm in (False, True)]
    cases = [NamedCase("ResNet25", (), {}, references, [(2, 3, 20, 16), (1, 3, 32, 32), (1, 3, 48, 40)], ways=1)]
    claims = {
        "runs": "it is built and called without an error",
        "shape": "(N, 3, H, W) becomes (N, num_classes), for any height and width; num_classes is 10 by default",
        "layers": "a 7×7 stem with its BN, 6, 6 and 12 blocks of 32, 64 and 128 channels, one linear layer: 4,024,490 parameters, or "
        "4,024,874 with BNs after the projections",
        "order": "stem (convolution, BN, ReLU), three stages, the mean over all positions, linear layer, and nothing after it",
    }
    rows = network(answer, cases, claims, list(network_mistakes(3)), NET_ADVICE)
    right = yield from explained(rows, answer, cases, blocks.ResidualBlock, lambda case: LAYOUT, lambda case: "ResidualBlock")
    claim, found = "num_classes=100 gives 100 logits, and ResNet25(7) gives 7", ""
    if not right:
        yield claim, None, ""
        return
    for call, classes, network_ in (("ResNet25(num_classes=100)", 100, answer(num_classes=100)), ("ResNet25(7)", 7, answer(7))):
        out = answer.run(network_.eval(), torch.zeros(1, 3, 16, 16), doing=call)
        if tuple(out.shape) != (1, classes):
            found = found or f"Found: {call} turns one image into {tuple(out.shape)}; expected (1, {classes}).\n"
    yield claim, not found, f"{found}The last layer takes the number from the argument: nn.Linear(128, num_classes)."
