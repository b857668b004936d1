"""How long the fast network of notebook 10 takes to 94 percent on CIFAR-10 (75 on CIFAR-100), on a GPU or on a CPU; `make speedrun`.

    python benchmarks/speedrun.py [--data cifar10 cifar100] [--seeds 3] [--epochs 9] [--images 2000] ...

The loader and the loop of utils, the network and the recipe of utils/fast.py, all 50,000 training images. The clock starts with the
images on the device and before the network is made, and stops after the last step: whitening, initialisation and augmentation count. What
is done once whatever the number of runs (compiling, choosing algorithms) comes before and is told apart. The 10,000 test images are
looked at once, after the last epoch, plain and in six views; that time is told apart, too. Every run counts: mean and spread, no best of n.

Results are written to benchmarks/results/ unless an option changes what is trained. A run that is stopped goes on with the seed in which
it was, as long as nothing else has changed.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from utils import data, fast, loader, train
from utils.files import atomic_write, digest

RESULTS = Path(__file__).parent / "results"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
TARGETS = {
    ("cifar10", "cuda"): (0.94, 10),
    ("cifar10", "cpu"): (0.94, 2100),
    ("cifar100", "cuda"): (0.75, 30),
    ("cifar100", "cpu"): (0.75, 7200),
}


class Run:
    """Trainings of one network with one recipe on one data set; compiles and warms up once, then `train` with each seed."""

    def __init__(self, dataset, device, recipe, compiled):
        self.dataset, self.device, self.recipe = dataset, device, recipe
        self.batch = min(recipe["batch"], len(dataset.train))
        self.sizes = fast.by_epoch(recipe["sizes"], recipe["epochs"])
        self.model = self.network(seed=0)
        self.trained = self.model  # what is called in training: the same parameters, perhaps compiled
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe["smoothing"])
        start = time.perf_counter()
        if compiled:
            # Without rounding to 16 bits in between, the maximum equals none of the numbers that it was taken from, and its gradient is NaN
            # (github.com/pytorch/pytorch/issues/195214).
            self.trained = torch.compile(self.model, dynamic=False, options={"emulate_precision_casts": True})
        try:
            self.rates = self.warm_up()
        except Exception as error:  # no Triton, no C compiler, an unknown GPU: torch.compile raises all kinds, at the first call
            if not compiled:
                raise
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            print(f"NOTE: torch.compile does not work here ({reason}): going on without it.")
            torch._dynamo.reset()
            self.trained = self.model
            self.model.load_state_dict(self.network(seed=0).state_dict())  # what did not work may have spoilt it
            self.rates = self.warm_up()
        self.seconds_before = self.now() - start

    def network(self, seed):
        torch.manual_seed(seed)
        model = fast.FastNet(len(self.dataset.classes), self.recipe["widths"], self.recipe["branch"], self.recipe["shortcut"])
        return model.to(self.device, memory_format=train.precision(self.device).memory_format)

    def whiten(self):
        self.model.whiten(data.Augment().normalise(self.dataset.train.images[:2000].to(self.device)))

    def warm_up(self):
        """Some steps at each size of the images; returns the images a second of the last steps, by size."""
        few = self.dataset.train[: 2 * self.batch if self.device.type == "cuda" else min(self.batch, 500)]
        found = {}
        for size in dict.fromkeys(self.sizes):
            loader = fast.loader(few, self.batch, (size,), 0, self.device)
            self.whiten()
            optimizer, scheduler = fast.muon_recipe(self.model, 2 * len(loader), self.batch)
            for _ in range(2):
                start = self.now()
                train.epoch(self.trained, loader, self.criterion, optimizer, scheduler=scheduler, label=f"warming up, {size}×{size} ")
                found[size] = len(few) / (self.now() - start)
        return found

    def now(self):
        """The time, once the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def train(self, seed, label):
        """Train with this seed; returns {seconds, accuracy, six_views, seconds_of_testing}."""
        loader = fast.loader(self.dataset.train, self.batch, self.sizes, seed, self.device)
        tests = data.BatchLoader(self.dataset.test, min(self.batch, 2000), device=self.device)
        start = self.now()
        self.model.load_state_dict(self.network(seed).state_dict())  # the compiled network is of these very parameters
        self.whiten()
        epochs = self.recipe["epochs"]
        optimizer, scheduler = fast.muon_recipe(self.model, epochs * len(loader), self.batch, self.recipe["lr"])
        for number in range(1, epochs + 1):
            here = f"{label}, epoch {number}/{epochs}"
            loss, accuracy = train.epoch(self.trained, loader, self.criterion, optimizer, scheduler=scheduler, label=here + " ")
            if self.device.type == "cpu":
                done, left = (sum(size**2 for size in part) for part in (self.sizes[:number], self.sizes[number:]))
                minutes = (self.now() - start) / 60
                print(
                    f"{here}: loss {loss:.3f}, accuracy {accuracy:.1%}, {minutes:.1f} min, {minutes * left / done:.0f} min left", flush=True
                )
        end = self.now()
        accuracies = [train.epoch(model, tests, nn.CrossEntropyLoss())[1] for model in (self.model, fast.SixViews(self.model))]
        return {"seconds": end - start, "accuracy": accuracies[0], "six_views": accuracies[1], "seconds_of_testing": self.now() - end}


