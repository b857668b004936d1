"""Checks of notebook 06: the plain block, and how papers count layers."""

import torch
from torch import nn

from .. import models
from .blocks import along, disturb, same
from .framework import count_parameters, exercise, inputs


@exercise("6.1", "PlainBlock", raw=True, causes=[("", "The stride belongs to the first convolution alone, and both have padding=1.")])
def plain_block(cls):
    """cls(in_channels, channels, stride=1): conv 3×3, BN, ReLU, conv 3×3, BN, ReLU, and no shortcut."""
    for in_channels, channels, stride, parameters in ((16, 16, 1, 4_672), (16, 32, 2, 13_952)):
        name = f"{in_channels} → {channels} channels, stride {stride}"
        block, x = disturb(cls(in_channels, channels, stride)).eval(), torch.randn(2, in_channels, 8, 8)
        out, seen = inputs(block, (nn.Conv2d, nn.BatchNorm2d), x.clone())
        convs = [m for m, _ in seen if isinstance(m, nn.Conv2d)]
        norms = [m for m, _ in seen if isinstance(m, nn.BatchNorm2d)]
        found = [(m.kernel_size[0], m.in_channels, m.out_channels, m.stride[0]) for m in convs]
        expected = [(3, in_channels, channels, stride), (3, channels, channels, 1)]
        more = "\nA plain block has no shortcut, and so no projection." if any(kernel == 1 for kernel, *_ in found) else ""
        yield f"{name}: convolutions (kernel, in, out, stride): {expected}", found == expected, f"Found {found}.{more}"
        yield f"{name}: two BNs", len(norms) == 2, f"Found {len(norms)}.\nOne behind each convolution."
        if found != expected or len(norms) != 2:
            return
        main = along(x, "cbrcb", convs, norms)
        hint = "The layers are there, but their order differs: twice convolution, BN, ReLU."
        if same(out, main):
            hint = "The last ReLU is missing: without the addition, it follows the second BN."
        elif main.shape == x.shape and same(out, torch.relu(main + x)):
            hint = "Leave out the shortcut: the block returns ReLU(F(x))."
        elif same(out, torch.relu(along(x, "cbcb", convs, norms))):
            hint = "The ReLU between the convolutions is missing."
        yield f"{name}: the output is ReLU(BN(conv(ReLU(BN(conv(x))))))", same(out, torch.relu(main)), hint
        count = count_parameters(block)
        yield f"{name}: {parameters:,} parameters", count == parameters, f"Found {count:,}.\nThe convolutions have no bias: bias=False."


@exercise("6.2", "paper_depth", raw=True, causes=[("", "It is called with a network, and looks at network.named_modules().")])
def paper_depth(function):
    """function(network): convolutions on the main path plus linear layers; no shortcuts (He et al. 2015, Table 1)."""
    with torch.device("meta"):
        cases = {
            "cifar_resnet(20)": (models.cifar_resnet(20), 20),
            'cifar_resnet(56, "plain")': (models.cifar_resnet(56, "plain"), 56),
            "resnet18()": (models.resnet18(), 18),
            "preact_resnet50()": (models.preact_resnet50(), 50),
            "resnet25()": (models.resnet25(), 50),
        }
    for name, (network, depth) in cases.items():
        found = function(network)
        if not isinstance(found, int):
            yield f"{name}: {depth} layers", False, f"Found {type(found).__name__}.\nReturn a whole number."
            return
        kinds = [type(m) for m in network.modules()]
        convs = kinds.count(nn.Conv2d)
        projections = convs + 1 - depth
        hints = {
            depth + projections: "The 1×1 convolutions of the shortcuts don't count: their names contain “shortcut”.",
            depth - 1 + projections: "The shortcuts' convolutions don't count, and the linear layer does.",
            depth - 1: "The linear layer at the end counts, too.",
            depth + kinds.count(nn.BatchNorm2d): "Batch norms don't count: only layers with a matrix of weights do.",
            sum(m.kernel_size == (3, 3) for m in network.modules() if isinstance(m, nn.Conv2d)) + 1: (
                "A 1×1 convolution on the main path counts, and so does the 7×7 convolution of a stem: tell the shortcuts by their names."
            ),
        }
        hint = hints.get(found, "Count the nn.Conv2d and nn.Linear among network.named_modules(), without the shortcuts.")
        yield f"{name}: {depth} layers", found == depth, f"Found {found}.\n{hint}"
