"""The fast network of notebook 10 and its recipe, each part of which is built by hand there first; `make speedrun` runs it.

    model = FastNet(10)
    model.whiten(images)                                     # a batch as the loader gives it
    optimizer, scheduler = muon_recipe(model, steps, batch_size=2000)
    train.epoch(model, loader, criterion, optimizer, scheduler=scheduler)
    train.epoch(SixViews(model), test_loader, criterion)     # test-time augmentation

The recipe is airbench94 with Muon (K. Jordan, github.com/KellerJordan/cifar10-airbench, 2024), with shortcuts.
"""

import torch
import torch.nn.functional as F
from torch import nn

from . import data, train

# ---- the network ----------------------------------------------------------------------------------------------------


class Stage(nn.Module):
    """conv 3×3, 2×2 max-pooling, BN, GELU; then GELU(BN(x + F(x))), F being a conv 3×3, or several with BN and GELU in between.

    (N, in_channels, H, W) -> (N, channels, H / 2, W / 2), rounded down. Pooling before BN and GELU leaves these a quarter of the pixels.
    The BNs have no scale: the next convolution's weights do that. They average over the last few batches only, since the whole training
    has some hundred. branch: convolutions in F. shortcut: "inside" of the last BN, "outside", GELU(x + BN(F(x))), or "none".
    """

    def __init__(self, in_channels, channels, branch=1, shortcut="inside"):
        super().__init__()
        if shortcut not in ("inside", "outside", "none"):
            raise ValueError(f'shortcut must be "inside", "outside" or "none", got {shortcut!r}')
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = norm(channels)
        self.branch = nn.Sequential()
        for number in range(branch):
            self.branch.extend([norm(channels), nn.GELU()] if number else [])
            self.branch.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.last = norm(channels)
        self.shortcut = shortcut

    def forward(self, x):
        x = F.gelu(self.norm(F.max_pool2d(self.conv(x), 2)))
        if self.shortcut == "inside":
            return F.gelu(self.last(x + self.branch(x)))
        residual = self.last(self.branch(x))
        return F.gelu(x + residual if self.shortcut == "outside" else residual)


