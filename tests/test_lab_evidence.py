"""What counts as evidence in the lab: readings that differ from those of a sound program, which are as the notebook says."""

import os

import pytest
from lab_proofs import LN10, first, last

from utils import data
from utils.lab import bench, measure
from utils.lab.answers import ANSWERS

DATASET = data.synthetic("cifar10")

# What each instrument reads on a sound program, as the notebook says.
NORMAL = {
    "first_loss": lambda r: abs(first(r)[0] - LN10) < 0.25,
    "look_at_labels": lambda r: int(first(r)[0].split(", ")[0]) > 5 and r["nearest class mean, share right"][0] > 0.15,
    "look_at_images": lambda r: all(abs(row[0] - first(r)[0]) < 0.15 and row[4] > 0.65 for row in r.values()),
    "shape_trace": lambda r: (
        not any("?" in name for name in r)
        and last(r)[3] > 0
        and {row[0].split(",")[0] for row in r.values()} >= {"Conv2d 3×3"}
        and all(row[3] == 0 for row in r.values() if row[0] == "Block")
    ),
    "overfit_one_batch": lambda r: last(r)[0] < 0.15,
    "gradient_norms": lambda r: len(r) >= 10 and all(a > 0.04 and abs(a - b) < 0.01 * b for a, b in r.values()),
    "weights_moved": lambda r: len(r) >= 10 and all(row == (1.0,) for row in r.values()),
    "update_ratios": lambda r: 1e-3 < max(row[0] for row in r.values()) < 0.03 and last(r)[0] < 1e-4 and first(r)[0] < 3e-3,
    "input_baseline": lambda r: r["images"][0] < r["blank images"][0] - 0.05,
    "batch_sizes": lambda r: max(abs(a - b) for a, b in zip(*r.values(), strict=True)) < 1e-3,
    "dependence": lambda r: max(row[0] for row in r.values()) < 1e-4,
    "data_use": lambda r: [row[0] for row in r.values()] == [3, 3, 1],
}
BY_DESIGN = {"one path without stride", "not as described"}  # a trace shows these only beside the description: see test_lab_proofs.py


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1] if os.environ.get("RESNET_ANSWERS") == "all" else [0])
def test_evidence_that_is_accepted_differs_from_a_sound_program(seed):
    for number, answer in ANSWERS.items():
        own = 100 * seed + number
        case = bench.Program.of_case(number, answer.design, bench.Images.of(DATASET, seed=own), own)
        shown = {name for fault, names in answer.faults.items() if fault not in BY_DESIGN for name in names}
        for name in NORMAL if "healthy" in answer.faults else shown:
            reading = measure.apply(name, case, **({"draw": False} if name.startswith("look") else {}))
            assert NORMAL[name](reading) == ("healthy" in answer.faults), f"case {number}, {name}:\n{reading}"
