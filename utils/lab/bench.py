"""What a program is run with: small images, a configuration, a seed; and how its parts are put together."""

import contextlib
import importlib
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F

from ..experiment import title
from . import program

PARTS = ("Loader", "Block", "make_stage", "Network", "make_optimizer", "epoch", "fit")
SIDE, TRAIN, HELD_OUT = 16, 1_000, 400  # pixels; images to train on; images to validate with, and as many to test with


@contextlib.contextmanager
def alone(seed):
    """Within this block, random numbers start from `seed`, and nothing that is drawn shifts the notebook's own draws.

    One thread: networks as small as these gain nothing from more, and wait long where another process takes a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Design:
    """What the author of a program says of it."""

    widths: tuple = (8, 16, 32)
    blocks: tuple = (1, 1, 1)
    stem: tuple = (3, 1)
    batch_size: int = 32
    epochs: int = 6

    def __str__(self):
        kernel, stride = self.stem
        side, sides = (SIDE + 2 * (kernel // 2) - kernel) // stride + 1, []
        for number in range(len(self.widths)):
            side = side if number == 0 else -(-side // 2)
            sides.append(f"{side}×{side}")
        return (
            f"stem {kernel}×{kernel}, stride {stride}; stages of {_listed(self.widths)} channels, {_listed(self.blocks)} blocks, "
            f"maps {_listed(sides)}"
        )


def _listed(values):
    return "/".join(map(str, values))


@dataclass(frozen=True)
class Images:
    """Small images, sorted by class as files in folders are; each split is (images (N, H, W, 3) uint8, labels)."""

    train: tuple
    val: tuple
    test: tuple
    classes: list
    title: str

    @classmethod
    def of(cls, dataset, train=TRAIN, held_out=HELD_OUT, seed=0):
        """From a data.Dataset: its first ten classes, at most `train` and twice `held_out` images, scaled to 16×16 pixels."""
        classes = dataset.classes[:10]
        known = [part[(part.labels < len(classes)).nonzero().flatten()] for part in (dataset.train, dataset.test)]
        sample = known[0].sample(train + held_out, seed)
        parts = *sample.hold_out(min(held_out, len(sample) // 2), seed), known[1].sample(held_out, seed)
        return cls(*map(_small, parts), classes, title(dataset))


def _small(split):
    order = split.labels.argsort(stable=True)
    images = F.interpolate(split.images[order].float(), (SIDE, SIDE), mode="area")
    return images.round().byte().permute(0, 2, 3, 1).contiguous(), split.labels[order]


@dataclass
class Program:
    """A program, ready to be run: its parts, its design, its images and its seed. Nothing is kept from one use to the next."""

    design: Design
    images: Images
    seed: int = 0
    parts: dict = field(default_factory=dict)

    def __post_init__(self):
        self.parts = {name: getattr(program, name) for name in PARTS} | self.parts

    @classmethod
    def of_case(cls, number, design, images, seed):
        return cls(design, images, seed, parts_of(number))

    def short(self):
        """The same program with a quarter of the images."""
        quarter = {split: tuple(part[::4] for part in getattr(self.images, split)) for split in ("train", "val", "test")}
        return replace(self, images=replace(self.images, **quarter))

    def loader(self, split="train", batch_size=None, training=None):
        training = split == "train" if training is None else training
        size = batch_size or (self.design.batch_size if split == "train" else 100)
        return self.parts["Loader"](*getattr(self.images, split), size, training)

    def loaders(self):
        return {"training": self.loader("train"), "validation": self.loader("val"), "test": self.loader("test")}

    def network(self):
        design, stage = self.design, partial(self.parts["make_stage"], block=self.parts["Block"])
        return self.parts["Network"](len(self.images.classes), design.widths, design.blocks, design.stem, make_stage=stage)

    def step(self, model, steps=100):
        """A function (images, labels) that trains the network by one step, one of `steps`."""
        optimizer, scheduler = self.parts["make_optimizer"](model, steps)
        return lambda images, labels: self.parts["epoch"](model, [(images, labels)], optimizer, scheduler)

    def fit(self, model, train_loader, val_loader, test_loader, epochs=None):
        """What the program does with a new network; (rows, reported accuracy), as `program.fit`."""
        epochs = epochs or self.design.epochs
        optimizer, scheduler = self.parts["make_optimizer"](model, epochs * len(train_loader))
        return self.parts["fit"](model, train_loader, val_loader, test_loader, optimizer, scheduler, epochs, epoch=self.parts["epoch"])

    def evaluate(self, model, loader):
        return self.parts["epoch"](model, loader)

    def run(self):
        return self.fit(self.network(), *self.loaders().values())


def parts_of(number):
    """The parts that a case brings along, {name: function or class}."""
    module = importlib.import_module(f"{__package__}.cases.case{number:02}")
    return {name: vars(module)[name] for name in PARTS if name in vars(module)}
