"""The training loop that every notebook uses. Notebook 01 derives it line by line.

    history = fit(model, train_loader, val_loader, epochs=10, optimizer=torch.optim.AdamW(model.parameters()))
    test_loss, test_accuracy = epoch(model, test_loader, nn.CrossEntropyLoss())

As a command, for one process or with torchrun for many: `python -m utils.train --help`.
"""

import bisect
import os
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from . import data, distributed
from .checkpoint import Checkpoint
from .meter import Meter


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


# ---- the device -----------------------------------------------------------------------------------------------------


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


def device_name(device):
    """What a result says it was measured on: the GPU's name, or "cpu, 2 threads"."""
    threads = torch.get_num_threads()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {threads} thread{'s' * (threads != 1)}"


@dataclass(frozen=True)
class Precision:
    """The number format of a forward pass, and the order of its pixels in memory."""

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    def __str__(self):
        order = "channels last" if self.memory_format == torch.channels_last else "channels first"
        return f"{str(self.dtype).removeprefix('torch.')}, {order}"


def precision(device):
    """The Precision for a device: what makes it fast without changing what is learnt.

    bfloat16 needs a GPU that has it in hardware (compute capability 8.0 on: a T4 only emulates it, and has no such convolutions).
    channels_last is the faster order for convolutions on CUDA and on the CPU; on MPS it made batch norm wrong (pytorch#175189).
    RESNET_PRECISION=float32 in the environment switches both off; bfloat16 takes it on a CPU, too (almost twice as fast on one that
    multiplies it in hardware: avx512_bf16 or amx_bf16 among its flags; slower on any other).
    """
    chosen = os.environ.get("RESNET_PRECISION", "auto")
    if chosen not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"RESNET_PRECISION must be auto, float32 or bfloat16, got {chosen!r}")
    if chosen == "float32" or device.type not in ("cpu", "cuda"):
        return Precision()
    if chosen == "bfloat16":
        return Precision(torch.bfloat16, torch.channels_last)
    has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return Precision(torch.bfloat16 if has_bfloat16 else torch.float32, torch.channels_last)


# ---- the loop -------------------------------------------------------------------------------------------------------


def epoch(model, loader, criterion, optimizer=None, *, scheduler=None, label=""):
    """One pass over `loader`: training with an optimizer, evaluation without. Returns (loss, accuracy) as floats.

    loader: yields (images, labels). criterion: logits, labels -> mean loss of the batch. scheduler: stepped once a batch.
    label: what stands before the progress bar.
    Both results are means over *images*; batches of different sizes therefore count by their size. Where several processes train
    together (see distributed.py), each calls this with its share of the images, and both are of the images of all.
    Raises what Meter raises: FloatingPointError for a loss of NaN, MemoryError, ValueError for no images.
    """
    training = optimizer is not None
    model.train(training)
    if not training:
        model = distributed.unwrapped(model)  # processes may have different numbers of batches: none waits for another
    device = next(model.parameters()).device
    dtype = precision(device).dtype
    meter = Meter(loader, device, label, optimizer)
    with torch.set_grad_enabled(training), meter:
        for images, labels in meter:
            images, labels = images.to(device), labels.to(device)
            if training:
                optimizer.zero_grad()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = model(images)
                loss = criterion(logits, labels)
            if training:
                loss.backward()
                optimizer.step()
                if scheduler:
                    scheduler.step()
            meter.add(loss, logits, labels)
    if training:
        distributed.share_buffers(model)
    meter.add_up()
    return meter.means()


def fit(
    model, train_loader, val_loader, *, epochs, optimizer, scheduler=None, criterion=None, label="", tensorboard=None, checkpoint=None,
    verbose=True,
):  # fmt: skip
    """Train for `epochs` passes over train_loader, evaluate on val_loader after each; returns the History.

    val_loader: None where nothing is held out: the History then has None for loss and accuracy in validation.
    criterion: cross-entropy unless given. scheduler: stepped once a batch. label: name of the run in the printed lines.
    verbose: print a line for each epoch; otherwise one line for the whole run, at its end.
    tensorboard: folder to write scalars to, for `make tensorboard`; nothing is written without it.
    checkpoint: file to save everything to after each epoch. If it is there, training goes on after its last epoch, and ends on the
    CPU with the very numbers of a run that was never stopped. Raises ValueError if it is of a run with other settings. Without a file,
    a training that was interrupted goes on when the very same is started again in the same process.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    criterion = criterion or nn.CrossEntropyLoss()
    if model is distributed.unwrapped(model):  # else distributed.wrap has done it: DDP averages wrongly what is laid out anew afterwards
        model.to(memory_format=precision(next(model.parameters()).device).memory_format)
    history = History()
    keeper = Checkpoint(checkpoint, model, train_loader, val_loader, epochs, optimizer, scheduler, criterion)
    distributed.agree(keeper.settings)
    if keeper.resume(history) and len(history) < epochs:
        print(f"{label} goes on after epoch {len(history)}, from its checkpoint".lstrip())

    def report(number):
        if verbose or number == epochs:
            t_loss, t_accuracy, v_loss, v_accuracy, _ = (series[number - 1] for series in vars(history).values())
            here = f"{label} {number}/{epochs}".lstrip()
            of_validation = f" | V loss {v_loss:.3f} accuracy {v_accuracy:5.1%}" if val_loader else ""
            print(f"{here} | T loss {t_loss:.3f} accuracy {t_accuracy:5.1%}{of_validation}")

    for number in range(1, len(history) + 1):  # a run that was stopped ends with the same lines as one that was not
        report(number)
    writer = summary_writer(tensorboard) if tensorboard else None
    try:
        for number in range(len(history) + 1, epochs + 1):
            start = time.perf_counter()
            here = f"{label} {number}/{epochs} ".lstrip()
            train_loss, train_accuracy = epoch(model, train_loader, criterion, optimizer, scheduler=scheduler, label=here)
            val_loss, val_accuracy = epoch(model, val_loader, criterion, label=here) if val_loader else (None, None)
            history.append(train_loss, train_accuracy, val_loss, val_accuracy, time.perf_counter() - start)
            report(number)
            if writer:
                for name, series in vars(history).items():
                    if series[-1] is not None:
                        writer.add_scalar(name, series[-1], number)
            keeper.save(history)
    except KeyboardInterrupt:
        keeper.interrupt()
        done = f"{len(history)} of {epochs} epochs are done and kept: run the same again, and it goes on from there"
        raise in_one_line(KeyboardInterrupt(f"{label}: {done}".removeprefix(": "))) from None
    except (FloatingPointError, MemoryError) as error:
        raise in_one_line(error) from None
    if writer:
        writer.close()
    return history


def in_one_line(error):
    """The exception, which a notebook then shows as one line, without the traceback: its message says what to do."""
    error._render_traceback_ = lambda: [f"{type(error).__name__}: {error}"]  # IPython asks for this
    return error


def summary_writer(folder):
    """A TensorBoard writer, or None and a line that says why not."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # here, because it takes seconds to import
    except ImportError:
        print("NOTE: TensorBoard is not installed, so nothing is written for it; `pip install tensorboard` brings it.")
        return None
    return SummaryWriter(folder)


