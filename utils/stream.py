"""Pictures that are read from the disk batch by batch, for data sets that do not fit into memory.

    training, validation, test = folders("imagenet")                 # imagenet/train/CLASS/*.jpg and imagenet/val/CLASS/*.jpg
    loader = FolderLoader(training, 64, size=224, crop=True, shuffle=True, workers=4, drop_last=True)

Only the names of the pictures are in memory. What fits is read faster by data.load, which takes a folder as well.
"""

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .data import read_rgb
from .files import digest
from .loader import Augment, check_share, number_of_batches, own_part


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Names and labels of pictures in a folder of class folders."""

    folder: str
    names: np.ndarray  # bytes, relative to the folder: a list of texts would be copied, bit by bit, into every worker's memory
    labels: np.ndarray
    classes: tuple

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return dataclasses.replace(self, names=self.names[index], labels=self.labels[index])


def pictures(folder):
    """The Pictures in a folder that holds one folder for each class. Raises ValueError or FileNotFoundError."""
    from torchvision.datasets import ImageFolder  # here, because it takes a second to import

    try:
        found = ImageFolder(folder)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}; put pictures into one folder for each class") from None
    names = np.array([os.fsencode(os.path.relpath(name, folder)) for name, _ in found.samples])
    return Pictures(str(folder), names, np.array(found.targets, np.int64), tuple(found.classes))


def folders(path):
    """(training, validation, test) Pictures from path/train and path/val (or path/test); every tenth of path/train is for validation."""
    tests = [Path(path, name) for name in ("val", "test") if Path(path, name).is_dir()]
    if not Path(path, "train").is_dir() or not tests:
        raise ValueError(f"{path} must hold the folders train and val (or test), with a folder of pictures for each class")
    learn, test = pictures(Path(path, "train")), pictures(tests[0])
    if learn.classes != test.classes:
        raise ValueError(f"{test.folder} has other classes than {learn.folder}")
    held_out = np.arange(len(learn)) % 10 == 9  # they are sorted by class: each has its share
    return learn[~held_out], learn[held_out], test


class _Reader(Dataset):
    """What a worker does: (position, number) -> (uint8 picture, label). The number is the seed of its crop and flip."""

    def __init__(self, source, size, crop):
        from torchvision.transforms import v2

        self.source = source
        if crop:
            steps = [v2.RandomResizedCrop(size, scale=(0.25, 1), antialias=True), v2.RandomHorizontalFlip()]
        else:
            steps = [v2.Resize(round(size * 8 / 7), antialias=True), v2.CenterCrop(size)]
        self.transform = v2.Compose([*steps, v2.PILToTensor()])

    def __getitem__(self, item):
        position, number = item
        name = os.fsdecode(self.source.names[position])
        try:
            picture = read_rgb(os.path.join(self.source.folder, name))
        except (OSError, Image.DecompressionBombError):
            raise ValueError(f"the picture {name} can't be read: delete it") from None
        with torch.random.fork_rng(devices=[]):  # so that it does not matter which worker, or which process, reads it
            torch.manual_seed(number)
            return self.transform(picture), self.source.labels[position]


class FolderLoader:
    """Batches of (float images, labels) like those of BatchLoader, read by worker processes while the network computes.

    size: height and width in pixels. crop: a random part of each picture, a quarter to all of its area, and a random flip (training);
    without it, the middle. workers: how many processes read; 0: this one does. The rest is as in BatchLoader. An epoch's order and
    crops depend on `seed` and its number alone, not on how many workers or processes there are.
    """

    def __init__(
        self, source, batch_size, size=224, crop=False, shuffle=False, seed=0, workers=2, device="cpu", drop_last=False, share=(0, 1),
    ):  # fmt: skip
        if batch_size < 1 or len(source) == 0 or size < 1:
            raise ValueError(f"needs pictures, a batch size and a size of at least 1, got {len(source)} pictures, {batch_size}, {size}")
        if drop_last:
            check_share(batch_size, len(source), share)
        self.source, self.batch_size, self.size, self.crop, self.shuffle, self.seed = source, batch_size, size, crop, shuffle, seed
        self.workers, self.device, self.drop_last, self.share = workers, torch.device(device), drop_last, share
        self.reader = _Reader(source, size, crop)
        self.epoch = 0

    def __len__(self):
        return number_of_batches(len(self.source), self.batch_size, self.drop_last)

    def settings(self):
        """What the batches depend on, as plain values; of the pictures, their names."""
        of_source = digest(b"".join(part.tobytes() for part in (self.source.names, self.source.labels)))
        names = ("batch_size", "size", "crop", "shuffle", "seed", "drop_last")
        return {"pictures": of_source, "images": len(self.source)} | {name: getattr(self, name) for name in names}

    def __iter__(self):
        n, rng = len(self.source), np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        numbers = rng.integers(2**62, size=n)
        own = own_part(min(n, len(self) * self.batch_size), self.batch_size, self.share)
        size_here = math.ceil(self.batch_size / self.share[1])

        def batches():
            for start in range(0, len(own), size_here):
                part = own[start : start + size_here]
                yield list(zip(order[part].tolist(), numbers[part].tolist(), strict=True))

        reading = DataLoader(self.reader, batch_sampler=_Batches(batches), num_workers=self.workers, generator=torch.Generator())
        for images, labels in reading:
            yield Augment().normalise(images.to(self.device)), labels.to(self.device)


class _Batches:
    """A batch sampler for one pass."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()
