"""Made-up images that can be learnt, for when there is no network and no data set."""

import numpy as np

# Made-up classes: a form, drawn where its function of (x, y) is true (about -1 to 1 inside the form), in a colour.
FORMS = {
    "disc": lambda x, y: np.hypot(x, y) < 0.9,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.8) < 0.2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "frame": lambda x, y: abs(np.maximum(abs(x), abs(y)) - 0.8) < 0.2,
    "diamond": lambda x, y: abs(x) + abs(y) < 1,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.25) & (np.maximum(abs(x), abs(y)) < 1),
    "bar": lambda x, y: (abs(x) < 1) & (abs(y) < 0.35),
    "stripes": lambda x, y: (abs(x) < 1) & (abs(y) < 1) & (np.floor(y * 4) % 2 == 0),
    "checks": lambda x, y: (abs(x) < 1) & (abs(y) < 1) & ((np.floor(x * 3) + np.floor(y * 3)) % 2 == 0),
    "wedge": lambda x, y: (abs(x) < 1) & (abs(y) < 1) & (x > y),
}
COLOURS = {
    "red": (230, 40, 40), "orange": (240, 140, 20), "yellow": (235, 225, 40), "green": (40, 170, 50), "mint": (130, 235, 170),
    "cyan": (40, 210, 230), "blue": (40, 70, 230), "violet": (140, 60, 220), "pink": (245, 120, 190), "white": (240, 240, 240),
}  # fmt: skip


def make(num_classes, side, channels, counts, seed):
    """(images, labels) for each of the counts, and the names of the classes.

    images: uint8, n × side × side × channels. A class is a form (10 classes) or a form in a colour (100 classes); place, size, turn,
    ground and noise are random.
    """
    rng = np.random.default_rng([seed, num_classes, side])
    uniform = lambda low, high, *shape: rng.uniform(low, high, shape).astype(np.float32)  # noqa: E731
    palette = np.array(list(COLOURS.values()), np.float32)
    palette = palette if channels == 3 else palette.max(1, keepdims=True)
    parts = []
    for n in counts:
        labels = rng.permutation(np.arange(n) % num_classes)
        images = uniform(0, 90, n, 1, 1, channels) + 20 * rng.standard_normal((n, side, side, channels), np.float32)
        paint = palette[labels // 10 if num_classes > 10 else rng.integers(0, 10, n)]
        grid = np.linspace(-1, 1, side, dtype=np.float32)
        for number, form in enumerate(FORMS.values()):
            members = np.flatnonzero(labels % 10 == number)
            x = grid[None, None, :] - uniform(-0.25, 0.25, len(members), 1, 1)
            y = grid[None, :, None] - uniform(-0.25, 0.25, len(members), 1, 1)
            radius, turn = uniform(0.5, 0.75, len(members), 1, 1), uniform(-0.25, 0.25, len(members), 1, 1)
            cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
            mask = form(x * cos - y * sin, x * sin + y * cos)
            images[members] += mask[..., None] * (paint[members] - 45)[:, None, None, :]
        parts.append((images.clip(0, 255).astype(np.uint8), labels))
    classes = [f"{colour} {form}" for colour in COLOURS for form in FORMS] if num_classes > 10 else list(FORMS)
    return parts, classes
