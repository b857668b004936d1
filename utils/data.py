"""Data sets as uint8 tensors in memory, and a loader that augments whole batches at once.

    dataset = load("cifar100")                                       # .train .test .classes .synthetic
    train, validation = dataset.train.hold_out(5_000, seed=0)
    loader = BatchLoader(train, 256, Augment(), shuffle=True, device="cuda")
    for images, labels in loader: ...                                # (256, 3, 32, 32) float32, (256,) int64

Images stay uint8 until a batch is taken: CIFAR-100 is 154 MB that way and 614 MB as floats.
"""

import errno
import functools
import math
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import filelock
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .checkpoint import digest
from .files import atomic_write
from .synthetic import make

ROOT = Path(__file__).resolve().parents[1]  # the project's folder, wherever a notebook was started

# name: (torchvision class, number of classes, height = width, channels)
KNOWN = {
    "cifar100": ("CIFAR100", 100, 32, 3),
    "cifar10": ("CIFAR10", 10, 32, 3),
    "fashionmnist": ("FashionMNIST", 10, 28, 1),
}


@dataclass(frozen=True)
class Split:
    """Images (uint8, N×C×H×W) and their labels (int64, N). Raises ValueError for anything else."""

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 N×C×H×W, got {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int64, one for each of {len(images)} images, got {labels.dtype} {tuple(labels.shape)}")

    def __len__(self):
        return len(self.labels)

    def hold_out(self, n, seed):
        """Part the images at random into (train, validation), n of them in validation, each class with its share.

        Raises ValueError unless 0 < n < len(self).
        """
        if not 0 < n < len(self):
            raise ValueError(f"cannot hold out {n:,} of {len(self):,} images: n must be between 1 and {len(self) - 1:,}")
        labels = self.labels.cpu().numpy()
        order = np.random.default_rng(seed).permutation(len(self))
        place = np.empty(len(self))  # of each image among its own class, from 0 to 1: the n first are balanced over classes
        for label in np.unique(labels):
            members = order[labels[order] == label]
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        chosen = np.sort(np.argsort(place, kind="stable")[:n])
        return self[np.delete(np.arange(len(self)), chosen)], self[chosen]

    def sample(self, n, seed):
        """n images drawn at random, each class with its share; all of them, if there are no more than n."""
        return self if n >= len(self) else self.hold_out(n, seed)[1]

    def __getitem__(self, index):
        """The images at `index` (a slice or an array of positions) as a Split."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """Training and test images and the names of the classes. Raises ValueError for labels that have no class.

    synthetic: made-up images. published: one of the known data sets, loaded as such, and not a folder that has its name.
    """

    name: str
    train: Split
    test: Split
    classes: list[str]
    synthetic: bool = False
    published: bool = False

    def __post_init__(self):
        for part in (self.train, self.test):
            if len(part) and (part.labels.min() < 0 or part.labels.max() >= len(self.classes)):
                found = f"{part.labels.min()} to {part.labels.max()}"
                raise ValueError(f"labels go from {found}, but {self.name} has {len(self.classes)} classes, 0 to {len(self.classes) - 1}")

    @functools.cached_property
    def digest(self):
        """A short name for all images and labels."""
        return digest(*(tensor for part in (self.train, self.test) for tensor in (part.images, part.labels)))


# ---- loading --------------------------------------------------------------------------------------------------------


def load(name, root=ROOT / "data", *, like="cifar100", size=32, fallback=True):
    """Load a data set by name, or a folder of pictures by path.

    name: "cifar100", "cifar10", "fashionmnist", "synthetic", or the path of a folder that holds one folder of pictures
        for each class.
    like: the data set whose image size and classes "synthetic" takes on.
    size: height and width in pixels that the pictures of a folder are scaled and cropped to.
    fallback: what to do when a known data set is neither in `root` nor can be downloaded: True goes on with synthetic
        images and says so, False raises.

    Raises ValueError or FileNotFoundError, with one line that says what to do.
    """
    root = Path(root)
    if name == "synthetic":
        return synthetic(like)
    if name in KNOWN:
        prepared = root / f"{name}.npz"
        if prepared.exists():
            return _read_prepared(prepared, name)
        try:
            return _download(name, root)
        except NoNetwork as error:
            reason = f"{name} is not in {_shown(prepared)} and cannot be downloaded ({error})"
            if not fallback:
                raise FileNotFoundError(f"{reason}; connect to the internet, or use DATA=synthetic") from None
            print(f"NOTE: {reason}. Going on with SYNTHETIC images: the results say nothing about {name}.")
            return synthetic(name)
        except OSError as error:  # a full disk, a folder that cannot be written to
            raise OSError(
                f"{name} cannot be kept in {_shown(root)} ({error.strerror or error}): make room there, and let it be written to"
            ) from None
    for folder in (Path(name).expanduser(), ROOT / name):  # a notebook runs in notebooks/, but a path is given from the project's folder
        if folder.is_dir():
            return _read_folder(folder, size)
    raise ValueError(f"no data set {name!r}: use {', '.join(KNOWN)}, synthetic, or the path of a folder of class folders")


def _shown(path):
    """The path as a person in the project's folder would write it."""
    path = Path(path)
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _split(images, labels):
    """Split from arrays as they are stored: uint8 N×H×W×C (or N×H×W) and labels."""
    images = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return Split(images.permute(0, 3, 1, 2), torch.from_numpy(labels))  # a view: pixels stay together in memory


def _read_prepared(path, name):
    _, num_classes, side, channels = KNOWN[name]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test", "classes")}
        for part in ("train", "test"):
            images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
            shape = (len(labels), side, side) + ((channels,) if channels > 1 else ())
            if images.dtype != np.uint8 or images.shape != shape or not len(labels):
                raise ValueError(f"x_{part} is {images.dtype} {images.shape}, not uint8 {shape}")
            if labels.dtype != np.int64 or labels.ndim != 1 or labels.min() < 0 or labels.max() >= num_classes:
                raise ValueError(f"y_{part} is not int64 from 0 to {num_classes - 1}")
        if arrays["classes"].shape != (num_classes,):
            raise ValueError(f"classes is not a list of {num_classes} names")
    except Exception as error:  # zipfile, zlib, numpy and our own checks: whatever is wrong, the remedy is the same
        raise ValueError(
            f"{_shown(path)} is damaged or not a prepared {name} ({error}): delete it and run again to fetch a new one"
        ) from None
    splits = [_split(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    return Dataset(name, *splits, [str(c) for c in arrays["classes"]], published=True)


class NoNetwork(Exception):
    """The data set cannot be fetched: no network, no answer, or half an archive."""


def _is_of_the_network(error):
    """Whether a download failed for want of a network, and not for a full disk, say. torchvision's RuntimeError means half an archive."""
    kinds = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError, RuntimeError)
    return isinstance(error, kinds) or getattr(error, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


def _download(name, root):
    """Let torchvision fetch and verify the archive, keep it as root/NAME.npz, and read that. Raises NoNetwork or OSError.

    One process at a time: the others wait, and read what the first has fetched.
    """
    import torchvision  # here, because it takes a second to import and most starts don't need it

    root.mkdir(parents=True, exist_ok=True)
    prepared, timeout = root / f"{name}.npz", socket.getdefaulttimeout()
    with filelock.FileLock(root / f".{name}.lock"):
        if prepared.exists():
            return _read_prepared(prepared, name)
        socket.setdefaulttimeout(30)  # seconds without an answer; torchvision itself would wait for ever
        try:
            parts = [getattr(torchvision.datasets, KNOWN[name][0])(root, train=train, download=True) for train in (True, False)]
        except (OSError, HTTPException, RuntimeError) as error:
            if not _is_of_the_network(error):
                raise
            raise NoNetwork(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
        finally:
            socket.setdefaulttimeout(timeout)
        arrays = {"classes": np.array(parts[0].classes)}
        for part, data in zip(("train", "test"), parts, strict=True):
            arrays[f"x_{part}"] = np.asarray(data.data, np.uint8)
            arrays[f"y_{part}"] = np.asarray(data.targets, np.int64)
        with atomic_write(prepared) as partial:
            np.savez(partial, **arrays)
    return _read_prepared(prepared, name)


def _read_folder(path, size):
    """A folder of class folders; with folders train/ and test/ (or val/) in it, those are the two parts."""
    from torchvision.datasets import ImageFolder

    tests = [path / part for part in ("test", "val") if (path / part).is_dir()]
    folders = [path / "train", tests[0]] if (path / "train").is_dir() and tests else [path]
    splits, classes = [], None
    for folder in folders:
        try:
            files = ImageFolder(folder)
        except FileNotFoundError as error:  # torchvision names the empty class folders
            raise ValueError(f"{folder}: {str(error).splitlines()[0]}; put pictures into each, or delete them") from None
        if len(files.classes) < 2:
            raise ValueError(f"{folder} holds the one class {files.classes[0]!r}: put each class into a folder of its own")
        if classes not in (None, files.classes):
            raise ValueError(f"{folder} has the classes {files.classes}, but {folders[0]} has {classes}")
        classes = files.classes
        images, unreadable = np.empty((len(files), size, size, 3), np.uint8), []
        for row, (file, _) in enumerate(files.samples):
            try:
                images[row] = _read_picture(file, size)
            except (OSError, ValueError):  # what Pillow raises for a file that is no picture, or half of one
                unreadable.append(file)
            except Image.DecompressionBombError:
                unreadable.append(f"{file} (more pixels than Pillow opens)")
        if unreadable:
            raise ValueError(f"{len(unreadable)} of {len(files)} pictures can't be read, {unreadable[0]} first: delete them")
        splits.append(_split(images, np.array(files.targets, np.int64)))
    if len(splits) == 1:
        if torch.bincount(splits[0].labels).min() < 5:
            raise ValueError(f"{path} has a class of fewer than 5 pictures: add some, so that a fifth can be kept for testing")
        splits = splits[0].hold_out(len(splits[0]) // 5, seed=0)
    if len(splits[0]) < 10:
        raise ValueError(f"{path} has {len(splits[0])} pictures to train on: add some, so that a tenth can be kept for validation")
    return Dataset(path.resolve().name, *splits, classes)


def _read_picture(path, size):
    """The middle of a picture, size×size×3 uint8: its shorter side is scaled to `size`. Raises what Pillow raises."""
    from torchvision.transforms import v2

    with Image.open(path) as picture:
        if picture.mode.startswith("I"):  # 16 bits a pixel, 0 to 65,535: Pillow's own conversion would cut them off at 255
            picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
        picture = picture.convert("RGB")
    return np.asarray(v2.CenterCrop(size)(v2.Resize(size)(picture)))


def synthetic(like="cifar100", train=10_000, test=2_000, seed=0):
    """Made-up images that can be learnt, in the shape and with the number of classes of a real data set; see synthetic.py."""
    parts, classes = make(*KNOWN[like][1:], (train, test), seed)
    return Dataset("synthetic", *(_split(*part) for part in parts), classes, synthetic=True)


# ---- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augment:
    """Random flip, rotation and crop of a whole batch, each image with its own draw, then normalisation.

    The same as torchvision's RandomHorizontalFlip(flip), RandomRotation(rotate) (nearest neighbour, black corners),
    RandomCrop(size, padding=crop_padding) and Normalize(mean, std), in this order, in one pass over the pixels.
    flip: probability, or "alternating": half of the images in the first epoch, the others in the second, and so on by turns, so that
    each image and its mirror image are seen equally often (Jordan 2024; notebook 10). rotate: largest angle in degrees.
    crop_padding: pixels. padding_mode: what is in them, "constant" (black) or "reflect", as in RandomCrop.
    """

    flip: float | str = 0.5
    rotate: float = 15
    crop_padding: int = 4
    mean: float | tuple = 0.5
    std: float | tuple = 0.5
    padding_mode: str = "constant"

    def __post_init__(self):
        if not ((self.alternating or 0 <= self.flip <= 1) and 0 <= self.rotate <= 180 and self.crop_padding >= 0):
            raise ValueError(f'flip must be from 0 to 1 or "alternating", rotate from 0 to 180 and crop_padding at least 0, got {self}')
        if self.padding_mode not in ("constant", "reflect"):
            raise ValueError(f'padding_mode must be "constant" or "reflect", got {self.padding_mode!r}')

    @property
    def alternating(self):
        return self.flip == "alternating"

    def draw(self, n, rng):
        """What happens to each of n images, (n, 4) float32: flipped or not, angle in degrees, down and right shift in pixels."""
        shift = rng.integers(-self.crop_padding, self.crop_padding + 1, (n, 2))
        flips = rng.random(n) < (0.5 if self.alternating else self.flip)  # which turn an image has is known to the loader alone
        angles = rng.uniform(-self.rotate, self.rotate, n)
        return torch.from_numpy(np.column_stack([flips, angles, shift]).astype(np.float32))

    def __call__(self, images, draws):
        """images (N, C, H, W) from 0 to 255 and draws (N, 4) on the same device -> (N, C, H, W) float32, channels last."""
        n, c, h, w = images.shape
        # One black pixel all around: whatever is looked up outside of the image is looked up there.
        padded = images.new_zeros(n, h + 2, w + 2, c)
        padded[:, 1:-1, 1:-1] = images.permute(0, 2, 3, 1)
        position = self._source(draws, h, w).view(n, -1)
        position = position + torch.arange(n, device=images.device, dtype=torch.int32)[:, None] * ((h + 2) * (w + 2))
        pixels = padded.view(-1, c).index_select(0, position.view(-1))
        return self.normalise(pixels.view(n, h, w, c).permute(0, 3, 1, 2))

    def _source(self, draws, h, w):
        """For each pixel of the result, where it comes from: (N, H, W) int32, an index into an image with a border of 1.

        The steps are undone from last to first: shift, then rotation about the centre, then flip. A coordinate of the
        source is a sum of one term that depends on the column and one that depends on the row, so the work per pixel is
        an addition, a rounding and a clamp.
        """
        flip, angle, down, right = draws.T[:, :, None]
        radians = angle * (math.pi / 180)
        cos, sin, mirror = torch.cos(radians), torch.sin(radians), 1 - 2 * flip
        row = torch.arange(h, device=draws.device) - down  # position in the rotated image
        column = torch.arange(w, device=draws.device) - right
        if self.padding_mode == "reflect":  # at the first and the last pixel, which are not repeated
            row, column = (h - 1) - ((h - 1) - row.abs()).abs(), (w - 1) - ((w - 1) - column.abs()).abs()
        row_outside, column_outside = (row < 0) | (row >= h), (column < 0) | (column >= w)
        y, x = row - (h - 1) / 2, column - (w - 1) / 2
        far = 4 * (h + w)  # the padding of the crop: sent beyond every edge
        from_x = (mirror * cos * x).masked_fill(column_outside, far)[:, None, :] + (-mirror * sin * y)[:, :, None]
        from_y = (sin * x)[:, None, :] + (cos * y).masked_fill(row_outside, far)[:, :, None]
        from_x = from_x.add_((w - 1) / 2).round_().clamp_(-1, w)
        from_y = from_y.add_((h - 1) / 2).round_().clamp_(-1, h)
        return (from_y.add_(1).mul_(w + 2) + from_x.add_(1)).to(torch.int32)

    def normalise(self, images):
        """images (N, C, H, W) from 0 to 255 -> (image / 255 - mean) / std as float32."""
        scale, shift = _scale_and_shift(self.mean, self.std, images.device)
        return images.to(torch.float32).mul_(scale).sub_(shift)


@functools.cache  # made once: the CPU waits for the GPU when it sends it a number
def _scale_and_shift(mean, std, device):
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (mean, std))
    return 1 / (255 * std), mean / std


def own_part(n, batch_size, share):
    """Which of an epoch's n positions one of several processes takes, as an array: its part of each batch.

    With batches of 6 and share (1, 2), the second of two processes: 3, 4, 5, 9, 10, 11, …
    """
    rank, processes = share
    positions = np.arange(n)
    return positions[positions % batch_size // math.ceil(batch_size / processes) == rank]


def check_share(batch_size, n, share):
    """Raises ValueError unless all processes get equally many images in each training step."""
    if share[1] > 1 and (batch_size % share[1] or n < batch_size):
        raise ValueError(f"{share[1]} processes need batches of equal parts: {n:,} images in batches of {batch_size} don't give them")


class BatchLoader:
    """Batches of (float images, labels) from a split that lies in memory on `device`.

    augment: an Augment for training; None only normalises, with Augment's mean and std.
    size: resize each batch to size×size pixels (bilinear, antialiased) on the device before anything else. A tuple has the size of each
    epoch, and the last of them holds for all further ones (progressive resolution; notebook 10).
    ahead: how many batches are augmented at once. A GPU is used best by a whole epoch, if its memory holds it: 2 GB with CIFAR.
    drop_last: leave out a last batch that is not full (an only batch is kept). For training: batch norm cannot learn from a batch
    of one image, and all steps have one shape.
    share: (rank, processes) where several processes train together: this one takes the rank-th of so many equal parts of each batch. All
    have the same order, so that each image is taken exactly once; the last batch may have unequal parts unless it is left out.

    An epoch is one pass over the loader. Its order and draws depend on `seed` and the number of the epoch alone, and are
    the same on every device. `len(loader)` is the number of batches. Raises ValueError for what it cannot use.
    """

    def __init__(
        self, split, batch_size, augment=None, shuffle=False, seed=0, device="cpu", size=None, drop_last=False, ahead=1, share=(0, 1),
    ):  # fmt: skip
        if batch_size < 1 or len(split) == 0:
            raise ValueError(f"needs images and a batch size of at least 1, got {len(split)} images, batch size {batch_size}")
        sizes = size if isinstance(size, tuple) else (size,)
        if not sizes or any(each is not None and each < 1 for each in sizes):
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1 batch, got {ahead}")
        if drop_last:
            check_share(batch_size, len(split), share)
        self.split = Split(split.images.to(device), split.labels.to(device))
        self.batch_size, self.augment, self.shuffle, self.seed, self.size = batch_size, augment, shuffle, seed, size
        self.device, self.drop_last, self.ahead, self.share = self.split.labels.device, drop_last, ahead, share
        self.epoch = 0

    def __len__(self):
        batches = len(self.split) / self.batch_size
        return max(1, math.floor(batches)) if self.drop_last else math.ceil(batches)

    def settings(self):
        """What the batches depend on, as plain values."""
        return {
            "data": digest(self.split.images, self.split.labels), "images": len(self.split), "batch size": self.batch_size,
            "augmentation": repr(self.augment), "shuffle": self.shuffle, "seed": self.seed, "size": self.size, "drop_last": self.drop_last,
        }  # fmt: skip

    def __iter__(self):
        n, number, rng = len(self.split), self.epoch, np.random.default_rng([self.seed, self.epoch])
        size = self.size[min(number, len(self.size) - 1)] if isinstance(self.size, tuple) else self.size
        self.epoch += 1
        # The draws of a whole epoch travel to the device at once (1.6 MB for 50,000 images), not batch by batch.
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        draws = self.augment.draw(n, rng) if self.augment else None
        if self.augment and self.augment.alternating:
            first = np.random.default_rng([self.seed, n]).random(n) < 0.5  # of each image, whatever the order
            draws[:, 0] = torch.from_numpy(first ^ bool(number % 2))[order]
        own = own_part(min(n, len(self) * self.batch_size), self.batch_size, self.share)
        shuffled = self.shuffle or self.share[1] > 1
        order, draws = torch.from_numpy(order[own]) if shuffled else None, None if draws is None else draws[own]
        order, draws = (None if x is None else x.to(self.device) for x in (order, draws))
        size_here = math.ceil(self.batch_size / self.share[1])
        step = self.ahead * size_here
        for start in range(0, len(own), step):
            part = slice(start, min(start + step, len(own)))
            images, labels = (x[part] if order is None else x[order[part]] for x in (self.split.images, self.split.labels))
            if size and images.shape[2:] != (size, size):
                images = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
            images = self.augment(images, draws[part]) if self.augment else Augment().normalise(images)
            yield from zip(images.split(size_here), labels.split(size_here), strict=True)
