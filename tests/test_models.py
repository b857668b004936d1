"""The networks in utils are those that the notebooks build."""

import functools
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
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
    scope = {"nn": nn, "F": F, "torch": torch, "passed": False}
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


def same_network(theirs, ours, x):
    """Once `theirs` has the weights of `ours`, both give the same outputs and the same running means."""
    assert [p.shape for p in theirs.parameters()] == [p.shape for p in ours.parameters()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    for mode in (True, False):
        torch.testing.assert_close(theirs.train(mode)(x), ours.train(mode)(x))
    for a, b in zip(theirs.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("arguments", [(32, 32), (32, 64, 2), (3, 32, 2), (16, 32), (16, 16, 2)])
def test_notebook_02_builds_the_same_block(arguments):
    block = solutions("02_residual_block.ipynb", "block-solution")["ResidualBlock"]
    same_network(block(*arguments), models.ResidualBlock(*arguments), torch.randn(4, arguments[0], 9, 9))


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_residual_block_has_the_parameters_of_the_paper():
    block = models.ResidualBlock
    assert count(block(32, 32)) == 18_560 == count(block(32, 32, shortcut="A"))
    assert count(block(32, 64, 2)) == 57_600 and count(block(32, 64, 2, norm_shortcut=True)) == 57_728
    assert count(block(32, 64, 2, shortcut="A")) == 57_600 - 2_048
    assert count(block(32, 32, shortcut="C")) == 18_560 + 1_024
    assert block(32, 32)(torch.zeros(1, 32, 96, 96)).shape == (1, 32, 96, 96)
    assert block(3, 32, 2)(torch.zeros(1, 3, 96, 96)).shape == (1, 32, 48, 48)


def test_zero_padding_is_that_of_notebook_02():
    function = solutions("02_residual_block.ipynb", "shortcuts-solution", "imports")["zero_padding"]
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(function(x, 12, 2), models.ZeroPadding(4, 2)(x))


@pytest.mark.parametrize(("arguments", "options"), [((32, 16), {"shortcut": "A"}), ((32, 32), {"shortcut": "D"})])
def test_residual_block_refuses(arguments, options):
    with pytest.raises(ValueError, match="shortcut"):
        models.ResidualBlock(*arguments, **options)


def test_notebook_03_builds_the_same_network():
    scope = solutions("03_resnet25_cifar.ipynb", "imports", "layer-solution", "net-solution")
    same_network(scope["ResNet25"](7), models.resnet25(7), torch.randn(4, 3, 32, 32))


def test_resnet25():
    assert count(models.resnet25()) == 4_024_490 and count(models.resnet25(norm_shortcut=True)) == 4_024_874
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1) for m in models.resnet25().modules()) + 1 == 50  # layers of the paper
    for size in (32, 33, 96):
        assert models.resnet25(stem="cifar", in_channels=1)(torch.zeros(2, 1, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match="stem must be"):
        models.resnet25(stem="7x7")