def norm(channels):
    """Batch norm without a scale, whose running statistics forget quickly."""
    layer = nn.BatchNorm2d(channels, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class FastNet(nn.Module):
    """A 2×2 convolution, three stages, global max-pooling and a linear layer: (N, 3, H, W) -> logits, H and W at least 17.

    1,972,792 parameters with 10 classes; 118.1 M multiply-accumulates for a 32×32 image. The linear layer starts from zero.
    identity: start each 3×3 convolution as one that hands its input on (identity initialisation).
    """

    def __init__(self, num_classes=10, widths=(64, 256, 256), branch=1, shortcut="inside", identity=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2)  # 24: the 12 directions in which 2×2 pixels of 3 colours can differ, each with both signs
        channels = (24, *widths)
        self.stages = nn.Sequential(*(Stage(i, o, branch, shortcut) for i, o in zip(channels, widths, strict=False)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.zeros_(self.head.weight)
        if identity:
            identity_(self.stages)

    def whiten(self, images):
        """Set the stem's kernels from a batch of training images, once and for all; its bias still learns."""
        with torch.no_grad():
            self.stem.weight.copy_(whitening(images))
            self.stem.bias.zero_()
        self.stem.weight.requires_grad = False

    def forward(self, x):
        x = self.stages(F.gelu(self.stem(x)))
        return self.head(x.amax((2, 3)))


def identity_(module):
    """Let each convolution in `module` hand its input on: of its filters, the first ones pick one input channel each.

    Where there are more filters than input channels, the others stay as they are drawn.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
    return module


def whitening(images, size=2, eps=1e-4):
    """Filters (2·C·size², C, size, size) whose outputs on images (N, C, H, W) are uncorrelated and of variance 1; each with both signs.

    They are the eigenvectors of the patches' second moments, divided by the square roots of their eigenvalues; eps keeps those that
    are next to nothing from being blown up. Coates and Ng 2012; Page 2019.
    """
    channels = images.shape[1]
    images = images.cpu() if images.device.type == "mps" else images  # which has no 64-bit numbers
    patches = F.unfold(images, size).transpose(1, 2).reshape(-1, channels * size**2).double()
    moments = (patches.T @ patches / len(patches)).round(decimals=6)  # so that every machine finds the same filters
    values, vectors = torch.linalg.eigh(moments.cpu())
    filters = (vectors / (values + eps).sqrt()).T.reshape(-1, channels, size, size)
    return torch.cat([filters, -filters]).to(images.device, torch.float32)


# ---- Muon -----------------------------------------------------------------------------------------------------------

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024: fast rather than exact


def orthogonalise(matrix, steps=5, coefficients=COEFFICIENTS):
    """The matrix with singular values near 1 and the same singular vectors, by Newton–Schulz: about U Vᵀ for U S Vᵀ.

    Each step puts an odd polynomial of the matrix in its place, aX + b(XXᵀ)X + c(XXᵀ)²X, which does the same to each singular value.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # the product below is then the smaller one
    x = x / (x.norm() + 1e-7)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised: it turns all directions of a kernel by the same angle. Jordan et al. 2024.

    For kernels that a batch norm follows: before each step, a kernel with n filters is given length √n, so lr is the size of a step
    relative to the kernel. Where the batch norm reads a kernel's output alone, the kernel's length is of no consequence.
    torch.optim.Muon takes matrices only, and decays weights instead.
    """

    def __init__(self, params, lr=0.24, momentum=0.6, newton_schulz=3):
        super().__init__(params, {"lr": lr, "momentum": momentum, "newton_schulz": newton_schulz})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state, momentum = self.state[kernel], group["momentum"]
                average = state.setdefault("average", torch.zeros_like(kernel))
                average.mul_(momentum).add_(kernel.grad)
                ahead = kernel.grad.add(average, alpha=momentum)  # Nesterov
                matrix = ahead.reshape(len(ahead), -1)
                matrix = matrix.bfloat16() if matrix.is_cuda else matrix
                turn = orthogonalise(matrix, group["newton_schulz"]).view_as(kernel)
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm()).sub_(turn.to(kernel.dtype), alpha=group["lr"])


def muon_recipe(model, steps, batch_size, lr=0.24, bias_lr=0.053, head_lr=0.67, decay=2e-6):
    """(optimizer, scheduler) for a FastNet and a training of `steps` batches: Muon for its kernels, SGD for all else.

    All rates go down to 0 in a straight line, that of the stem's bias within the first 3/8 of the steps. lr: of Muon. bias_lr and head_lr
    are for *sums* over a batch's losses, as published, and for logits that are divided by the width of the last layer.
    """
    width = model.head.in_features
    kernels = [p for p in model.stages.parameters() if p.ndim == 4]
    biases = [p for p in model.stages.parameters() if p.ndim == 1 and p.requires_grad]
    bias_lr, head_lr, decay = bias_lr * batch_size, head_lr * batch_size / width**2, decay * batch_size
    groups = [
        {"params": biases, "lr": bias_lr, "weight_decay": decay / bias_lr},
        {"params": [model.head.weight], "lr": head_lr, "weight_decay": decay / head_lr},
        {"params": [model.stem.bias], "lr": bias_lr, "weight_decay": decay / bias_lr},
    ]
    stem = [model.stem.weight] if model.stem.weight.requires_grad else []
    optimizer = train.Together(torch.optim.SGD(groups, lr=bias_lr, momentum=0.85, nesterov=True), Muon(kernels + stem, lr=lr))
    early = max(1, round(steps * 3 / 8))

    def falling(step):
        return max(0.0, 1 - step / steps)

    def falling_early(step):
        return max(0.0, 1 - step / early)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, [falling, falling, falling_early, falling])


# ---- the whole --------------------------------------------------------------------------------------------------------

SHARED = {"branch": 1, "shortcut": "inside", "batch": 2000, "lr": 0.24, "smoothing": 0.2}
RECIPES = {  # sizes: of the images, from the first epochs to the last, as many epochs each
    "cifar10": SHARED | {"epochs": 14, "widths": (64, 256, 256), "sizes": (24, 32, 32)},
    "cifar100": SHARED | {"epochs": 18, "widths": (128, 384, 512), "sizes": (24, 32, 32)},
}
TURNS = data.Augment(flip="alternating", rotate=0, crop_padding=2, padding_mode="reflect")


def by_epoch(sizes, epochs):
    """The size of the images in each epoch: (24, 32, 32), 6 -> (24, 24, 32, 32, 32, 32)."""
    return tuple(sizes[number * len(sizes) // epochs] for number in range(epochs))


def loader(split, batch_size, sizes, seed, device):
    """The loader of the recipe; on a GPU it augments a whole epoch at once. sizes: one for each epoch."""
    device = torch.device(device)
    ahead = max(1, len(split) // batch_size) if device.type == "cuda" else 1
    return data.BatchLoader(split, batch_size, TURNS, shuffle=True, seed=seed, device=device, size=sizes, drop_last=True, ahead=ahead)


# ---- at test time ---------------------------------------------------------------------------------------------------


class SixViews(nn.Module):
    """The mean of a network's logits over six views of each image: as it is, shifted by a pixel up and left, down and right; and mirrored.

    The two views that are not shifted count for half. Test-time augmentation as airbench does it.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), "reflect")
        shifted = padded[:, :, :height, :width], padded[:, :, 2:, 2:]
        return self.both(images) / 2 + sum(map(self.both, shifted)) / 4

    def both(self, images):
        return (self.model(images) + self.model(images.flip(3))) / 2
