"""What `train.epoch` watches while it trains: the sums of an epoch, a progress bar, a loss that ran away, a full memory."""

import math
import sys
import time
from operator import length_hint

import torch
from tqdm import tqdm

from . import distributed

BAR = "{desc} |{bar:20}| {remaining} left{postfix}"
COUNT = "{desc} {n} batches{postfix}"  # for a loader without a length


class Meter:
    """Goes through a loader, adds up loss and correct predictions, and shows both.

        with Meter(loader, device, "plain 1/9 ") as meter:
            for images, labels in meter:
                ...
                meter.add(loss, logits, labels)
        meter.add_up()
        loss, accuracy = meter.means()

    label: what stands before the progress bar, which adds T or V. optimizer: given in training; the message on a loss of NaN names its
    learning rate.
    Raises FloatingPointError, with the batch, once the loss is NaN or infinite; MemoryError, with a batch size to try, where anything in
    the block runs out of memory; ValueError if the loader gives no images.
    """

    def __init__(self, loader, device, label="", optimizer=None):
        self.loader, self.label, self.optimizer = loader, label, optimizer
        self.batches = length_hint(loader) or None  # None: a stream, whose length nobody knows
        # The sums stay on the device. Reading one (.item()) makes the CPU wait for the GPU: the progress bar does it twice a second,
        # `means` once.
        self.loss_sum = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device, dtype=torch.int64)
        self.finite = torch.zeros((), device=device, dtype=torch.int64)  # batches up to the first whose loss is not finite
        self.images, self.batch_size, self.rates = 0, None, []

    def __enter__(self):
        form = COUNT if self.batches is None else BAR
        mode = "T" if self.optimizer else "V"
        self.bar = tqdm(self.loader, f"{self.label}{mode}", self.batches, file=sys.stdout, leave=False, mininterval=0.5, bar_format=form)
        self.start, self.shown = time.monotonic(), 0.0
        return self

    def __iter__(self):
        for images, labels in self.bar:
            self.batch_size = len(labels)
            self.rates.append(self.optimizer.param_groups[0]["lr"] if self.optimizer else None)
            yield images, labels

    def add(self, loss, logits, labels):
        """Count a batch: its mean loss, its logits (N, classes), its labels (N)."""
        self.loss_sum += loss.detach() * len(labels)
        self.finite += torch.isfinite(self.loss_sum)
        self.correct += (logits.argmax(1) == labels).sum()
        self.images += len(labels)
        elapsed = time.monotonic() - self.start
        if elapsed - self.shown > 0.5:
            loss, accuracy = self.means()
            self.bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}, {self.images / elapsed:,.0f} images/s", refresh=False)
            self.shown = elapsed

    def add_up(self):
        """Where several processes share the images: go on with the sums over all of them. Each process must call it."""
        if distributed.processes() == 1:
            return
        images = torch.full_like(self.correct, self.images)
        sums = torch.stack([self.loss_sum.double(), self.correct.double(), images.double()])
        self.loss_sum, self.correct, images = distributed.add_up(sums)
        self.images = int(images)
        all_are = self.finite == len(self.rates)  # then the message names the batch of the process where one is not
        self.finite = distributed.add_up(torch.where(all_are, 2**60, self.finite), least=True)

    def means(self):
        """(mean loss per image, share of images predicted correctly), of all images so far."""
        if not self.images:
            raise ValueError("the loader gave no images: nothing to train on or to evaluate")
        loss = self.loss_sum.item()
        if not math.isfinite(loss):
            good = self.finite.item()
            run = f"{self.label.strip()}: " if self.label else ""
            of = f" of {self.batches}" if self.batches else ""
            at = f", at learning rate {self.rates[good]:.2g}: lower it" if self.optimizer else ""
            raise FloatingPointError(f"{run}the loss is NaN or infinite from batch {good + 1}{of} on{at}")
        return loss / self.images, self.correct.item() / self.images

    def __exit__(self, kind, error, traceback):
        self.bar.close()
        if isinstance(error, (RuntimeError, MemoryError)) and _means_out_of_memory(error):
            size = self.batch_size or getattr(self.loader, "batch_size", None)
            advice = f" with a batch of {size} images: try a batch size of {max(1, size // 2)}" if size else ": try smaller batches"
            raise MemoryError(f"out of memory{advice}") from None


def _means_out_of_memory(error):
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
