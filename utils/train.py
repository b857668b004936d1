"""The training loop that every notebook uses. Notebook 01 derives it line by line.

history = fit(model, train_loader, val_loader, epochs=10, optimizer=torch.optim.AdamW(model.parameters()))
test_loss, test_accuracy = epoch(model, test_loader, nn.CrossEntropyLoss())
"""

import contextlib
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from .checkpoint import Checkpoint

BAR = "{desc} |{bar:20}| {remaining} left{postfix}"


@dataclass
class History:
    """One number an epoch: mean loss per image, share of images predicted correctly (0 to 1), seconds."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __len__(self):
        return len(self.seconds)

    def append(self, *values):
        for series, value in zip(vars(self).values(), values, strict=True):
            series.append(value)


def device(name="auto"):
    """torch.device from "auto" (CUDA where there is a GPU, else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises ValueError if PyTorch cannot use that device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):  # torch's ways to say: unknown, not built in, not plugged in
        have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["mps"] * torch.backends.mps.is_available()
        raise ValueError(f"no device {name!r} here: use auto, {' or '.join(have)}") from None
    return torch.device(name)


def device_name(where):
    """What a result says it was measured on: the GPU's name, or "cpu, 2 threads"."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else f"{where.type}, {torch.get_num_threads()} threads"


def epoch(model, loader, criterion, optimizer=None, *, scheduler=None, label=""):
    """One pass over `loader`: training with an optimizer, evaluation without. Returns (loss, accuracy) as floats.

    loader: yields (images, labels) and has a len(). criterion: logits, labels -> mean loss of the batch.
    scheduler: stepped once a batch. label: what stands in front of the progress bar.
    Both results are means over *images*; batches of different sizes therefore count by their size.
    Raises FloatingPointError, with the batch and its learning rate, once the loss is NaN or infinite, and MemoryError, with a batch
    size to try, where the device has not enough memory.
    """
    training = optimizer is not None
    model.train(training)
    where = next(model.parameters()).device
    # The sums stay on the device. Reading one (.item()) makes the CPU wait for the GPU: the progress bar does it twice a
    # second, the return statement once.
    loss_sum = torch.zeros((), device=where)
    correct = torch.zeros((), device=where, dtype=torch.int64)
    finite = torch.zeros((), device=where, dtype=torch.int64)  # batches up to the first whose loss is not finite
    samples, rates, start, shown = 0, [], time.monotonic(), 0.0

    def check():
        good = finite.item()
        if good < len(rates):
            who = f"{label.strip()}: " if label.strip() else ""
            at = f", at learning rate {rates[good]:.2g}: lower it" if training else ""
            raise FloatingPointError(f"{who}the loss is NaN or infinite from batch {good + 1} of {len(loader)} on{at}")

    bar = tqdm(loader, f"{label}{'T' if training else 'V'}", file=sys.stdout, leave=False, mininterval=0.5, bar_format=BAR)
    with torch.set_grad_enabled(training), bar:
        for images, labels in bar:
            images, labels = images.to(where), labels.to(where)
            rates.append(optimizer.param_groups[0]["lr"] if training else None)
            with _advice_on_memory(len(labels)):
                with torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda"):
                    logits = model(images)
                    loss = criterion(logits, labels)
                if training:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if scheduler:
                        scheduler.step()
            loss_sum += loss.detach() * len(labels)
            finite += torch.isfinite(loss_sum)
            correct += (logits.argmax(1) == labels).sum()
            samples += len(labels)
            elapsed = time.monotonic() - start
            if elapsed - shown > 0.5:
                check()
                loss_now, accuracy_now = loss_sum.item() / samples, correct.item() / samples
                bar.set_postfix_str(f"loss {loss_now:.3f}, accuracy {accuracy_now:.1%}, {samples / elapsed:,.0f} images/s", refresh=False)
                shown = elapsed
    if not samples:
        raise ValueError("the loader gave no images: nothing to train on or to evaluate")
    check()
    return loss_sum.item() / samples, correct.item() / samples


def fit(model, train_loader, val_loader, *, epochs, optimizer, scheduler=None, criterion=None, label="", tensorboard=None, checkpoint=None):
    """Train for `epochs` passes over train_loader, evaluate on val_loader after each; returns the History.

    criterion: cross-entropy unless given. scheduler: stepped once a batch. label: name of the run in the printed lines.
    tensorboard: folder to write scalars to, for `make tensorboard`; nothing is written without it.
    checkpoint: file to save everything to after each epoch. If it is there, training goes on behind its last epoch, and ends on the
    CPU with the very numbers of a run that was never stopped. Raises ValueError if it is of a run with other settings.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    criterion = criterion or nn.CrossEntropyLoss()
    model.to(memory_format=torch.channels_last)  # pixels instead of planes: the faster order for convolutions
    history = History()
    keeper = Checkpoint(checkpoint, model, train_loader, val_loader, epochs, optimizer, scheduler, criterion) if checkpoint else None
    if keeper and keeper.resume(history):
        print(f"{label} goes on behind epoch {len(history)}, from its checkpoint".lstrip())
    writer = summary_writer(tensorboard) if tensorboard else None
    for number in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        here = f"{label} {number}/{epochs} ".lstrip()
        train_loss, train_accuracy = epoch(model, train_loader, criterion, optimizer, scheduler=scheduler, label=here)
        val_loss, val_accuracy = epoch(model, val_loader, criterion, label=here)
        history.append(train_loss, train_accuracy, val_loss, val_accuracy, time.perf_counter() - start)
        print(f"{here}| T loss {train_loss:.3f} accuracy {train_accuracy:5.1%} | V loss {val_loss:.3f} accuracy {val_accuracy:5.1%}")
        for name, series in vars(history).items() if writer else ():
            writer.add_scalar(name, series[-1], number)
        if keeper:
            keeper.save(history)
    if writer:
        writer.close()
    return history


@contextlib.contextmanager
def _advice_on_memory(images):
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise MemoryError(f"out of memory with a batch of {images} images: try a batch size of {max(1, images // 2)}") from None


def summary_writer(folder):
    """A TensorBoard writer, or None and a line that says why not."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # here, because it takes seconds to import
    except ImportError:
        print("NOTE: TensorBoard is not installed, so nothing is written for it; `pip install tensorboard` brings it.")
        return None
    return SummaryWriter(folder)
