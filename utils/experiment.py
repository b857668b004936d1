"""What a notebook's parameters mean: its budget, device and data set, and where its plots and results go."""

import json
import os
import re

import torch
from torch import nn

from . import data, plots, provenance, train
from .files import whole

BUDGETS = ("smoke", "quick", "full")
FIGURES = data.ROOT / "figures"
TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "fashionmnist": "Fashion-MNIST", "synthetic": "SYNTHETIC images"}


class Experiment:
    """One run of one notebook.

        lab = Experiment("01_cnn_cifar100", "cifar100", BUDGET, DATA, EPOCHS, SEED, DEVICE, shape=(3, 32, 32))

    name: the notebook's, and the folder's below figures/. usual: the data set that the notebook is about.
    budget "auto" is $RESNET_BUDGET, or full on CUDA and quick elsewhere; data "auto" is $RESNET_DATA, or the usual one.
    shape: the only image shape (channels, height, width) that the notebook's networks take.

    Real runs of the usual data set at the quick or full budget write to figures/NAME/; all others to a folder in it, named
    after their data set and budget, so that they never touch real results. Raises ValueError or OSError before any work
    is done, in one line that says what to do.
    """

    def __init__(self, name, usual, budget="auto", data_name="auto", epochs=None, seed=0, device="auto", shape=None):
        self.name, self.seed, self.device = name, seed, train.device(device)
        notebook = data.ROOT / "notebooks" / f"{name}.ipynb"
        self.source = provenance.source(notebook) if notebook.exists() else None  # now, before a file is edited
        self.budget = os.environ.get("RESNET_BUDGET", "auto") if budget == "auto" else budget
        if self.budget == "auto":
            self.budget = "full" if self.device.type == "cuda" else "quick"
        if self.budget not in BUDGETS:
            raise ValueError(f"no budget {self.budget!r}: use auto, {', '.join(BUDGETS)}")
        if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
            raise ValueError(f"EPOCHS must be None or a whole number from 1, got {epochs!r}")
        self._epochs = epochs
        wanted = os.environ.get("RESNET_DATA", "auto") if data_name == "auto" else data_name
        self.dataset = data.load(usual if wanted == "auto" else wanted, like=usual, fallback=wanted == "auto")
        found = tuple(self.dataset.train.images.shape[1:])
        if shape and found != shape:
            raise ValueError(f"this notebook's networks take images of shape {shape}, those of {self.dataset.name} are {found}")
        real = self.dataset.name == usual and self.budget != "smoke"
        self.folder = FIGURES / name if real else FIGURES / name / f"{self.dataset.name}-{self.budget}"
        self.title = TITLES.get(self.dataset.name, self.dataset.name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("writable", "")
            (self.folder / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise OSError(f"cannot write to {self.folder.relative_to(data.ROOT)} ({error.strerror}): make it writable") from None
        print(f"{self.title}, {self.budget} budget, seed {seed}, on {train.device_name(self.device)}")
        print(f"plots and results: {self.folder.relative_to(data.ROOT)}")

    def pick(self, smoke, quick, full):
        """The value for this budget."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.budget]

    def epochs(self, smoke, quick, full):
        """The EPOCHS parameter, or this budget's number."""
        return self._epochs or self.pick(smoke, quick, full)

    def checkpoint(self, run):
        """Where `fit` keeps the state of this run until the notebook has ended; None (nowhere) unless `make run-all` runs it."""
        mark = os.environ.get("RESNET_FINGERPRINT")
        return FIGURES / "checkpoints" / f"{self.name}-{mark}" / f"{_file_name(run)}.pt" if mark else None

    def run(self, name, model, images, epochs, seed, test_images, batch_size=64):
        """Train a model on some of the training images; returns its History and its share of correct predictions on the test images.

        images: how many, of which a tenth is held out for validation; a seed changes the order and the augmentation (flip and crop),
        not the choice. SGD with Nesterov momentum 0.9, weight decay 1e-4 and one cycle of the learning rate, up to 0.1; up to 0.02
        in a run of at most 1,000 steps, which has no time to recover from large ones.
        """
        sample = self.dataset.train.sample(images, seed=0)
        train_set, val_set = sample.hold_out(len(sample) // 10, seed=0)
        loader = data.BatchLoader(train_set, batch_size, data.Augment(rotate=0), shuffle=True, seed=seed, device=self.device)
        val_loader = data.BatchLoader(val_set, 256, device=self.device)
        test_loader = data.BatchLoader(self.dataset.test.sample(test_images, seed=0), 256, device=self.device)
        model.to(self.device)
        steps = epochs * len(loader)
        lr = 0.1 if steps > 1_000 else 0.02
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        history = train.fit(
            model, loader, val_loader, epochs=epochs, optimizer=optimizer, scheduler=scheduler, label=name, checkpoint=self.checkpoint(name)
        )
        return history, train.epoch(model, test_loader, nn.CrossEntropyLoss())[1]

    def save_figure(self, figure, name):
        """Write the plot as NAME.png and NAME.pdf."""
        plots.save(figure, self.folder / name, self.source)

    def save_result(self, run, history=None, **numbers):
        """Write RUN.json: the numbers and the history, with all that is needed to know what they were measured on."""
        record = {
            "notebook": self.name, "run": run, "dataset": self.dataset.name, "synthetic": self.dataset.synthetic,
            "budget": self.budget, "seed": self.seed, "device": train.device_name(self.device),
            "versions": provenance.versions(), "source": self.source, **numbers,
        }  # fmt: skip
        if history:
            record |= {"epochs": len(history), "history": vars(history)}
        self._write(f"{_file_name(run)}.json", json.dumps(record, indent=1) + "\n")

    def _write(self, name, text):
        with whole(self.folder / name) as partial:
            partial.write_text(text)


def _file_name(run):
    return re.sub(r"[^\w.-]+", "_", run)
