"""Right and wrong answers to the exercises of notebook 06."""

import torch.nn.functional as F
from torch import nn

from utils import checks, models


def plain(*order, bias=False, at=0, kernel=3, wrap=lambda block, x: F.relu(block(x))):
    """A class for a plain block: c a convolution, b a BN, r a ReLU; at: the convolution that has the stride."""

    class Block(nn.Module):
        def __init__(self, in_channels, channels, stride=1):
            super().__init__()
            layers, now = [], in_channels
            for step in order or "cbrcb":
                if step == "c":
                    number = sum(isinstance(layer, nn.Conv2d) for layer in layers)
                    layers.append(nn.Conv2d(now, channels, kernel, stride if number == at else 1, kernel // 2, bias=bias))
                    now = channels
                else:
                    layers.append(nn.BatchNorm2d(now) if step == "b" else nn.ReLU())
            self.layers = nn.Sequential(*layers)

        def forward(self, x):
            return wrap(self.layers, x)

    return Block


def added(block, x):
    out = block(x)
    return F.relu(out + x if out.shape == x.shape else out)


class Projected(models.ResidualBlock):
    """The residual block with its projection."""


class InPlace(nn.Sequential):
    """A right block, as an nn.Sequential."""

    def __init__(self, cin, cout, stride=1):
        super().__init__(
            nn.Conv2d(cin, cout, (3, 3), stride, padding=(1, 1), bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, (3, 3), padding="same", bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
        )  # fmt: skip


def layers(network, kinds=(nn.Conv2d, nn.Linear), leave_out=("shortcut",)):
    return [m for name, m in network.named_modules() if isinstance(m, kinds) and not any(part in name for part in leave_out)]


EXERCISES = {
    checks.plain_block: (
        {"the shared one": models.PlainBlock, "as taught": plain(), "nn.Sequential": InPlace},
        {
            "with a shortcut": (
                plain(wrap=added),
                "Leave out the shortcut",
            ),
            "with a projection": (Projected, "so no projection"),
            "no last ReLU": (plain(wrap=lambda block, x: block(x)), "The last ReLU is missing"),
            "no ReLU between": (plain(*"cbcb"), "The ReLU between the convolutions is missing"),
            "ReLU before BN": (plain(*"crbcb"), "their order differs"),
            "one BN": (plain(*"cbrc"), "One behind each convolution"),
            "bias": (plain(bias=True), "bias=False"),
            "stride on the second": (plain(at=1), "Found [(3, 16, 32, 1), (3, 32, 32, 2)]"),
            "1×1": (plain(kernel=1), "Found [(1, 16, 16, 1)"),
            "stride ignored": (plain(at=2), "Found [(3, 16, 32, 1), (3, 32, 32, 1)]"),
        },
    ),
    checks.paper_depth: (
        {
            "as taught": lambda network: len(layers(network)),
            "by parameters": lambda network: sum(p.ndim in (2, 4) for name, p in network.named_parameters() if "shortcut" not in name),
            "in parts": lambda network: len(layers(network.stem)) + len(layers(network.stages)) + len(layers(network.head)),
        },
        {
            "with shortcuts": (lambda network: len(layers(network, leave_out=())), "shortcuts don't count"),
            "no linear layer": (lambda network: len(layers(network, nn.Conv2d)), "The linear layer at the end counts"),
            "all convolutions, no linear layer": (
                lambda network: len(layers(network, nn.Conv2d, ())),
                "don't count, and the linear layer does",
            ),
            "with batch norms": (lambda network: len(layers(network, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))), "Batch norms don't count"),
            "3×3 only": (lambda n: sum(m.kernel_size == (3, 3) for m in layers(n, nn.Conv2d)) + 1, "tell the shortcuts by their names"),
            "blocks": (lambda network: sum(len(stage) for stage in network.stages), "Count the nn.Conv2d and nn.Linear"),
            "a list": (layers, "Return a whole number"),
        },
    ),
}
