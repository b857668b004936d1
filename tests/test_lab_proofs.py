"""Each fault of the lab is proved: with three seeds, its instrument tells it from the sound program and from all other faults."""

import os

import pytest
from lab_proofs import TELLS

from utils import data
from utils.lab import bench, measure
from utils.lab.answers import ANSWERS

DATASET = data.synthetic("cifar10")
# The forms in which a suspect comes that has more than one: the other form's instrument need not show it.
FORMS = {"untrained layers: frozen": 0, "untrained layers: unknown": 3}


def programs(seed):
    """All cases, and each fault of the cases with two on its own: name -> (program, names of its faults in TELLS)."""
    for number, answer in ANSWERS.items():
        images, own = bench.Images.of(DATASET, seed=100 * seed + number), 100 * seed + number
        faults = {name for name in TELLS if name in answer.faults or FORMS.get(name) == number}
        yield f"case {number}", bench.Program.of_case(number, answer.design, images, own), faults
        if number == 11:
            for part, fault in (("Loader", "other normalisation"), ("epoch", "no zero_grad")):
                yield f"{part} of case 11", bench.Program(answer.design, images, own, {part: bench.parts_of(11)[part]}), {fault}


def test_every_suspect_has_a_proof_and_a_case():
    suspects = {name for answer in ANSWERS.values() for name in answer.faults}
    assert {name.split(":")[0] for name in TELLS} == suspects - {"healthy"}
    for answer in ANSWERS.values():
        for fault, shown in answer.faults.items():
            mine = {instrument for name, (instrument, _) in TELLS.items() if name.split(":")[0] == fault}
            assert fault == "healthy" or mine & set(shown), fault


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2] if os.environ.get("RESNET_ANSWERS") == "all" else [0])  # all: `make test-answers`
def test_one_instrument_tells_each_fault_from_all_others(seed):
    for name, program, faults in programs(seed):
        readings = {}
        for fault, (instrument, holds) in TELLS.items():
            if instrument not in readings:
                options = {"draw": False} if instrument.startswith("look") else {}
                readings[instrument] = measure.apply(instrument, program, **options)
            found = holds(readings[instrument], program.design)
            assert found == (fault in faults), f"{name}, {fault}:\n{readings[instrument]}"
