"""What a notebook's parameters mean: its budget, device and data sets, and where its plots and results go."""

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np

from . import data, plots, train, weights
from .files import atomic_write, digest

BUDGETS = ("smoke", "quick", "full", "paper")
FIGURES = data.ROOT / "figures"
TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "fashionmnist": "Fashion-MNIST", "synthetic": "SYNTHETIC images"}


def resolve(budget, device):
    """The budget and torch.device that "auto" stands for: $RESNET_BUDGET, else full on CUDA and quick elsewhere. Raises ValueError."""
    device = train.device(device)
    if budget == "auto":
        budget = os.environ.get("RESNET_BUDGET", "auto")
    if budget == "auto":
        budget = "full" if device.type == "cuda" else "quick"
    if budget not in BUDGETS:
        raise ValueError(f"no budget {budget!r}: use auto, {', '.join(BUDGETS)}")
    return budget, device


def versions():
    """Of Python and the packages that a result depends on, {name: version}."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "torchvision", "numpy")}


class Experiment:
    """One run of one notebook.

        lab = Experiment("01_cnn_cifar100", "cifar100", BUDGET, DATA, EPOCHS, SEED, DEVICE, shape=(3, 32, 32))

    name: the notebook's, and the folder's below figures/. default_data: the data set that the notebook is about, .dataset unless another
    is asked for. also: further data sets that it uses, in .also by name; made-up ones if .dataset is made up.
    data_name "auto" is $RESNET_DATA, or default_data.
    shape: the only image shape (channels, height, width) that the notebook's networks take.

    The committed configuration (full budget, seed 0, the published data sets) writes to figures/NAME/; every other one to a folder in it
    that is named after what differs, so that no two get into each other's way. Raises ValueError or OSError before any work is done,
    in one line that says what to do.
    """

    def __init__(self, name, default_data, budget="auto", data_name="auto", epochs=None, seed=0, device="auto", shape=None, also=()):
        try:
            self._set_up(name, default_data, budget, data_name, epochs, seed, device, shape, also)
        except (ValueError, OSError) as error:
            raise train.in_one_line(error) from None
        print(f"{self.title}, {self.budget} budget, seed {seed}, on {train.device_name(self.device)}")
        print(f"plots and results: {self.folder.relative_to(data.ROOT)}")

    def _set_up(self, name, default_data, budget, data_name, epochs, seed, device, shape, also):
        self.name, self.seed = name, seed
        self.budget, self.device = resolve(budget, device)
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"SEED must be a whole number from 0, got {seed!r}")
        if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
            raise ValueError(f"EPOCHS must be None or a whole number from 1, got {epochs!r}")
        self._epochs = epochs
        wanted = os.environ.get("RESNET_DATA", "auto") if data_name == "auto" else data_name
        asked = default_data if wanted == "auto" else wanted
        self.dataset = data.load(asked, like=default_data, fallback=wanted == "auto")
        self.also = {other: data.synthetic(other) if self.dataset.synthetic else data.load(other) for other in also}
        found = tuple(self.dataset.train.images.shape[1:])
        if shape and found != shape:
            raise ValueError(f"this notebook's networks take images of shape {shape}, those of {self.dataset.name} are {found}")
        self.title = title(self.dataset)
        self.folder = FIGURES / name / self._what_differs(default_data)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "writable").touch()
            (self.folder / "writable").unlink()
        except OSError as error:
            raise OSError(f"cannot write to {self.folder.relative_to(data.ROOT)} ({error.strerror}): make it writable") from None
        used = {asked: self.dataset} | ({} if self.dataset.synthetic else self.also)
        self._data = [
            {"asked": name, "like": default_data if name == asked else name, "digest": part.digest} for name, part in used.items()
        ]
        self._files = {}  # {name: digest} of what was written

    def _what_differs(self, default_data):
        """The name of the folder for results that are not of the committed configuration; "" for those that are."""
        differs = [] if self.budget == "full" else [self.budget]
        if self.dataset.synthetic or (self.dataset.published and self.dataset.name != default_data):
            differs.append(self.dataset.name)
        elif not self.dataset.published:
            differs.append(f"{self.dataset.name}-{self.dataset.digest[:6]}")  # of two folders with one name, each has its own results
        differs += [f"synthetic-{name}" for name, other in self.also.items() if other.synthetic and not self.dataset.synthetic]
        differs += [f"seed{self.seed}"] if self.seed != 0 else []
        differs += [f"epochs{self._epochs}"] if self._epochs else []
        return _file_name("-".join(differs))

    def pick(self, smoke, quick, full, paper=None):
        """The value for this budget; paper's is that of full unless given."""
        return {"smoke": smoke, "quick": quick, "full": full, "paper": full if paper is None else paper}[self.budget]

    def epochs(self, smoke, quick, full, paper=None):
        """The EPOCHS parameter, or this budget's number."""
        return self._epochs or self.pick(smoke, quick, full, paper)

    def checkpoint(self, run):
        """Where `fit` keeps the state of this run until the notebook has ended; None (nowhere) unless `make run-all` runs it."""
        place = os.environ.get("RESNET_CHECKPOINTS")
        return Path(place) / f"{_file_name(run)}-{self.dataset.digest[:6]}.pt" if place else None

    def once(self, name, measure):
        """measure(), which must give what JSON can hold. A run that is taken up again gets what was measured before it was stopped.

        For what later steps depend on and what differs from time to time: seconds, by which epochs are counted.
        """
        place = self.checkpoint(name)
        if place and place.with_suffix(".json").exists():
            return json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        value = measure()
        if place:
            with atomic_write(place.with_suffix(".json")) as partial:
                partial.write_text(json.dumps(value), encoding="utf-8")
        return value

    def save_figure(self, figure, name):
        """Write the plot as NAME.png and NAME.pdf."""
        for file in plots.save(figure, self.folder / name):
            self._note(file)

    def save_result(self, run, history=None, dataset=None, **numbers):
        """Write RUN.json: the numbers and the history, with all that is needed to know what they were measured on.

        dataset: the Dataset that they were measured on, if it is not .dataset.
        """
        record = {"notebook": self.name, "run": run} | self._circumstances(dataset or self.dataset) | numbers
        if history:
            record |= {"epochs": len(history), "history": vars(history)}
        file = self.folder / f"{_file_name(run)}.json"
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self._note(file)

    def save_array(self, array, name):
        """Write a numpy array as NAME.npy."""
        with atomic_write(self.folder / f"{name}.npy") as partial:
            np.save(partial, array)
        self._note(self.folder / f"{name}.npy")

    def save_weights(self, model, name, **numbers):
        """Keep a trained network as NAME.npz and NAME.json: in weights/ if this is the committed configuration, else beside the results."""
        committed = self.folder == FIGURES / self.name
        record = {"notebook": self.name} | self._circumstances(self.dataset) | {"data": self.dataset.digest} | numbers
        for file in weights.save(model, name, weights.FOLDER if committed else self.folder, **record):
            if not committed:
                self._note(file)

    def _circumstances(self, dataset):
        return {
            "dataset": dataset.name, "synthetic": dataset.synthetic, "budget": self.budget, "seed": self.seed,
            "device": train.device_name(self.device), "precision": str(train.precision(self.device)), "versions": versions(),
        }  # fmt: skip

    def _note(self, file):
        """Tell `make run-all` what was written, where, and from which data."""
        if "RESNET_CHECKPOINTS" in os.environ:
            self._files[file.name] = digest(file.read_bytes())
            folder = self.folder.relative_to(data.ROOT).as_posix()
            with atomic_write(Path(os.environ["RESNET_CHECKPOINTS"]) / "experiment.json") as partial:
                partial.write_text(json.dumps({"folder": folder, "data": self._data, "files": self._files}), encoding="utf-8")


def title(dataset):
    """What plots call a data set: its usual name only if it is the published one."""
    return TITLES[dataset.name] if dataset.published or dataset.synthetic else f"pictures in {dataset.name}"


def _file_name(run):
    return re.sub(r"[^\w.-]+", "_", run)