# ---- recipes --------------------------------------------------------------------------------------------------------


def sgd_one_cycle(model, lr, steps, weight_decay=5e-4):
    """(optimizer, scheduler) of the curriculum's usual recipe, for a training of `steps` batches.

    SGD with Nesterov momentum of 0.9 throughout. The learning rate goes from lr / 25 up to lr in the first 30 % of the steps, then
    down to almost nothing along a cosine (one cycle: Smith and Topin 2018). PyTorch's scheduler would move the momentum between 0.95
    and 0.85 as well, unless told not to.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, cycle_momentum=False)


def sgd_three_rates(model, lr, steps, warmup=0, weight_decay=1e-4):
    """(optimizer, scheduler) of He et al. 2015, section 4.2, for a training of `steps` batches.

    SGD with momentum 0.9. The learning rate is lr, from half of the steps on a tenth of it, and from three quarters on a hundredth (32,000
    and 48,000 of 64,000 steps in the paper). warmup: for so many steps at the beginning it is a tenth of lr as well (400 for 110 layers).
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    ends = [*([warmup] if warmup else []), steps // 2, steps * 3 // 4]
    factors = [*([0.1] if warmup else []), 1.0, 0.1, 0.01]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factors[bisect.bisect_right(ends, step)])


class Together(torch.optim.Optimizer):
    """Several optimizers, each for some of a model's parameters, used like one: `epoch`, schedulers and checkpoints see all groups."""

    def __init__(self, *optimizers):  # the base class would want parameters of its own; schedulers ask for no more than the type
        self.optimizers = optimizers
        self.defaults = {}

    @property
    def param_groups(self):
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none=True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self):
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state):
        for optimizer, part in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(part)

    def __repr__(self):
        return f"Together({', '.join(map(repr, self.optimizers))})"


class Outcome(NamedTuple):
    """What `train_and_test` found. The accuracies are of the trained network, 0 to 1, on images without augmentation."""

    history: History
    train_accuracy: float
    test_accuracy: float


def train_and_test(
    model, dataset, *, images, test_images, epochs, recipe, batch_size, seed, device, label="", checkpoint=None, augment=None, size=None,
    tensorboard=None,
):  # fmt: skip
    """Train a model on some of a data set's training images, with one printed line at the end; returns the Outcome.

    images, test_images: how many; a tenth of `images` is held out for validation. recipe: (model, steps) -> (optimizer, scheduler).
    seed: of the order and the augmentation; which images are taken does not depend on it. augment: flip and crop unless given. size: to
    which the images are resized, in pixels, a batch at a time. label, checkpoint, tensorboard: as in `fit`.
    """
    sample = dataset.train.sample(images, seed=0)
    train_set, val_set = sample.hold_out(len(sample) // 10, seed=0)
    augment = augment or data.Augment(rotate=0)
    loader = data.BatchLoader(train_set, batch_size, augment, shuffle=True, seed=seed, device=device, size=size, drop_last=True)
    evaluation = [val_set, train_set, dataset.test.sample(test_images, seed=0)]
    val_loader, train_loader, test_loader = (data.BatchLoader(split, 512, device=device, size=size) for split in evaluation)
    optimizer, scheduler = recipe(model.to(device), epochs * len(loader))
    history = fit(
        model, loader, val_loader, epochs=epochs, optimizer=optimizer, scheduler=scheduler, label=label, checkpoint=checkpoint,
        tensorboard=tensorboard, verbose=False,
    )  # fmt: skip
    criterion = nn.CrossEntropyLoss()
    return Outcome(history, epoch(model, train_loader, criterion)[1], epoch(model, test_loader, criterion)[1])


if __name__ == "__main__":
    from .command import main

    main()
