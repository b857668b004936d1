"""Data sets as uint8 tensors in memory; loader.py makes batches of them.

    dataset = load("cifar100")                                       # .train .test .classes .synthetic
    train, validation = dataset.train.hold_out(5_000, seed=0)
    loader = BatchLoader(train, 256, Augment(), shuffle=True, device="cuda")
    for images, labels in loader: ...                                # (256, 3, 32, 32) float32, (256,) int64

Images stay uint8 until a batch is taken: CIFAR-100 is 154 MB that way and 614 MB as floats.
"""

import errno
import functools
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import filelock
import numpy as np
import torch
from PIL import Image

from .checkpoint import digest
from .files import atomic_write
from .loader import Augment as Augment
from .loader import BatchLoader as BatchLoader
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


def read_rgb(path):
    """A picture in three colours with 8 bits each, as a PIL image. Raises what Pillow raises."""
    with Image.open(path) as picture:
        if picture.mode.startswith("I"):  # 16 bits a pixel, 0 to 65,535: Pillow's own conversion would cut them off at 255
            picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
        return picture.convert("RGB")


def _read_picture(path, size):
    """The middle of a picture, size×size×3 uint8: its shorter side is scaled to `size`. Raises what Pillow raises."""
    from torchvision.transforms import v2

    return np.asarray(v2.CenterCrop(size)(v2.Resize(size)(read_rgb(path))))


def synthetic(like="cifar100", train=10_000, test=2_000, seed=0):
    """Made-up images that can be learnt, in the shape and with the number of classes of a real data set; see synthetic.py."""
    parts, classes = make(*KNOWN[like][1:], (train, test), seed)
    return Dataset("synthetic", *(_split(*part) for part in parts), classes, synthetic=True)
