"""The networks in utils are those that the notebooks build."""

import functools
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from utils import checks, models

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize(
    ("check", "options"),
    [(checks.cnn, {}), (checks.batch_norm, {"batch_norm": "after"}), (checks.dropout, {"dropout": 0.5})],
)
def test_cnn_satisfies_its_exercises(check, options):
    assert check(functools.partial(models.CNN, **options))


def solutions(name, *cells):
    """Run these hidden solutions of a notebook; returns what they define."""
    scope = {"nn": nn, "torch": torch, "passed": False}
    for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells:
        if cell.id in cells:
            exec(cell.source, scope)
    return scope


def test_notebook_01_builds_the_same_networks():
    scope = solutions("01_cnn_cifar100.ipynb", "network-solution", "norm-solution", "drop-solution")
    for name, options in (("CNN", {}), ("CNNWithBatchNorm", {"batch_norm": "after"}), ("CNNWithDropout", {"dropout": 0.5})):
        torch.manual_seed(0)
        theirs = scope[name](num_classes=7)
        torch.manual_seed(0)
        ours = models.CNN(num_classes=7, **options)  # draws the same initial weights
        assert [p.shape for p in theirs.parameters()] == [p.shape for p in ours.parameters()]
        x = torch.randn(4, 3, 32, 32)
        for mode in (True, False):
            outputs = []
            for model in (theirs, ours):
                torch.manual_seed(1)  # the same dropout
                outputs.append(model.train(mode)(x))
            torch.testing.assert_close(*outputs)


def test_cnn_takes_other_channels_and_refuses_other_words():
    assert models.CNN(10, in_channels=1, batch_norm="before")(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match="batch_norm must be"):
        models.CNN(batch_norm=True)
