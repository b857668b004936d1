"""Looking into a trained residual network; notebook 09.

Networks are models.ResNet with blocks that have a `shortcut` ("v1") or none ("plain"). Everything that changes a network is a context
manager and leaves it as it was. Images are normalised float batches (N, C, H, W) on the network's device.
"""

import contextlib
import copy
import functools

import torch
import torch.nn.functional as F
from torch import nn


def blocks(network):
    """The blocks of a models.ResNet, in order, and for each whether it keeps the shape of its input."""
    found = [block for stage in network.stages for block in stage]
    return found, [block.conv1.in_channels == block.conv2.out_channels and block.conv1.stride == (1, 1) for block in found]


@contextlib.contextmanager
def hooked(modules, hook):
    """hook(module, inputs, output) after each of the modules; what it returns takes the place of the output, unless it is None."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def deleted(network, numbers):
    """Without the layers of some blocks: only their shortcuts are left; a plain block gives back its input. Veit et al. 2016, section 4.1.

    numbers: of blocks. Raises ValueError for a plain block that changes the shape: without it, nothing fits.
    """
    found, keeps = blocks(network)
    for number in numbers:
        if not hasattr(found[number], "shortcut") and not keeps[number]:
            raise ValueError(f"block {number} has no shortcut and changes the shape: it cannot be deleted")
    return hooked([found[n] for n in numbers], lambda block, inputs, output: getattr(block, "shortcut", nn.Identity())(inputs[0]))


@contextlib.contextmanager
def swapped(network, one, other):
    """With two blocks exchanged. Veit et al. 2016, section 4.3. Raises ValueError if their shapes differ."""
    found, keeps = blocks(network)
    if not (keeps[one] and keeps[other]) or found[one].conv1.in_channels != found[other].conv1.in_channels:
        raise ValueError(f"blocks {one} and {other} cannot be exchanged: their shapes differ")
    first, second = found[one], found[other]
    before = first.forward, second.forward
    first.forward, second.forward = before[::-1]
    try:
        yield
    finally:
        del first.forward, second.forward


@torch.no_grad()
def added(network, images):
    """How much each block adds: the mean over the images of ‖F(x)‖ / ‖shortcut(x)‖, one number for each block. v1 only."""
    found, _ = blocks(network)
    sizes, ratios = {}, [0.0] * len(found)

    def residual(number, norm, inputs, output):
        sizes[number] = output.flatten(1).norm(dim=1)

    def whole(block, inputs, output):
        number = found.index(block)
        ratios[number] = (sizes[number] / block.shortcut(inputs[0]).flatten(1).norm(dim=1)).mean().item()

    with contextlib.ExitStack() as stack:
        for number, block in enumerate(found):
            stack.enter_context(hooked([block.bn2], functools.partial(residual, number)))
        stack.enter_context(hooked(found, whole))
        network.eval()(images)
    return ratios


@contextlib.contextmanager
def one_path(network, through):
    """With gradients along one path only: through the layers of the blocks in `through`, and the shortcuts of all others. v1 only.

    What the network computes stays the same. Veit et al. 2016, section 5.
    """
    found, _ = blocks(network)

    def forward(block, layers, x):
        residual = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        shortcut = block.shortcut(x)
        return F.relu(residual + shortcut.detach() if layers else residual.detach() + shortcut)

    for number, block in enumerate(found):
        block.forward = functools.partial(forward, block, number in through)
    try:
        yield
    finally:
        for block in found:
            del block.forward


def path_gradient(network, images, labels, through):
    """Norm of the gradient of the loss with respect to the images that comes along one path (see `one_path`)."""
    images = images.detach().requires_grad_()
    with one_path(network, through):
        loss = F.cross_entropy(network.eval()(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient.norm().item()


def receptive_field(network, images, stage=None):
    """How much each pixel moves the middle of a feature map: mean |gradient| of its channels' sum, (H, W), the largest being 1.

    stage: whose output is looked at; the last one unless given. Luo et al. 2016, section 3.
    """
    images, kept = images.detach().requires_grad_(), []
    layer = network.stages[-1 if stage is None else stage]
    with hooked([layer], lambda module, inputs, output: kept.append(output)):
        network.eval()(images)
    height, width = kept[0].shape[2:]
    (gradient,) = torch.autograd.grad(kept[0][:, :, height // 2, width // 2].sum(), images)
    field = gradient.abs().sum(1).mean(0)
    return field / field.max()


@torch.no_grad()
def landscape(network, one, other, steps, loss):
    """loss(network) at weights + a · one + b · other for all a, b in `steps`: a tensor (len(steps), len(steps)), a by row.

    one, other: a tensor for each parameter. Li et al. 2018, section 4.
    """
    moved = copy.deepcopy(network).eval()
    start, found = [weight.clone() for weight in moved.parameters()], torch.zeros(len(steps), len(steps))
    for row, a in enumerate(steps):
        for column, b in enumerate(steps):
            for weight, origin, first, second in zip(moved.parameters(), start, one, other, strict=True):
                weight.copy_(origin + a * first + b * second)
            found[row, column] = loss(moved)
    return found


def grad_cam(network, layer, images, classes):
    """Where a network looks for a class: (N, h, w) maps in the size of the layer's output, from 0 to 1. Selvaraju et al. 2017, section 3.

    classes: (N) the class to explain for each image. The weight of a channel is the mean of its gradient over the map.
    """
    kept = []
    with hooked([layer], lambda module, inputs, output: kept.append(output)):
        logits = network.eval()(images)
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept[0])
    maps = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)).detach()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
