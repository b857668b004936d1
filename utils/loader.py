"""Batches from images in memory: a loader that augments a whole batch at once.

    loader = BatchLoader(train, 256, Augment(), shuffle=True, device="cuda")
    for images, labels in loader: ...                                # (256, 3, 32, 32) float32, (256,) int64

Images stay uint8 until a batch is taken. Notebooks find both names in utils.data as well.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .checkpoint import digest


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


def number_of_batches(n, batch_size, drop_last):
    """How many batches an epoch of n images has. drop_last: leave out a last batch that is not full, but keep an only one."""
    return max(1, n // batch_size) if drop_last else math.ceil(n / batch_size)


class BatchLoader:
    """Batches of (float images, labels) from a split that lies in memory on `device`.

    augment: an Augment for training; None only normalises, with Augment's mean and std.
    size: resize each batch to size×size pixels (bilinear, antialiased) on the device before anything else. A tuple has the size of each
    epoch, and the last of them holds for all further ones (progressive resolution; notebook 10).
    ahead: how many batches are augmented at once. A GPU is used best by a whole epoch, if its memory holds it: 2 GB with CIFAR.
    drop_last: leave out a last batch that is not full (an only batch is kept). For training: batch norm cannot learn from a batch
    of one image, and all steps have one shape.
    max_batches: end an epoch after so many batches; the next one is drawn anew from all images.
    share: (rank, processes) where several processes train together: this one takes the rank-th of so many equal parts of each batch. All
    have the same order, so that each image is taken exactly once; the last batch may have unequal parts unless it is left out.

    An epoch is one pass over the loader. Its order and draws depend on `seed` and the number of the epoch alone, and are
    the same on every device. `len(loader)` is the number of batches. Raises ValueError for what it cannot use.
    """

    def __init__(
        self, split, batch_size, augment=None, shuffle=False, seed=0, device="cpu", size=None, drop_last=False, max_batches=None,
        ahead=1, share=(0, 1),
    ):  # fmt: skip
        if batch_size < 1 or len(split) == 0:
            raise ValueError(f"needs images and a batch size of at least 1, got {len(split)} images, batch size {batch_size}")
        sizes = size if isinstance(size, tuple) else (size,)
        if not sizes or any(each is not None and each < 1 for each in sizes):
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        if ahead < 1 or (max_batches is not None and max_batches < 1):
            raise ValueError(f"ahead and max_batches must be at least 1 batch, got {ahead} and {max_batches}")
        if drop_last:
            check_share(batch_size, len(split), share)
        self.split = dataclasses.replace(split, images=split.images.to(device), labels=split.labels.to(device))
        self.batch_size, self.augment, self.shuffle, self.seed, self.size = batch_size, augment, shuffle, seed, size
        self.device, self.drop_last, self.ahead, self.share = self.split.labels.device, drop_last, ahead, share
        self.max_batches = max_batches
        self.epoch = 0

    def __len__(self):
        batches = number_of_batches(len(self.split), self.batch_size, self.drop_last)
        return min(batches, self.max_batches or batches)

    def settings(self):
        """What the batches depend on, as plain values."""
        return {
            "data": digest(self.split.images, self.split.labels), "images": len(self.split), "batch size": self.batch_size,
            "augmentation": repr(self.augment), "shuffle": self.shuffle, "seed": self.seed, "size": self.size, "drop_last": self.drop_last,
            "max_batches": self.max_batches,
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
