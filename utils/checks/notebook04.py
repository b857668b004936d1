"""Checks of notebook 04: a stage of any blocks, and the whole network. The bottleneck: notebook04_blocks.py."""

import functools

from .. import models
from .compare import network
from .framework import exercise
from .networks import explained, network_mistakes
from .notebook03 import stage_mistakes
from .stages import NO_MODULE, Careful, Four, NamedCase, One, Probe, Seen, Three, Two, improved, not_in_a_row, returned, stage_hint

# ---- a stage --------------------------------------------------------------------------------------------------------

REST = "The first block is block(in_channels, channels, stride); all others are block(channels * block.expansion, channels)."


def _stage_cases():
    for arguments, *shapes in (
        ((models.BasicBlock, 16, 32, 3, 2), (2, 16, 8, 6), (2, 16, 16, 16)),
        ((models.Bottleneck, 16, 8, 3, 2), (2, 16, 7, 6)),
        ((Three, 4, 5, 4, 3), (2, 4, 10, 7), (1, 4, 9, 9)),
        ((One, 8, 8, 2, 1), (2, 8, 5, 4)),
        ((Four, 16, 4, 1, 1), (3, 16, 4, 5), (1, 16, 7, 7)),
        ((Two, 12, 3, 5, 2), (2, 12, 9, 6)),
    ):
        yield NamedCase("make_stage", arguments, {}, [functools.partial(models.make_stage, *arguments)], shapes, ways=4)


@exercise(
    "4.2",
    "make_stage",
    finished=lambda: models.make_stage,
    causes=[
        (r"expected input\[[\d, ]+\] to have \d+ channels|running_mean should contain", REST),
        NO_MODULE,
        (
            r"Block\w*\.__init__\(\) |Bottleneck\.__init__\(\) |shortcut must be",
            "A block is made by block(in_channels, channels, stride), with stride=1 as default.",
        ),
    ],
    ladder=[
        "It is make_layer of notebook 03, but the block is an argument, and a block gives channels * block.expansion channels.",
        REST,
        "layers = [block(in_channels, channels, stride)]\nfor _ in range(blocks - 1):\n"
        "    layers.append(block(channels * block.expansion, channels))\nreturn nn.Sequential(*layers)",
    ],
)
def make_stage(answer):
    """function(block, in_channels, channels, blocks, stride) -> module of that many blocks, of which the first has the stride."""
    cases = list(_stage_cases())
    claims = {
        "runs": "it returns a module that can be called, for six choices: BasicBlock, Bottleneck, and blocks of the check's own with other "
        "expansions",
        "shape": "(N, in_channels, H, W) becomes (N, channels * block.expansion, H / stride, W / stride)",
        "own": "each block has weights of its own",
        "layers": "there are `blocks` blocks, made by `block`; the first reads in_channels and has the stride, "
        "the others read what it gives",
        "order": "each block reads what the one before gives, and nothing else happens",
    }
    advice = {
        "stride": "The first block has the stride that is given; all others have 1.",
        "in": REST,
        "out": REST,
        "extra": lambda step: "A stage is a row of `blocks` blocks, made by `block`, and nothing else.",
        "missing": lambda step: "A stage is a row of `blocks` blocks, made by `block`.",
    }

    def explain():
        for case in cases:
            block, wide, channels, blocks, stride = case.arguments
            seen = Seen(answer, case, (models.BasicBlock, models.Bottleneck, Probe))
            if hint := returned(seen, answer):
                return hint
            others = {type(made).__name__ for made in seen.blocks if type(made) is not block}
            if others or seen.out is not None and not seen.blocks:
                made = " and ".join(sorted(others)) or "none of the known blocks"
                return (
                    f"Found: {case} is made of {made}.\nEvery block is made by the argument `block`, whatever class it is: "
                    f"here {block.__name__}, with {block.__name__}.expansion = {block.expansion}."
                )
            expected = [(wide, channels, stride)] + [(channels * block.expansion, channels, 1)] * (blocks - 1)
            if hint := stage_hint(seen, expected, block.__name__, block.expansion) or not_in_a_row(seen, expected):
                return hint
        return None

    yield from improved(network(answer, cases, claims, list(stage_mistakes()), advice), explain)


