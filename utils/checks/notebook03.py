"""Checks of notebook 03: a stage of blocks, and ResNet-25."""

import torch
from torch import nn

from .framework import are_probabilities, count_parameters, exercise, inputs


@exercise(
    "3.1",
    "make_layer",
    raw=True,
    causes=[("", "Only the first block goes from in_channels to out_channels: all others go from out_channels to out_channels.")],
)
def make_layer(function):
    """function(in_channels, out_channels, blocks, stride) -> module of that many residual blocks; the first changes the shape."""
    layer = function(16, 32, 3, 2)
    kind = isinstance(layer, nn.Module)
    yield "returns a module", kind, f"Found {type(layer).__name__}.\nPut the blocks into nn.Sequential(*blocks)."
    if not kind:
        return
    out, seen = inputs(layer.eval(), nn.Conv2d, torch.randn(2, 16, 16, 16))
    main = [m for m, _ in seen if m.kernel_size == (3, 3)]
    projections = [m for m, _ in seen if m.kernel_size == (1, 1)]
    yield "3 blocks have six 3×3 convolutions", len(main) == 6, f"Found {len(main)}.\nAppend `blocks` blocks, the first included."
    strides = [m.stride[0] for m in main]
    yield (
        "the first convolution has the stride, all others 1",
        strides == [2, 1, 1, 1, 1, 1],
        f"Found {strides}.\nThe stride belongs to the first block alone: every further one would halve the image again.",
    )
    yield "(2, 16, 16, 16) becomes (2, 32, 8, 8)", tuple(out.shape) == (2, 32, 8, 8), f"Found {tuple(out.shape)}."
    yield (
        "one block projects, the others use the identity",
        len(projections) == 1,
        f"Found {len(projections)} 1×1 convolutions.\nOnly the first block changes the shape.",
    )
    found = count_parameters(layer)
    yield (
        "each block has weights of its own: 51,584 parameters, or 51,648 with BN on the projection",
        found in (51_584, 51_648),
        f"Found {found:,}.\n[block] * n is n times the same block: make a new one each time.",
    )
    same, seen = inputs(function(16, 16, 2, 1).eval(), nn.Conv2d, torch.randn(2, 16, 8, 8))
    yield (
        "16 → 16 channels with stride 1 keeps the shape, without a projection",
        tuple(same.shape) == (2, 16, 8, 8) and len(seen) == 4,
        f"Found {tuple(same.shape)} and {len(seen)} convolutions instead of 4.",
    )
    blocks = len(inputs(function(8, 8, 5, 1).eval(), nn.Conv2d, torch.randn(2, 8, 8, 8))[1]) / 2
    yield "5 blocks are 5 blocks", blocks == 5, f"Found {blocks:g}.\nUse the argument."


@exercise(
    "3.2",
    "ResNet25",
    raw=True,
    causes=[("", "Follow the shape: 3×32×32 → 32×16×16 (stem) → 32×16×16 → 64×8×8 → 128×4×4 → 128 → num_classes.")],
)
def resnet25(cls):
    """cls(num_classes=10): stem 7×7 with stride 2, stages of 6, 6 and 12 blocks with 32, 64 and 128 channels, pooling, linear layer."""
    model, x = cls().eval(), torch.randn(2, 3, 32, 32)
    out, seen = inputs(model, (nn.Conv2d, nn.Linear), x)
    yield "two images give logits of shape (2, 10)", tuple(out.shape) == (2, 10), f"Found {tuple(out.shape)}."
    convs = [(m, given) for m, given in seen if isinstance(m, nn.Conv2d)]
    linears = [(m, given) for m, given in seen if isinstance(m, nn.Linear)]
    stem = convs[0][0]
    described = (stem.in_channels, stem.out_channels, stem.kernel_size[0], stem.stride[0], stem.padding[0], stem.bias is not None)
    yield (
        "the stem is a 7×7 convolution 3 → 32, stride 2, padding 3, no bias",
        described == (3, 32, 7, 2, 3, False),
        "Found {} → {}, kernel {}, stride {}, padding {}, bias {}.".format(*described),
    )
    first_input = convs[1][1]
    yield (
        "BN and ReLU follow the stem",
        bool((first_input >= 0).all()) and not any(m.kernel_size == (7, 7) for m, _ in convs[1:]),
        "The first block gets negative numbers: put BN and ReLU between the stem and the first stage.",
    )
    yield (
        "the first block sees 32 channels of 16×16",
        tuple(first_input.shape[1:]) == (32, 16, 16),
        f"Found {tuple(first_input.shape[1:])}.\nThere is no max-pooling behind the stem: 32×32 images are small.",
    )
    main = [m for m, _ in convs[1:] if m.kernel_size == (3, 3)]
    blocks = {width: sum(m.out_channels == width for m in main) / 2 for width in (32, 64, 128)}
    yield (
        "6 blocks of 32, 6 of 64 and 12 of 128 channels",
        list(blocks.values()) == [6, 6, 12],
        f"Found {', '.join(f'{n:g} of {width}' for width, n in blocks.items())}.",
    )
    yield (
        "the second and the third stage start with stride 2",
        [m.stride[0] for m in main if m.stride[0] != 1] == [2, 2] and main[0].stride == (1, 1),
        f"Found {sum(m.stride[0] == 2 for m in main)} blocks with stride 2.",
    )
    last = linears[-1][1] if linears else torch.zeros(0)
    yield (
        "one linear layer, 128 → 10, behind the global average pooling",
        len(linears) == 1 and tuple(last.shape) == (2, 128),
        f"Found {[tuple(given.shape) for _, given in linears]} going into linear layers.\nPool to (N, 128), then one layer.",
    )
    yield (
        "the output is logits: any numbers, positive or negative",
        not are_probabilities(out),
        "Leave the softmax off the last layer: nn.CrossEntropyLoss applies log-softmax itself.",
    )
    found = count_parameters(model)
    yield (
        "4,024,490 parameters, or 4,024,874 with BN on the projections",
        found in (4_024_490, 4_024_874),
        f"Found {found:,}, {found - 4_024_490:+,}.",
    )
    yield "num_classes=100 gives 100 logits", tuple(cls(num_classes=100)(x).shape) == (2, 100), "Use num_classes in the last layer."
    try:
        large = tuple(model(torch.randn(1, 3, 64, 64)).shape)
    except RuntimeError as error:
        large = str(error)
    yield (
        "64×64 images work, too",
        large == (1, 10),
        f"Found {large}.\nnn.AdaptiveAvgPool2d(1) or x.mean((2, 3)) pools whatever size there is; AvgPool2d(4) fits 32×32 images alone.",
    )
