"""Checks of notebook 02: the residual block and its shortcuts."""

import torch
from torch import nn

from .framework import count_parameters, exercise, inputs


def _disturb(model):
    """Give every BN other numbers than those it starts with, so that no step of a block is invisible."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5), (module.running_var, 0.5, 1.5)):
                nn.init.uniform_(tensor, low, high)
    return model


def _same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


def _block_claims(cls, in_channels, out_channels, stride, parameters):
    """What a residual block must satisfy for one choice of its arguments."""
    name = f"{in_channels} → {out_channels} channels, stride {stride}"
    block, x = _disturb(cls(in_channels, out_channels, stride)).eval(), torch.randn(2, in_channels, 8, 8)
    before = x.clone()
    out, seen = inputs(block, (nn.Conv2d, nn.BatchNorm2d), x)
    shape = (2, out_channels, 8 // stride, 8 // stride)
    yield f"{name}: (2, {in_channels}, 8, 8) becomes {shape}", tuple(out.shape) == shape, f"Found {tuple(out.shape)}."
    yield (
        f"{name}: the input is left as it was",
        torch.equal(x, before),
        "Something works in place on x (inplace=True, relu_ or +=), and the shortcut then adds the changed x.",
    )
    x = before

    convs = [m for m, _ in seen if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    projections = [m for m, _ in seen if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    described = [(m.in_channels, m.out_channels, m.stride[0]) for m in convs]
    expected = [(in_channels, out_channels, stride), (out_channels, out_channels, 1)]
    yield f"{name}: two 3×3 convolutions (in, out, stride): {expected}", described == expected, f"Found {described}."
    biased = any(m.bias is not None for m in convs + projections)
    yield f"{name}: no convolution has a bias", not biased, "Set bias=False: the BN behind a convolution subtracts any bias again."

    changes = stride != 1 or in_channels != out_channels
    right_shortcut = [m.stride for m in projections] == [(stride, stride)] * changes
    if changes:
        yield (
            f"{name}: the shortcut is one 1×1 convolution with the block's stride",
            right_shortcut,
            f"Found {len(projections)} with stride {[m.stride[0] for m in projections]}: the shape changes, so the shortcut must project.",
        )
    else:
        yield (
            f"{name}: the shortcut is the identity",
            right_shortcut,
            "Found a 1×1 convolution. Where the shape stays the same, add x itself: that is what lets the signal through unchanged.",
        )
    normed = projections[0](x) if projections else None  # the BN that sees this belongs to the shortcut
    norms = [(m, seen_by) for m, seen_by in seen if isinstance(m, nn.BatchNorm2d)]
    main = [m for m, seen_by in norms if normed is None or not _same(seen_by, normed)]
    aside = [m for m, _ in norms if m not in main]
    yield f"{name}: a BN behind each 3×3 convolution", len(main) == 2, f"Found {len(main)} BatchNorm2d on the main path."
    if len(convs) == 2 and len(main) == 2 and right_shortcut:
        first, second, shortcut = (*main, nn.Sequential(*projections, *aside))
        claim = f"{name}: the output is ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))"
        yield claim, *_block_formula(out, x, convs, first, second, shortcut)
    found = count_parameters(block)
    yield (
        f"{name}: {' or '.join(f'{n:,}' for n in parameters)} parameters",
        found in parameters,
        f"Found {found:,}. Is a bias or a layer too many, or one left out?",
    )
    x.requires_grad_()
    block.train()(x * 1).sum().backward()
    yield f"{name}: gradients reach the input", x.grad is not None and bool(x.grad.any()), "Is something detached?"


@torch.no_grad()
def _block_formula(out, x, convs, first, second, shortcut):
    """Whether `out` is what these layers give in the right order, and if not, which mistake gives it."""
    relu = torch.relu
    conv1, conv2, s = *convs, shortcut(x)
    residual = second(conv2(relu(first(conv1(x)))))
    if _same(out, relu(residual + s)):
        return True, ""
    late = "The ReLU is applied to the residual before the addition: it can then never be negative. Add first."
    mistakes = [
        (relu(residual) + s, late),
        (relu(relu(residual) + s), late),
        (residual + s, "The ReLU after the addition is missing."),
        (relu(residual), "The shortcut is not added."),
        (residual, "The shortcut is not added."),
        (relu(second(conv2(first(conv1(x)))) + s), "The ReLU between the two convolutions is missing."),
        (relu(second(conv2(first(relu(conv1(x))))) + s), "The ReLU stands before the first BN: the order is convolution, BN, ReLU."),
        (relu(second(conv2(relu(first(conv1(x)))) + s)), "The shortcut is added before the second BN: it belongs behind it."),
    ]
    if first.num_features == conv1.in_channels:
        activated = conv2(relu(second(conv1(relu(first(x))))))
        advice = "BN and ReLU stand before the convolutions: that is pre-activation, a later idea. Here, each BN follows its convolution."
        mistakes += [(activated + s, advice), (relu(activated + s), advice)]
    for wrong, hint in mistakes:
        if _same(out, wrong):
            return False, hint
    return False, "The layers are there, but their order or the addition differs."


@exercise("When they are added, both paths must have the same shape: is the block's stride, and out_channels, on the shortcut, too?")
def residual_block(cls):
    """cls(in_channels, out_channels, stride=1): the block of He et al. 2015 with the identity or a 1×1 projection as shortcut."""
    for in_channels, out_channels, stride, parameters in (
        (32, 32, 1, [18_560]),
        (32, 64, 2, [57_600, 57_728]),  # without and with BN on the projection
        (16, 32, 1, [14_464, 14_528]),
        (16, 16, 2, [4_928, 4_960]),
    ):
        right = True
        for claim, holds, hint in _block_claims(cls, in_channels, out_channels, stride, parameters):
            if not holds:
                right = False
                yield claim, holds, hint
        if not right:  # one mistake at a time
            return
        yield f"{in_channels} → {out_channels} channels, stride {stride}: shape, layers, order, shortcut, parameters, gradient", True, ""
    shape = tuple(cls(3, 32, stride=2)(torch.zeros(1, 3, 96, 96)).shape)
    yield "(1, 3, 96, 96) becomes (1, 32, 48, 48) with 32 channels and stride 2", shape == (1, 32, 48, 48), f"Found {shape}."


@exercise("It is called as zero_padding(x, out_channels, stride).")
def zero_padding(function):
    """function(x, out_channels, stride): every stride-th pixel of x, then channels of zeros up to out_channels."""
    x = torch.randn(2, 4, 7, 7)
    out = function(x.clone(), 6, 2)
    yield "4 → 6 channels, stride 2: (2, 4, 7, 7) becomes (2, 6, 4, 4)", tuple(out.shape) == (2, 6, 4, 4), f"Found {tuple(out.shape)}."
    if tuple(out.shape) != (2, 6, 4, 4):
        return
    old, new = out[:, :4], out[:, 4:]
    yield (
        "the first channels are every second pixel of x, starting with the first",
        torch.equal(old, x[:, :, ::2, ::2]),
        "Use x[:, :, ::stride, ::stride], and put the zeros behind the channels of x.",
    )
    yield "the other channels are zeros", not new.any(), "Found other numbers. F.pad(x, (0, 0, 0, 0, 0, extra)) adds channels of zeros."
    same = function(x, 4, 1)
    yield "4 → 4 channels, stride 1: x comes back as it is", _same(same, x), f"Found shape {tuple(same.shape)} or other numbers."
