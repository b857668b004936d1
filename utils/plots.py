"""Plots in one style: training curves of several runs, grids of images. Nothing here knows where the numbers come from."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from .files import atomic_write

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

    runs: {name: history}, a history being an object or a dict with train_loss, train_accuracy, val_loss, val_accuracy; or
    {name: list of histories}, one for each seed: the line is their mean, the band reaches from the lowest to the highest.
    title: should name the data set and the budget. gap: add a panel with training minus validation accuracy.
    """
    panels = 3 if gap else 2
    figure, axes = plt.subplots(1, panels, figsize=(5.5 * panels, 4.6), layout="constrained")
    for number, (name, histories) in enumerate(runs.items()):
        histories = [h if isinstance(h, dict) else vars(h) for h in (histories if isinstance(histories, list) else [histories])]
        seeds = {key: np.array([history[key] for history in histories]) for key in histories[0]}  # each (seeds, epochs)
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        epochs = np.arange(1, seeds["val_loss"].shape[1] + 1)
        marks = {"marker": MARKERS[number % len(MARKERS)], "markevery": max(1, len(epochs) // 8), "markersize": 6}
        for axis, what, scale in ((axes[0], "loss", 1), (axes[1], "accuracy", 100)):
            validation = scale * seeds[f"val_{what}"]
            axis.plot(epochs, scale * seeds[f"train_{what}"].mean(0), **look, linewidth=1, alpha=0.6)
            axis.plot(epochs, validation.mean(0), **look, **marks, label=name)
            if len(histories) > 1:
                axis.fill_between(epochs, validation.min(0), validation.max(0), color=look["color"], alpha=0.15, linewidth=0)
        if gap:
            difference = 100 * (seeds["train_accuracy"] - seeds["val_accuracy"]).mean(0)
            axes[2].plot(epochs, difference, **look, **marks, label=name)
    axes[0].set(title="Loss", ylabel="cross-entropy per image")
    low, high = axes[0].dataLim.intervaly
    if high > 100 * low:  # a run that went wild must not flatten all others
        axes[0].set_yscale("log")
    axes[1].set(title="Accuracy", ylabel="% of images")
    if gap:
        axes[2].axhline(0, color="gray", linewidth=1)
        axes[2].set(title="Gap: training − validation", ylabel="percentage points")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].plot([], [], color="gray", linewidth=1, label="thin: training")  # after the runs, so that it comes last
    if len(runs) > 5:  # more than fit between the lines
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, handlelength=3)
    else:
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


def line_panels(x, panels, ylabel, title, xlabel="layers", scale="log"):
    """Lines over x (depths, blocks, steps); one panel beside the other. panels: {title: {name: values}}.

    values: one for each x, or a list of such lists, one for each seed: the line is their mean, the band reaches from the lowest to
    the highest.
    """
    few = len(x) < 10  # each x has a marker and a tick, and the panels can be compared
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.6), sharey=few, squeeze=False, layout="constrained")
    for axis, (panel, lines) in zip(axes[0], panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            seeds = np.atleast_2d(values)
            look = {"color": COLOURS[number], "linestyle": DASHES[number]}
            marks = {"marker": MARKERS[number], "markevery": 1 if few else len(x) // 9}
            axis.plot(x, seeds.mean(0), label=name, **marks, **look)
            if len(seeds) > 1:
                axis.fill_between(x, seeds.min(0), seeds.max(0), color=look["color"], alpha=0.15, linewidth=0)
        axis.set(title=panel, xlabel=xlabel, yscale=scale)
        if few:
            axis.set_xticks(x)
    axes[0, 0].set_ylabel(ylabel)
    axes[0, 0].legend(frameon=False, handlelength=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def residual_blocks():
    """A drawing of the residual block, with the identity and with a projection as shortcut (He et al. 2015, Figure 2)."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.6), layout="constrained")
    drawings = (
        ("The shape stays the same", "x: C channels, H × W", "3×3 convolution, C → C", None),
        ("Stride 2, twice the channels", "x: C channels, H × W", "3×3 convolution, C → 2C, stride 2", "1×1 convolution\nC → 2C, stride 2"),
    )
    for axis, (title, start, first, projection) in zip(axes, drawings, strict=True):
        axis.set(title=title, xlim=(-2.2, 3.6), ylim=(-7.4, 0.8))
        axis.axis("off")
        second = "3×3 convolution, 2C → 2C" if projection else first
        end = "y: 2C channels, H/2 × W/2" if projection else "y: C channels, H × W"
        arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
        steps = (first, "BN", "ReLU", second, "BN")
        axis.text(0, 0.3, start, ha="center", va="bottom")
        for number, step in enumerate(steps):
            axis.annotate("", (0, -number - 0.2), (0, 0.25 - number), arrowprops=arrow)
            box = {"boxstyle": "round,pad=0.35", "facecolor": "white" if "conv" in step else "#e8e8e8", "edgecolor": "black"}
            axis.text(0, -number - 0.45, step, ha="center", va="center", bbox=box, fontsize=11)
        axis.text(-1.9, -2.45, "F(x)", ha="center", va="center", fontsize=14, style="italic")
        axis.annotate("", (0, -5.25), (0, -4.75), arrowprops=arrow)
        axis.text(0, -5.5, "+", ha="center", va="center", fontsize=15, bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white"})
        axis.plot([0, 2.4, 2.4], [0.1, 0.1, -5.5], color=COLOURS[1], linewidth=2.5, solid_joinstyle="round")
        axis.annotate("", (0.3, -5.5), (2.43, -5.5), arrowprops=arrow | {"color": COLOURS[1], "linewidth": 2.5})
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": COLOURS[1]}
        axis.text(2.4, -2.45, projection or "identity: x", ha="center", va="center", bbox=box, fontsize=11)
        axis.annotate("", (0, -6.2), (0, -5.8), arrowprops=arrow)
        axis.text(0, -6.45, "ReLU", ha="center", va="center", bbox=box | {"facecolor": "#e8e8e8", "edgecolor": "black"}, fontsize=11)
        axis.annotate("", (0, -7.1), (0, -6.72), arrowprops=arrow)
        axis.text(0, -7.15, end, ha="center", va="top")
    return figure


def save(figure, path):
    """Write a figure as path.png and path.pdf, each under its final name only once it is whole; returns the two paths."""
    files = [Path(f"{path}.png"), Path(f"{path}.pdf")]
    for file, metadata in zip(files, ({"Software": None}, {"CreationDate": None, "Producer": None}), strict=True):  # no dates in them
        with atomic_write(file) as partial:
            figure.savefig(partial, metadata=metadata)
    return files
