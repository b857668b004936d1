"""Instruments that look into a training program, whatever network, loader or loop it is made of; notebook 07 teaches each of them.

What they have in common: `batches` is anything that yields (images, labels), a loader or a list; `step(images, labels)` is one training
step of your program; `train(...)` is a training run of your program, as short as you like. Instruments change the network that they are
given: build a new one for each. They return a `Reading`: a dictionary that prints as a table.

Several of the ideas are from A. Karpathy, "A Recipe for Training Neural Networks" (2019): the first loss against ln(classes), the
input-independent baseline, overfitting one batch, and the dependence of one output on the other images of the batch.
"""

import contextlib
import copy
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from . import plots


class Reading(dict):
    """What an instrument found, {row: tuple of numbers or words}, one for each of `columns`; it prints as a table."""

    def __init__(self, columns, rows):
        super().__init__({name: row if isinstance(row, tuple) else (row,) for name, row in rows.items()})
        self.columns = columns

    def __repr__(self):
        table = [("", *self.columns)] + [(str(name), *map(_short, row)) for name, row in self.items()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
        return "\n".join(line.rstrip() for line in lines)


def _short(value):
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10_000 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextlib.contextmanager
def outputs(model):
    """Within this block, keep what the network gives: yields a list, to which each forward pass adds its logits (N, classes)."""
    seen = []
    handle = model.register_forward_hook(lambda _, args, logits: seen.append(logits.detach()))
    try:
        yield seen
    finally:
        handle.remove()


@contextlib.contextmanager
def optimizer_steps(before, after):
    """Within this block, call before() and after() around each step of any optimizer."""
    handles = [
        register_optimizer_step_pre_hook(lambda *_: before()),
        register_optimizer_step_post_hook(lambda *_: after()),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def weights(model):
    """The weights of all layers that multiply, {name of the layer: weight}; no biases, no batch norm."""
    return {name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.ndim > 1}


# ---- before training ------------------------------------------------------------------------------------------------


def first_loss(evaluate, classes):
    """What your program says of a network that has learnt nothing, beside what guessing gives: loss ln(classes), accuracy 1 / classes.

    evaluate() -> (loss in nats per image, accuracy from 0 to 1), as your program computes them.
    """
    return Reading(("loss", "accuracy"), {"the program says": evaluate(), "guessing": (math.log(classes), 1 / classes)})


def shape_trace(model, images):
    """Each layer in the order of its use: shape of its output, number of its parameters, share of its output that is negative.

    images: (N, C, H, W). A layer named "?" is used but not registered: `model.parameters()` does not know it.
    """
    names, rows = {module: name for name, module in model.named_modules()}, {}

    def note(module, args, output):
        if isinstance(module, (nn.Sequential, nn.Identity)):
            return
        kind = type(module).__name__
        if isinstance(module, nn.Conv2d):
            kind += f" {module.kernel_size[0]}×{module.kernel_size[1]}, stride {module.stride[0]}"
        shape = "×".join(map(str, output.shape[1:]))
        own = sum(p.numel() for p in module.parameters())
        rows[f"{len(rows) + 1:2} {names.get(module, '?') or 'network'}"] = (kind, shape, own, (output < 0).float().mean().item())

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return Reading(("layer", "output", "parameters", "negative"), rows)


def look_at_images(loaders, passes=2, mean=0.5, std=0.5, draw=True):
    """The images as they leave each loader, as pictures and in numbers, for several passes over the same loader.

    likeness: the correlation of a pixel with the one below it; about 0.9 in photographs, which are smooth.
    loaders: {name: loader}. mean, std: of your normalisation; the pictures undo it, and cut off what then is not from 0 to 1.
    """
    rows, pictures = {}, []
    for name, loader in loaders.items():
        for number in range(1, passes + 1):
            images = torch.cat([images for images, _ in loader])
            below = torch.corrcoef(torch.stack([images[:, :, :-1].flatten(), images[:, :, 1:].flatten()]))[0, 1]
            numbers = (images.mean(), images.std(), images.min(), images.max(), below)
            rows[f"{name}, pass {number}"] = tuple(number.item() for number in numbers)
            spread = torch.linspace(0, len(images) - 1, 8).long()
            pictures += [(name, number, picture) for picture in images[spread] * std + mean]
    if draw:
        shown = [(255 * picture.clamp(0, 1)).byte().cpu().numpy() for _, _, picture in pictures]
        plots.image_grid(shown, [f"{name} {number}" for name, number, _ in pictures], columns=8)
        plt.show()
    return Reading(("mean", "std", "min", "max", "likeness"), rows)


def look_at_labels(loader, classes, draw=True):
    """Images with the names of their labels, and three numbers about the labels of one pass.

    Nearest class mean: a tenth-rate classifier that needs no training. It takes the mean image of each class over half of the images, and
    gives each image of the other half the class whose mean is nearest. Labels that have nothing to do with the images leave it at chance.
    """
    batches = list(loader)
    images, labels = (torch.cat(part).cpu() for part in zip(*batches, strict=True))
    pixels, fit, test = images.flatten(1), slice(0, None, 2), slice(1, None, 2)
    present = labels[fit].unique()
    means = torch.stack([pixels[fit][labels[fit] == label].mean(0) for label in present])
    nearest = present[torch.cdist(pixels[test], means).argmin(1)]
    if draw:
        shown = ((images[:16] * 0.5 + 0.5).clamp(0, 1) * 255).byte().numpy()
        plots.image_grid(shown, [classes[label] for label in labels[:16]], columns=8)
        plt.show()
    different = [len(part.unique()) for _, part in batches[:4]]
    return Reading(("value",), {
        "different labels in each of the first batches": ", ".join(map(str, different)),
        "share of the most frequent label": labels.bincount().max().item() / len(labels),
        "nearest class mean, share right": (nearest == labels[test]).float().mean().item(),
        "guessing, share right": 1 / len(present),
    })  # fmt: skip


# ---- some steps of training -----------------------------------------------------------------------------------------


def overfit_one_batch(model, step, images, labels, steps=60):
    """Loss and accuracy on one small batch that the program sees again and again: a sound program learns it by heart, to a loss near 0.

    Both are computed here, from the logits that the network gives during `step`, whatever the program itself reports.
    """
    with outputs(model) as seen:
        for _ in range(steps):
            step(images, labels)
    rows = {}
    for number in sorted({1, steps // 6, steps // 3, steps // 2, steps}):
        logits = seen[number - 1]
        rows[f"step {number}"] = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()
    return Reading(("loss", "accuracy"), rows)


def gradient_norms(model, step, batches):
    """The length of each layer's gradient after the last of some steps: as the program left it, and computed afresh for that batch alone.

    The two columns agree unless the program adds something to the gradient. A layer without a gradient has 0.
    """
    for images, labels in batches:
        before = copy.deepcopy(model)
        step(images, labels)
    before.train()
    F.cross_entropy(before(images), labels).backward()
    norm = lambda p: 0.0 if p.grad is None else p.grad.norm().item()  # noqa: E731
    fresh = weights(before)
    return Reading(("left by the program", "of this batch"), {name: (norm(p), norm(fresh[name])) for name, p in weights(model).items()})


def weights_moved(model, train):
    """For each layer, the share of its weights that train() changed at all: from 0, nothing, to 1."""
    before = {name: p.detach().clone() for name, p in weights(model).items()}
    train()
    return Reading(("share moved",), {name: (p != before[name]).float().mean().item() for name, p in weights(model).items()})


def update_ratios(model, train, shown=8):
    """How long each step of train() is, relative to the weights: ‖change‖ / ‖weights‖ over all layers. Healthy: about 1e-3 to 1e-2.

    A learning rate that follows a schedule shows in it: the ratio rises and falls as the schedule does.
    """
    ratios, before = [], []

    def length(tensors):
        return math.sqrt(sum(t.square().sum().item() for t in tensors))

    def after():
        now = list(weights(model).values())
        change = length(p.detach() - old for p, old in zip(now, before, strict=True))
        ratios.append(change / length(before))

    with optimizer_steps(lambda: before.__setitem__(slice(None), [p.detach().clone() for p in weights(model).values()]), after):
        train()
    chosen = sorted({round(k * (len(ratios) - 1) / (shown - 1)) for k in range(shown)})
    return Reading(("update / weight",), {f"step {k + 1} of {len(ratios)}": ratios[k] for k in chosen})


def input_baseline(train, batches, val_batches):
    """Does the program use its images? Loss and accuracy on validation images after a training on images, and after one on blank ones.

    train(batches) -> a new network, trained on them. With blank images it can only learn how frequent each class is. A program that sees
    images must do better. Loss and accuracy are computed here, in evaluation mode.
    """
    rows = {}
    for name, factor in (("images", 1), ("blank images", 0)):
        model = train([(images * factor, labels) for images, labels in batches]).eval()
        with torch.no_grad():
            logits = torch.cat([model(images * factor) for images, _ in val_batches])
        labels = torch.cat([labels for _, labels in val_batches])
        rows[name] = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()
    return Reading(("loss", "accuracy"), rows)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def batch_sizes(evaluate, sizes=(10, 100)):
    """The same network evaluated on the same images in batches of two sizes: the numbers must be equal, to rounding.

    evaluate(batch_size) -> (loss, accuracy), as your program computes them.
    """
    return Reading(("loss", "accuracy"), {f"batches of {size}": evaluate(size) for size in sizes})


def dependence(model, evaluate, images):
    """How much the logits of the first image change when the *other* images of its batch do: 0 in a sound evaluation.

    evaluate(images): your program's evaluation on this batch (N, C, H, W). The second row is for the same network after model.eval().
    """

    def change(run):
        with outputs(model) as seen, torch.no_grad():
            run(images)
            run(torch.cat([images[:1], -images[1:]]))
        return (seen[0][0] - seen[-1][0]).abs().max().item()

    return Reading(("change of the first image's logits",), {
        "as the program evaluates": change(evaluate),
        "after model.eval()": change(model.eval()),
    })  # fmt: skip


class _Counted:
    """A loader that notes how many optimizer steps were done whenever a pass over it begins."""

    def __init__(self, loader, steps):
        self.loader, self.steps, self.passes = loader, steps, []

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        self.passes.append(self.steps[0])
        return iter(self.loader)


def data_use(train, loaders):
    """Which images the program reads, and when: for each loader, the number of passes over it, and the optimizer steps done before each.

    loaders: {name: loader}; train(*loaders) runs the program on them. The test images should be read once, after the last step.
    """
    steps = [0]
    counted = {name: _Counted(loader, steps) for name, loader in loaders.items()}
    with optimizer_steps(lambda: None, lambda: steps.__setitem__(0, steps[0] + 1)):
        train(*counted.values())
    return Reading(("passes", "optimizer steps before each"), {
        name: (len(loader.passes), ", ".join(map(str, loader.passes))) for name, loader in counted.items()
    })  # fmt: skip