def measure(dataset, device, recipe, seeds, compiled, unfinished=None):
    """Train with each seed and print what comes out; returns what is written down.

    unfinished: the file that keeps the trainings which are done, until all are.
    """
    run = Run(dataset, device, recipe, compiled)
    rates = ", ".join(f"{rate:,.0f} images/s at {size}×{size}" for size, rate in run.rates.items())
    print(f"{dataset.name}: compiled and warmed up in {run.seconds_before:.1f} s; {rates}", flush=True)
    facts = {
        "device": train.device_name(device), "precision": str(train.precision(device)), "compiled": run.trained is not run.model,
        "images": len(dataset.train), "torch": torch.__version__, "python": platform.python_version(), **recipe,
    }  # fmt: skip
    rows = done_before(unfinished, facts) if unfinished else []
    for seed in range(len(rows), seeds):
        row = run.train(seed, f"{dataset.name}, seed {seed}")
        rows.append(row)
        print(
            f"{dataset.name}, seed {seed}: {row['accuracy']:.2%} of the test images, {row['six_views']:.2%} in six views, after "
            f"{row['seconds']:.2f} s of training; tested in {row['seconds_of_testing']:.2f} s",
            flush=True,
        )
        if unfinished:
            write(unfinished, json.dumps({"of": key_of(facts), "rows": rows}))
    record = facts | {"seconds_before": round(run.seconds_before, 1), "runs": seeds}
    record |= {key: [round(row[key], 4) for row in rows[:seeds]] for key in rows[0]}
    for key in ("accuracy", "six_views"):
        record[f"mean_{key}"] = statistics.mean(record[key])
        record[f"std_{key}"] = statistics.stdev(record[key]) if seeds > 1 else None
    return record | {"mean_seconds": statistics.mean(record["seconds"]), "minutes": statistics.mean(record["seconds"]) / 60}


def key_of(facts):
    """A short name for a run and its code."""
    code = b"".join(Path(module.__file__).read_bytes() for module in (fast, train, loader))
    return digest(code + repr(sorted(facts.items())).encode())


def done_before(unfinished, facts):
    """The trainings of a run that was stopped; none if it was of something else."""
    try:
        found = json.loads(unfinished.read_text(encoding="utf-8"))
        rows = found["rows"] if found["of"] == key_of(facts) else []
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or half of one
        return []
    if rows:
        print(f"going on with seed {len(rows)}: those before are done", flush=True)
    return rows


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as partial:
        Path(partial).write_text(text, encoding="utf-8")


def line(name, row):
    """The result as a line in Markdown, which `make report` puts into docs/speed.md. name: such as cifar10_cuda."""
    spread = "" if row["std_six_views"] is None else f" ± {100 * row['std_six_views']:.2f}"
    took = f"{row['mean_seconds']:.1f} s" if row["mean_seconds"] < 120 else f"{row['minutes']:.0f} min"
    return (
        f"- {TITLES[name.partition('_')[0]]}: {100 * row['mean_six_views']:.2f}{spread} percent of the test images in six views "
        f"({100 * row['mean_accuracy']:.2f} without) after {took} of training ({row['epochs']} epochs, {row['runs']} runs, {row['device']})"
    )


def parse(arguments):
    parser = argparse.ArgumentParser(description="Time to a given test accuracy.")
    parser.add_argument("--data", nargs="+", choices=list(fast.RECIPES), default=["cifar10"])
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile; unless told: on a GPU, not on a CPU")
    change = parser.add_argument_group("what is trained; with any of these, nothing is written down")
    change.add_argument("--images", type=int, help="only the first so many images, of training and test")
    change.add_argument("--epochs", type=int)
    change.add_argument("--widths", type=int, nargs=3)
    change.add_argument("--branch", type=int, help="convolutions in a residual branch")
    change.add_argument("--shortcut", choices=["inside", "outside", "none"], help="where it ends: before the last BN or after")
    change.add_argument("--batch", type=int)
    change.add_argument("--lr", type=float, help="of Muon")
    change.add_argument("--sizes", type=int, nargs="+", help="of the images, from the first epochs to the last")
    change.add_argument("--smoothing", type=float)
    options = parser.parse_args(arguments)
    for name in ("seeds", "images", "epochs", "branch", "batch"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    if min(options.sizes or [17]) < 17:
        parser.error("--sizes must be at least 17: three poolings leave nothing of less")
    return options


def main(arguments=None):
    options = parse(arguments)
    device = train.device(options.device)
    torch.backends.cudnn.benchmark = True
    compiled = device.type == "cuda" if options.compile is None else options.compile
    path = RESULTS / "speedrun.json"
    for name in options.data:
        changed = {key: value for key in fast.RECIPES[name] if (value := getattr(options, key)) is not None}
        recipe = fast.RECIPES[name] | changed
        dataset = data.load(name, fallback=False)
        if options.images:
            parts = dataset.train[: options.images], dataset.test[: options.images]
            dataset = data.Dataset(name, *parts, dataset.classes)
        official = not changed and not options.images
        unfinished = RESULTS / f"unfinished_{name}_{device.type}.json" if official else None
        row = measure(dataset, device, recipe, options.seeds, compiled, unfinished)
        accuracy, seconds = TARGETS.get((name, device.type), (1, 0))
        reached = row["mean_six_views"] >= accuracy and row["mean_seconds"] <= seconds
        print(f"{line(f'{name}_{device.type}', row)[2:]}; target {accuracy:.0%} in {seconds} s: {'reached' if reached else 'NOT reached'}")
        if not official:
            continue
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        record[f"{name}_{device.type}"] = row
        write(path, json.dumps(record, indent=1) + "\n")  # after each, should it be stopped
        write(path.with_suffix(".md"), "\n".join(line(key, record[key]) for key in sorted(record)) + "\n")
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
