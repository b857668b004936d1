"""How long a ResNet of this curriculum takes to a good test accuracy; a part of `make bench` where there is a CUDA GPU.

    python benchmarks/speedrun.py [cifar10] [cifar100] [--runs 5]

ResNet-18 with the CIFAR stem, in 16-bit numbers, trained by the loader and the loop of utils on all 50,000 training images: flips and
shifts, SGD with Nesterov momentum, one cycle of the learning rate, label smoothing. The clock starts with the images on the device and
before the network is made, and stops when the accuracy on the 10,000 test images is known; these are looked at once, after the last
epoch. A few steps before the clock starts load the GPU's libraries. Every run counts: mean and spread, no best of n.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from utils import data, models, train

RESULTS = Path(__file__).parent / "results"
TARGETS = {"cifar10": (14, 0.94, 30), "cifar100": (30, 0.75, 90)}  # epochs; accuracy to reach, and the seconds to reach it in
BATCH = 512


def run(dataset, device, epochs, seed):
    """Train once; returns the seconds and the share of test images predicted correctly."""
    loader = data.BatchLoader(dataset.train, BATCH, data.Augment(rotate=0), shuffle=True, seed=seed, device=device, drop_last=True)
    test_loader = data.BatchLoader(dataset.test, 2 * BATCH, device=device)
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = models.resnet18(len(dataset.classes), stem="cifar").to(device, memory_format=torch.channels_last)
    optimizer, scheduler = train.sgd_one_cycle(model, lr=0.4, steps=epochs * len(loader))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    for number in range(1, epochs + 1):
        train.epoch(model, loader, criterion, optimizer, scheduler=scheduler, label=f"{dataset.name} {number}/{epochs} ")
    _, accuracy = train.epoch(model, test_loader, criterion)  # reads its sums from the device, so all work is done
    return time.perf_counter() - start, accuracy


def measure(dataset, device, epochs, runs):
    """Some steps to warm up, then all runs, each with a seed of its own; returns what is written down."""
    few = data.Dataset(dataset.name, dataset.train[: 4 * BATCH], dataset.test[: 2 * BATCH], dataset.classes)
    run(few, device, 2, seed=0)
    found = [run(dataset, device, epochs, seed) for seed in range(runs)]
    seconds, accuracies = ([round(value, 4) for value in series] for series in zip(*found, strict=True))
    return {
        "network": "ResNet-18, CIFAR stem", "epochs": epochs, "seconds": seconds, "accuracies": accuracies,
        "median_seconds": round(statistics.median(seconds), 2), "mean_accuracy": round(statistics.mean(accuracies), 4),
        "std_accuracy": round(statistics.stdev(accuracies), 4),
    }  # fmt: skip


def line(name, record):
    """The result as a line in Markdown, which `make report` puts into the README."""
    row = record[name]
    return (
        f"- {row['network']} on {name}: {100 * row['mean_accuracy']:.2f} ± {100 * row['std_accuracy']:.2f} percent of the test images "
        f"after {row['median_seconds']:.1f} s ({row['epochs']} epochs, {len(row['seconds'])} runs, {record['device']})"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time to a given test accuracy.")
    parser.add_argument("datasets", nargs="*", help="cifar10, cifar100; both unless given")
    parser.add_argument("--runs", type=int, default=5, help="how many, at least 2")
    options = parser.parse_args(arguments)
    names = options.datasets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target for {', '.join(sorted(unknown))}: use {', '.join(TARGETS)}")
    if options.runs < 2:
        parser.error(f"one run has no spread: use --runs 2 or more, got {options.runs}")
    device = train.device()
    if device.type != "cuda":
        print("speedrun: skipped, it needs a CUDA GPU (on a CPU, ResNet-18 would train for hours)")
        return
    torch.backends.cudnn.benchmark = True
    path = RESULTS / "speedrun.json"
    RESULTS.mkdir(exist_ok=True)
    record = {"device": train.device_name(device), "torch": torch.__version__, "python": platform.python_version()}
    for name in names:
        epochs, accuracy, seconds = TARGETS[name]
        row = measure(data.load(name, fallback=False), device, epochs, options.runs)
        reached = row["mean_accuracy"] >= accuracy and row["median_seconds"] <= seconds
        print(
            f"{name}: {row['mean_accuracy']:.2%} ± {row['std_accuracy']:.2%} of the test images after {row['median_seconds']:.1f} s, "
            f"{options.runs} runs on {record['device']}; target {accuracy:.0%} in {seconds} s: {'reached' if reached else 'NOT reached'}"
        )
        record[name] = row
        path.write_text(json.dumps(record, indent=1) + "\n")  # after each, should it be stopped
        path.with_suffix(".md").write_text("\n".join(line(name, record) for name in TARGETS if name in record) + "\n")


if __name__ == "__main__":
    main()
