"""Plots in one style: training curves of several runs, grids of images. Nothing here knows where the numbers come from."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from .files import atomic_write

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


def line_panels(x, panels, ylabel, title, xlabel="layers", scale="log", sharey=None):
    """Lines over x (depths, blocks, steps); one panel beside the other. panels: {title: {name: values}}.

    values: one for each x, or a list of such lists, one for each seed: the line is their mean, the band reaches from the lowest to
    the highest. sharey: whether all panels have one scale; unless given, they do where x has less than ten values.
    """
    few = len(x) < 10  # each x has a marker and a tick
    sharey = few if sharey is None else sharey
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.6), sharey=sharey, squeeze=False, layout="constrained")
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


def network(parts, title):
    """A drawing of a network from left to right: one box for a layer or a block, and over it the shortcut of the block.

    parts: [(name, shape of one image after it, number of blocks)], 0 blocks for what has no shortcut. Boxes shrink as images do. The
    first shortcut of a part is dashed if the part changes the shape: it needs a projection.
    """
    high = max(shape[-1] for _, shape, _ in parts if len(shape) == 3)
    figure, axis = plt.subplots(figsize=(12, 3.2), layout="constrained")
    x, before = 0.0, None
    for number, (name, shape, blocks) in enumerate(parts):
        half = 0.05 + 0.5 * (shape[-1] / high) ** 0.5 if len(shape) == 3 else 0.08  # the root: 7×7 must be seen beside 56×56
        middle = x + max(blocks, 2.2) / 2
        first = middle - max(blocks, 1) / 2
        for box in range(max(1, blocks)):
            left = first + box + 0.2
            colour = to_rgb(COLOURS[number % 4] if blocks else "#999999")
            look = {"facecolor": [0.45 + 0.55 * part for part in colour], "edgecolor": "black"}
            axis.add_patch(plt.Rectangle((left, -half), 0.6, 2 * half, zorder=2, **look))
            if blocks:
                dash = (0, (2, 1)) if box == 0 and shape != before else "-"
                around = [left - 0.1, left - 0.1, left + 0.7, left + 0.7], [0, half + 0.12, half + 0.12, 0.06]
                axis.plot(*around, color="black", linewidth=1.3, linestyle=dash)
                axis.plot(left + 0.7, 0.04, marker="v", color="black", markersize=4)
        axis.text(middle, 0.9, name, ha="center", va="center", fontsize=11)
        axis.text(middle, -0.75, "×".join(map(str, shape)), ha="center", va="center", fontsize=10)
        x, before = middle + max(blocks, 2.2) / 2 + 0.5, shape
    axis.plot([0, x], [0, 0], color="black", linewidth=1.3, zorder=1)
    axis.set(xlim=(-0.1, x + 0.1), ylim=(-0.95, 1.05), title=title)
    axis.axis("off")
    return figure


def bars(values, xlabel, title, published=None):
    """A horizontal bar for each name, as long as the mean over the seeds, with a point for each seed.

    values: {name: list of numbers, one for each seed}. published: {name: number}, drawn as a diamond beside ours.
    """
    figure, axis = plt.subplots(figsize=(9, 0.9 + 0.5 * len(values)), layout="constrained")
    for row, (name, seeds) in enumerate(values.items()):
        axis.barh(row, np.mean(seeds), height=0.62, color=COLOURS[0], alpha=0.35)
        axis.plot(seeds, np.full(len(seeds), row), "o", color=COLOURS[0], markersize=6)
        if published and name in published:
            axis.plot(published[name], row, "D", color=COLOURS[1], markersize=8)
    axis.set(xlabel=xlabel, yticks=range(len(values)), yticklabels=values)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    several = max(map(len, values.values())) > 1
    axis.plot([], [], "o", color=COLOURS[0], label="one seed each; the bar is their mean" if several else "one seed")
    if published:
        axis.plot([], [], "D", color=COLOURS[1], label="published")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def blocks(drawings, width=5):
    """Drawings of blocks, side by side, from the top to the bottom. drawings: {title: (path, shortcut, after)}.

    path: the operations of the main path, as short texts. shortcut: the text on the shortcut, "" for an arrow without one, None for a
    block that has no shortcut. after: the operations that follow the addition.
    """
    longest = max(len(path) + len(after) for path, _, after in drawings.values())
    figure, axes = plt.subplots(
        1, len(drawings), figsize=(width * len(drawings), 1.7 + 0.62 * longest), squeeze=False, layout="constrained"
    )
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}

    def box(axis, y, text, edge="black", x=0):
        fill = "#e8e8e8" if text in ("BN", "ReLU", "BN, ReLU") else "white"
        style = {"boxstyle": "round,pad=0.35", "facecolor": fill, "edgecolor": edge}
        axis.text(x, y, text, ha="center", va="center", bbox=style, fontsize=11, color="black", zorder=5)

    def steps(axis, y, texts):
        """Draw arrows and boxes one below the other; returns where the last box ends."""
        for text in texts:
            axis.annotate("", (0, y - 0.7), (0, y), arrowprops=arrow)
            box(axis, y - 0.95, text)
            y -= 1.1
        return y

    for axis, (title, (path, shortcut, after)) in zip(axes[0], drawings.items(), strict=True):
        axis.set(title=title, xlim=(-2.2, 3.4), ylim=(-1.1 * longest - 2.3, 0.7))
        axis.axis("off")
        axis.text(0, 0.15, "x", ha="center", va="bottom", style="italic", fontsize=13)
        y = steps(axis, 0.0, path)
        if shortcut is not None:
            axis.annotate("", (0, y - 0.6), (0, y), arrowprops=arrow)
            plus = {"boxstyle": "circle,pad=0.12", "facecolor": "white"}
            axis.text(0, y - 0.85, "+", ha="center", va="center", fontsize=14, zorder=5, bbox=plus)
            axis.plot([0, 2.3, 2.3], [0, 0, y - 0.85], color=COLOURS[1], linewidth=2.5, solid_joinstyle="round")
            axis.annotate("", (0.16, y - 0.85), (2.3, y - 0.85), arrowprops=arrow | {"color": COLOURS[1], "linewidth": 2.5})
            if shortcut:
                box(axis, y / 2 - 0.4, shortcut, edge=COLOURS[1], x=2.3)
            y -= 1.1
        y = steps(axis, y, after)
        axis.annotate("", (0, y - 0.6), (0, y), arrowprops=arrow)
        axis.text(0, y - 0.7, "y", ha="center", va="top", style="italic", fontsize=13)
    return figure


def save(figure, path):
    """Write a figure as path.png and path.pdf, each under its final name only once it is whole; returns the two paths."""
    files = [Path(f"{path}.png"), Path(f"{path}.pdf")]
    for file, metadata in zip(files, ({"Software": None}, {"CreationDate": None, "Producer": None}), strict=True):  # no dates in them
        with atomic_write(file) as partial:
            figure.savefig(partial, metadata=metadata)
        figure.set_layout_engine("none")  # it has found the layout: the next drawings need not search for it again
    return files
