"""Checks of notebook 04: basic block and bottleneck, a stage of either, and the whole network."""

import torch
from torch import nn

from .. import models
from .framework import are_probabilities, count_parameters, exercise, inputs


@exercise(
    "4.3",
    "make_stage",
    raw=True,
    causes=[("", "The first block goes from in_channels to channels, and gives channels * block.expansion: that is what all others read.")],
)
def make_stage(function):
    """function(block, in_channels, channels, blocks, stride) -> module of that many blocks, of which the first has the stride."""
    for block, convs, parameters in ((models.BasicBlock, 7, 51_648), (models.Bottleneck, 10, 52_096)):
        name, width = block.__name__, 32 * block.expansion
        stage = function(block, 16, 32, 3, 2)
        kind = isinstance(stage, nn.Module)
        yield f"{name}: returns a module", kind, f"Found {type(stage).__name__}.\nPut the blocks into nn.Sequential(*blocks)."
        if not kind:
            return
        out, seen = inputs(stage.eval(), nn.Conv2d, torch.randn(2, 16, 16, 16))
        made = [m for m in stage.modules() if type(m) is block]
        yield f"{name}: 3 blocks", len(made) == 3, f"Found {len(made)}.\nAppend `blocks` blocks, the first included, made by `block`."
        yield f"{name}: (2, 16, 16, 16) becomes (2, {width}, 8, 8)", tuple(out.shape) == (2, width, 8, 8), f"Found {tuple(out.shape)}."
        strided = [m.stride[0] for m, _ in seen if m.stride[0] != 1]
        yield (
            f"{name}: the first block has the stride, on the main path and the shortcut",
            strided == [2, 2],
            f"Found {len(strided)} convolutions with a stride.\nIt belongs to the first block alone.",
        )
        yield (
            f"{name}: one block projects, the others use the identity",
            len(seen) == convs,
            f"Found {len(seen)} convolutions instead of {convs}.\nFrom the second on, the blocks read channels * block.expansion.",
        )
        found = count_parameters(stage)
        yield (
            f"{name}: each block has weights of its own: {parameters:,} parameters",
            found == parameters,
            f"Found {found:,}.\n[block] * n is n times the same block: make a new one each time.",
        )
    same, seen = inputs(function(models.BasicBlock, 16, 16, 2, 1).eval(), nn.Conv2d, torch.randn(2, 16, 8, 8))
    yield (
        "16 → 16 channels with stride 1 keeps the shape, without a projection",
        tuple(same.shape) == (2, 16, 8, 8) and len(seen) == 4,
        f"Found {tuple(same.shape)} and {len(seen)} convolutions instead of 4.",
    )


@exercise(
    "4.4",
    "ResNet",
    raw=True,
    causes=[
        (
            "",
            "Follow the shape at 224×224: 64×112×112, 64×56×56 behind the max-pooling, then stages at 56, 28, 14 and 7."
            " Pool with nn.AdaptiveAvgPool2d(1). The linear layer reads 512 * block.expansion.",
        )
    ],
)
def resnet(cls):
    """cls(block, layers, in_channels=3, num_classes=1000, stem="imagenet"): the network of Table 1, for any image size."""
    basic, wide = models.BasicBlock, models.Bottleneck
    model = cls(basic, [1, 2, 1, 1]).eval()
    out, seen = inputs(model, (nn.Conv2d, nn.Linear), torch.randn(2, 3, 64, 64))
    yield "two images give logits of shape (2, 1000)", tuple(out.shape) == (2, 1000), f"Found {tuple(out.shape)}."
    convs = [(m, given) for m, given in seen if isinstance(m, nn.Conv2d)]
    yield _stem(convs, 7, 2, 64, 16, "A 3×3 max-pooling with stride 2 follows BN and ReLU")
    described = [(m.out_channels, m.stride[0]) for m, _ in convs[1:] if m.kernel_size == (3, 3)]
    counts = {width: sum(w == width for w, _ in described) // 2 for width in (64, 128, 256, 512)}
    yield (
        "layers [1, 2, 1, 1] gives 1, 2, 1 and 1 blocks of 64, 128, 256 and 512 channels",
        counts == {64: 1, 128: 2, 256: 1, 512: 1},
        f"Found {counts}.\nTake the numbers of blocks from `layers`.",
    )
    strides = [stride for _, stride in described]
    yield (
        "stages 2, 3 and 4 start with stride 2, stage 1 with stride 1",
        strides == [1, 1, 2, 1, 1, 1, 2, 1, 2, 1],
        f"Found {strides}.\nThe max-pooling has halved the image before stage 1.",
    )
    last = [given for m, given in seen if isinstance(m, nn.Linear)]
    yield (
        "one linear layer, which reads the 512 pooled channels",
        [tuple(given.shape) for given in last] == [(2, 512)],
        f"Found {[tuple(given.shape) for given in last]} going into linear layers.",
    )
    yield "the output is logits", not are_probabilities(out), "Leave the softmax off: nn.CrossEntropyLoss applies log-softmax itself."
    for block, layers, arguments, parameters in (
        (basic, [2, 2, 2, 2], {}, 11_689_512),
        (wide, [3, 4, 6, 3], {}, 25_557_032),
        (basic, [2, 2, 2, 2], {"num_classes": 100, "stem": "cifar"}, 11_220_132),
        (basic, [1, 1, 1, 1], {"num_classes": 10, "in_channels": 1}, 4_904_650),
    ):
        found = count_parameters(cls(block, layers, **arguments))
        given = "".join(f", {name}={value!r}" for name, value in arguments.items())
        fixed = "\nThe linear layer reads 512 * block.expansion channels." if found - parameters == -1_536_000 else ""
        name = f"ResNet({block.__name__}, {layers}{given})"
        yield f"{name}: {parameters:,} parameters", found == parameters, f"Found {found:,}, {found - parameters:+,}.{fixed}"
    for size in (96, 130):
        try:
            shape = tuple(model(torch.randn(1, 3, size, size)).shape)
        except RuntimeError as error:
            shape = str(error)
        yield (
            f"{size}×{size} images work, too",
            shape == (1, 1000),
            f"Found {shape}.\nnn.AdaptiveAvgPool2d(1) pools whatever size there is; AvgPool2d(7) or a fixed linear layer does not.",
        )
    small = cls(basic, [1, 1, 1, 1], num_classes=10, stem="cifar").eval()
    convs = inputs(small, nn.Conv2d, torch.randn(2, 3, 32, 32))[1]
    yield _stem(convs, 3, 1, 32, 32, 'With stem="cifar" there is no max-pooling: 32×32 images are small')


def _stem(convs, kernel, stride, size, inside, advice):
    """The claim on the stem, given all convolutions and their inputs for an image of `size`; `inside` is the size of stage 1."""
    (stem, _), (_, first_input) = convs[:2]
    described = (stem.out_channels, stem.kernel_size[0], stem.stride[0], stem.padding[0], stem.bias is not None)
    behind = tuple(first_input.shape[1:])
    right = described == (64, kernel, stride, kernel // 2, False) and behind == (64, inside, inside) and bool((first_input >= 0).all())
    found = "64 channels: {}, kernel {}, stride {}, padding {}, bias {}".format(described[0] == 64, *described[1:])
    return (
        f"{size}×{size} images: stem {kernel}×{kernel}, stride {stride}, BN, ReLU; stage 1 sees 64×{inside}×{inside}",
        right,
        f"Found {found}; stage 1 sees {behind}, {'no' if (first_input >= 0).all() else 'with'} negative numbers.\n{advice}.",
    )
