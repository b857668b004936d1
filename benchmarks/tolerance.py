"""By how much a result differs from machine to machine: the same training with several seeds and several numbers of threads.

    python benchmarks/tolerance.py

ResNet-20 on 10,000 images of CIFAR-10, three epochs, all 10,000 test images. With the same seed, images, order, augmentation and first
weights are the same; another number of threads adds up numbers in another order, as another machine does. Some minutes on two CPU cores.
"""

import json
import os
import statistics
from pathlib import Path

import torch

from utils import data, models, train
from utils.files import atomic_write

SEEDS, IMAGES, EPOCHS = range(5), 10_000, 3
THREADS = sorted({1, os.cpu_count()})


def accuracy(dataset, seed, threads):
    """Share of the test images predicted correctly after one training."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    outcome = train.train_and_test(
        models.he_normal_(models.cifar_resnet(20)), dataset, images=IMAGES, test_images=10_000, epochs=EPOCHS, batch_size=128,
        recipe=lambda model, steps: train.sgd_one_cycle(model, 0.1, steps), seed=seed, device="cpu",
        label=f"seed {seed}, threads: {threads}",
    )  # fmt: skip
    return outcome.test_accuracy


def main():
    dataset = data.load("cifar10", fallback=False)
    found = {threads: [accuracy(dataset, seed, threads) for seed in SEEDS] for threads in THREADS}
    one, *others = found.values()
    apart = [abs(a - b) for other in others for a, b in zip(one, other, strict=True)]
    record = {
        "torch": torch.__version__, "images": IMAGES, "epochs": EPOCHS, "seeds": len(SEEDS),
        "test_accuracy": found, "std_over_seeds": {threads: statistics.stdev(values) for threads, values in found.items()},
        "mean_difference_of_threads": statistics.mean(apart) if apart else None,
    }  # fmt: skip
    with atomic_write(Path(__file__).parent / "results" / "tolerance_cpu.json") as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