# ---- the whole network ----------------------------------------------------------------------------------------------

WIDTHS = (64, 128, 256, 512)
STEM = 'stem="imagenet": a 7×7 convolution with stride 2 and padding 3; stem="cifar": a 3×3 one with stride 1 and padding 1.'
NET_ADVICE = {
    "kernel": STEM,
    "stride": STEM,
    "padding": STEM,
    "in": "The stem reads `in_channels`, and the linear layer 512 * block.expansion numbers.",
    "out": "The stem gives 64 channels, and the linear layer num_classes numbers.",
    "extra": lambda step: (
        "The table has one linear layer."
        if step.kind == "linear"
        else "A convolution and its BN make the stem; all others are in the blocks."
    ),
    "missing": lambda step: (
        "A linear layer, 512 * block.expansion → num_classes, is the last one."
        if step.kind == "linear"
        else "The stem: convolution, BN, ReLU. Four stages, with the numbers of blocks in `layers`."
    ),
}


def _net_cases():
    for block, layers, arguments, keywords, *shapes in (
        (One, [2, 1, 3, 1], (), {}, (2, 3, 70, 60), (1, 3, 64, 64), (1, 3, 130, 96)),
        (Four, [1, 2, 1, 2], (), {"num_classes": 7}, (2, 3, 48, 64)),
        (Two, [1, 1, 2, 3], (), {"num_classes": 10, "in_channels": 1, "stem": "cifar"}, (2, 1, 20, 28), (1, 1, 32, 32)),
        (Three, [3, 1, 1, 1], (4, 5, "cifar"), {}, (2, 4, 17, 16)),
        (One, [1, 1, 1, 2], (), {"in_channels": 2, "stem": "imagenet", "num_classes": 3}, (3, 2, 65, 40)),
    ):
        reference = functools.partial(models.ResNet, block, list(layers), *arguments, **keywords)
        yield NamedCase("ResNet", (block, layers, *arguments), keywords, [reference], shapes, ways=1)


@exercise(
    "4.3",
    "ResNet",
    finished=lambda: models.ResNet,
    causes=[
        (
            r"(Block\w*|Bottleneck|Net\w*)\.__init__\(\) ",
            "Blocks are made by block(in_channels, channels, stride=1), and the network by ResNet(block, layers, in_channels=3, "
            'num_classes=1000, stem="imagenet"): with the same names, order and defaults.',
        ),
    ],
    ladder=[
        "Follow the shape at 224×224: 64×112×112 (stem), 64×56×56 (max-pooling), then the stages at 56, 28, 14 and 7, and the mean.",
        "The stages: keep `now`, the channels that the next block reads, at first 64. For each width and number of blocks: "
        "make_stage(block, now, width, blocks, 1 in the first stage, else 2); then now = width * block.expansion.",
        "The linear layer reads 512 * block.expansion, what x.mean((2, 3)) gives after the last stage. nn.Linear(now, num_classes).",
    ],
)  # fmt: skip
def resnet(answer):
    """cls(block, layers, in_channels=3, num_classes=1000, stem="imagenet"): the network of Table 1, for any image size."""
    cases = list(_net_cases())
    claims = {
        "runs": "it is built and called without an error, with five choices of blocks, layers, channels, classes and stem; `layers` stays "
        "as it was",
        "shape": "(N, in_channels, H, W) becomes (N, num_classes), for any height and width; 1000 classes and 3 channels by default",
        "layers": "the stem's convolution and BN, four stages with the blocks of `layers`, made by `block`, and one linear layer",
        "order": "stem, stages, the mean over all positions, linear layer; max-pooling after the ReLU of the imagenet stem alone",
    }
    careful = Careful(answer)

    def layout(case):
        block, layers, *_ = case.arguments
        cifar = "cifar" in (*case.arguments, *case.keywords.values())
        start = "" if cifar else ": the max-pooling has halved the image before it"
        return {"layers": layers, "widths": WIDTHS, "expansion": block.expansion, "start": start, "block": block}

    rows = network(careful, cases, claims, list(network_mistakes(4)), NET_ADVICE)
    yield from explained(
        rows, careful, cases, (models.ResidualBlock, models.Bottleneck, Probe), layout, lambda case: case.arguments[0].__name__
    )
