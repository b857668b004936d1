"""What the checks of the four blocks share: notebook 02's, basic and bottleneck of notebook 04, and the pre-activated ones of 05."""

import torch
from torch import nn

from .framework import count_parameters, inputs

BOTH_PATHS = "When they are added, both paths must have the same shape: the projection needs the block's stride and all output channels."


def claims(cls, in_channels, channels, stride, parameters, *, kernels=(3, 3), expansion=1, norm=None, preactivated=False):
    """What a block must satisfy for one choice of its arguments; yields (claim, holds, hint).

    parameters: the right numbers. kernels: of the convolutions on the main path. expansion: channels of the output for one of
    `channels`. norm: whether a BN stands behind the projection; None allows both.
    """
    name = f"{in_channels} → {channels * expansion} channels, stride {stride}"
    block, x = disturb(cls(in_channels, channels, stride)).eval(), torch.randn(2, in_channels, 8, 8)
    before = x.clone()
    out, seen = inputs(block, (nn.Conv2d, nn.BatchNorm2d), x)
    shape = (2, channels * expansion, 8 // stride, 8 // stride)
    yield f"{name}: (2, {in_channels}, 8, 8) becomes {shape}", tuple(out.shape) == shape, f"Found {tuple(out.shape)}."
    yield (
        f"{name}: the input is left as it was",
        torch.equal(x, before),
        "Something works in place on x (inplace=True, relu_ or +=), and the shortcut then adds the changed x.",
    )
    x = before

    every_conv = [(m, given) for m, given in seen if isinstance(m, nn.Conv2d)]
    projections = _projections(every_conv, x, channels * expansion, kernels)
    convs = [m for m, _ in every_conv if m not in projections]
    described = [(m.kernel_size[0], m.in_channels, m.out_channels, m.stride[0]) for m in convs]
    expected = _expected(kernels, in_channels, channels, channels * expansion, stride)
    first_has_it = len(kernels) == 3 and [row[3] for row in described] == [stride, 1, 1] and stride != 1
    yield (
        f"{name}: convolutions (kernel, in, out, stride): {expected}",
        described == expected,
        f"Found {described}."
        + ("\nThe convolution of a shortcut is 1×1." if len(convs) > len(kernels) else "")
        + ("\nThe stride stands on the first 1×1 convolution, as in the paper. Here, the 3×3 convolution has it." if first_has_it else ""),
    )
    biased = any(m.bias is not None for m, _ in every_conv)
    yield f"{name}: no convolution has a bias", not biased, "Set bias=False: the BN behind a convolution subtracts any bias again."

    changes = stride != 1 or in_channels != channels * expansion
    right_shortcut = [m.stride for m in projections] == [(stride, stride)] * changes
    if changes:
        yield (
            f"{name}: the shortcut is one 1×1 convolution with the block's stride",
            right_shortcut,
            f"Found {len(projections)} with stride {[m.stride[0] for m in projections]}.\nThe shape changes, so the shortcut must project.",
        )
    else:
        yield (
            f"{name}: the shortcut is the identity",
            right_shortcut,
            "Found a 1×1 convolution.\nWhere the shape stays the same, add x itself: that is what lets the signal through unchanged.",
        )
    projected = [m(given) for m, given in every_conv if m in projections]  # the BN that sees this belongs to the shortcut
    norms = [m for m, given in seen if isinstance(m, nn.BatchNorm2d) and not any(same(given, p) for p in projected)]
    aside = [m for m, given in seen if isinstance(m, nn.BatchNorm2d) and m not in norms]
    place = "before" if preactivated else "behind"
    yield (
        f"{name}: a BN {place} each convolution of the main path",
        len(norms) == len(kernels),
        f"Found {len(norms)} BatchNorm2d on the main path.",
    )
    if norm is not None and changes:
        advice = (
            "Put a BN behind the projection, as torchvision does."
            if norm
            else "No BN follows the projection: nothing follows the addition."
        )
        yield f"{name}: {'a' if norm else 'no'} BN behind the projection", len(aside) == norm, advice
    if len(convs) == len(norms) == len(kernels) and right_shortcut:
        formula = _preactivated if preactivated else _original
        yield formula(name, out, x, convs, norms, nn.Sequential(*projections, *aside))
    found = count_parameters(block)
    yield (
        f"{name}: {' or '.join(f'{n:,}' for n in parameters)} parameters",
        found in parameters,
        f"Found {found:,}.\nIs a bias or a layer too many, or one left out?",
    )
    x.requires_grad_()
    block.train()(x * 1).sum().backward()
    yield f"{name}: gradients reach the input", x.grad is not None and bool(x.grad.any()), "Is something detached?"


def in_short(name, cls, cases, **design):
    """The claims for several choices of arguments, (in_channels, channels, stride, parameters): a line for each, or the mistakes of
    the first that has some."""
    for case in cases:
        wrong = False
        for claim, holds, hint in claims(cls, *case, **design):
            if not holds:
                wrong = True
                yield claim, holds, hint
        if wrong:
            return
        in_channels, channels, stride, _ = case
        yield f"{name}({in_channels}, {channels}, stride={stride}): shape, layers, order, shortcut, parameters, gradient", True, ""


def disturb(model):
    """Give every BN other numbers than those it starts with, so that no step of a block is invisible."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5), (module.running_var, 0.5, 1.5)):
                nn.init.uniform_(tensor, low, high)
    return model


def same(a, b):
    return b is not None and a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


def _projections(convs, x, out_channels, kernels):
    """The 1×1 convolutions beside the main path: they read x, or what the first convolution of the main path reads."""
    candidates = [(m, given) for m, given in convs if m.kernel_size == (1, 1) and m.out_channels == out_channels]
    if kernels[0] == 3:
        return [m for m, _ in candidates]  # the main path has none
    starts = [given for m, given in convs if m.out_channels != out_channels][:1]
    return [m for m, given in candidates if any(same(given, start) for start in (x, *starts))]


def _expected(kernels, in_channels, channels, out_channels, stride):
    widths = [in_channels, *[channels] * (len(kernels) - 1), out_channels]
    at = kernels.index(3)
    return [(k, widths[i], widths[i + 1], stride if i == at else 1) for i, k in enumerate(kernels)]


@torch.no_grad()
def along(x, steps, convs, norms):
    """Send x through the layers in the order that `steps` spells: c, the next convolution; b, the next BN; r, a ReLU.
    None where their shapes don't fit."""
    convs, norms = iter(convs), iter(norms)
    take = {"c": lambda x: next(convs)(x), "b": lambda x: next(norms)(x), "r": torch.relu}
    try:
        for step in steps:
            x = take[step](x)
    except RuntimeError:
        return None
    return x


def _verdict(claim, out, right, mistakes):
    """The claim that `out` is `right`; if it is not, the hint of the mistake that gives `out`. mistakes: (residual, shortcut, hint)."""
    if same(out, right):
        return claim, True, ""
    for residual, shortcut, hint in mistakes:
        if residual is not None and residual.shape == out.shape:
            total = residual + shortcut
            if same(out, total) or same(out, torch.relu(total)):
                return claim, False, hint
    return claim, False, "The layers are there, but their order or the addition differs."


NOT_ADDED = "The shortcut is not added."


@torch.no_grad()
def _original(name, out, x, convs, norms, shortcut):
    n, relu, s = len(convs), torch.relu, shortcut(x)
    steps = "cbr" * (n - 1) + "cb"
    residual = along(x, steps, convs, norms)
    inner = "ReLU(BN(conv(x)))" if n == 2 else "ReLU(BN(conv(ReLU(BN(conv(x))))))"
    claim = f"{name}: the output is ReLU(BN(conv({inner})) + shortcut(x))"
    if same(out, residual + s):
        return claim, False, "The ReLU after the addition is missing."
    before_bn = along(x, steps[:-1], convs, norms)
    ahead = "BN and ReLU stand before the convolutions: that is pre-activation, a later idea. Here, each BN follows its convolution."
    mistakes = [
        (relu(residual), s, "The ReLU is applied to the residual before the addition: it can then never be negative. Add first."),
        (residual, 0, NOT_ADDED),
        (along(x, "cb" * n, convs, norms), s, "The ReLU between the convolutions is missing."),
        (along(x, "crb" + steps[3:], convs, norms), s, "The ReLU stands before the first BN: the order is convolution, BN, ReLU."),
        (norms[-1](before_bn + s), 0, "The shortcut is added before the last BN: it belongs behind it."),
        (along(x, "brc" * n, convs, norms), s, ahead),
    ]
    return _verdict(claim, out, relu(residual + s), mistakes)


@torch.no_grad()
def _preactivated(name, out, x, convs, norms, shortcut):
    n, projects = len(convs), len(shortcut) > 0
    active = along(x, "br", convs, norms)
    claim = f"{name}: each convolution reads ReLU(BN(…)), and the sum is the output"
    behind = "The BNs follow the convolutions: in a pre-activated block, BN and ReLU stand before each of them."
    if active is None:
        return claim, False, behind
    residual, s = along(x, "brc" * n, convs, norms), shortcut(active if projects else x)
    if residual is not None and same(out, torch.relu(residual + s)) and not same(out, residual + s):
        return claim, False, "A ReLU follows the addition: then it isn't pre-activation. Return the sum as it is."
    other = shortcut(x) if projects else active
    whose = (
        "The projection reads x: it must read what the first BN and ReLU give, as the first convolution does."
        if projects
        else "The identity shortcut adds what the first BN and ReLU give: it must add x itself."
    )
    mistakes = [
        (residual, 0, NOT_ADDED),
        (residual, other, whose),
        (along(x, "bc" * n, convs, norms), s, "The ReLUs are missing."),
        (along(x, "brc" * (n - 1), convs, norms), s, "The last convolution is left out."),
        (along(x, "cbr" * (n - 1) + "cb", convs, norms), shortcut(x), behind),
        (along(x, "cbr" * n, convs, norms), shortcut(x), behind),
    ]
    return _verdict(claim, out, residual + s if residual is not None else None, mistakes)
