"""Plots in one style: training curves of several runs, grids of images. Nothing here knows where the numbers come from."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's colours can be told apart by colour-blind people; line style and marker do the same in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = "os^Dvx*"
DASHES = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 2, 2)), (0, (2, 2)), (0, (4, 1, 1, 1, 1, 1)))

plt.rcParams.update({
    "figure.dpi": 100, "savefig.dpi": 150, "font.size": 12, "axes.titlesize": 13, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 2,
})  # fmt: skip


def curves(runs, title, gap=False):
    """Loss and accuracy by epoch of several runs on one plot, training thin and validation thick.

    runs: {name: history}, a history being an object or a dict with train_loss, train_accuracy, val_loss, val_accuracy.
    title: should name the data set and the budget. gap: add a panel with training minus validation accuracy.
    """
    runs = {name: history if isinstance(history, dict) else vars(history) for name, history in runs.items()}
    panels = 3 if gap else 2
    figure, axes = plt.subplots(1, panels, figsize=(5.5 * panels, 4.6), layout="constrained")
    for number, (name, history) in enumerate(runs.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        epochs = np.arange(1, len(history["val_loss"]) + 1)
        for axis, what, scale in ((axes[0], "loss", 1), (axes[1], "accuracy", 100)):
            axis.plot(epochs, np.multiply(history[f"train_{what}"], scale), **look, linewidth=1, alpha=0.6)
            marks = {"marker": MARKERS[number % len(MARKERS)], "markevery": max(1, len(epochs) // 8), "markersize": 6}
            axis.plot(epochs, np.multiply(history[f"val_{what}"], scale), **look, **marks, label=name)
        if gap:
            difference = 100 * np.subtract(history["train_accuracy"], history["val_accuracy"])
            axes[2].plot(epochs, difference, **look, **marks, label=name)
    axes[0].set(title="Loss", ylabel="cross-entropy per image")
    axes[1].set(title="Accuracy", ylabel="% of images")
    if gap:
        axes[2].axhline(0, color="gray", linewidth=1)
        axes[2].set(title="Gap: training − validation", ylabel="percentage points")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].plot([], [], color="gray", linewidth=1, label="thin: training")  # after the runs, so that it comes last
    axes[0].legend(frameon=False, handlelength=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def image_grid(images, labels=None, columns=8, title=None, colours=None):
    """A grid of images (uint8, N×C×H×W or N×H×W×C), each with its label above it.

    colours: one text colour for each label.
    """
    rows = -(-len(images) // columns)
    lines = max((str(label).count("\n") + 1 for label in labels), default=0) if labels is not None else 0
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.35 * columns, (1.35 + 0.2 * lines) * rows + 0.4 * bool(title)), squeeze=False, layout="constrained"
    )
    for number, axis in enumerate(axes.flat):
        axis.axis("off")
        if number >= len(images):
            continue
        image = np.asarray(images[number])
        image = image.transpose(1, 2, 0) if image.shape[0] in (1, 3) else image
        axis.imshow(image.squeeze(), cmap="gray", interpolation="nearest")
        if labels is not None:
            axis.set_title(labels[number], fontsize=9, loc="center", color=colours[number] if colours else "black")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def save(figure, path):
    """Write figure as path.png and path.pdf, each under its final name only once it is whole."""
    for ending, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Producer": None})):
        partial = Path(f"{path}.partial{ending}")
        figure.savefig(partial, metadata=metadata)
        os.replace(partial, f"{path}{ending}")
