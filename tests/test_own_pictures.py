"""Notebook 04, section 4.9: a ResNet-18 on a folder of the learner's own pictures."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "04_resnet_family.ipynb"
BEFORE = ["parameters", "imports", "lab", "table-1"]
NETWORK = [
    "basic-block",
    "bottleneck-solution",
    "equal-count",
    "stage-solution",
    "stage-shapes",
    "resnet-solution",
    "resnet-build",
    "cifar-recipe",
]
OWN = ["own-data", "own-train", "own-predictions"]


def run(monkeypatch, **replaced):
    monkeypatch.setenv("RESNET_BUDGET", "smoke")
    monkeypatch.setenv("RESNET_DATA", "synthetic")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    cells, scope = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}, {"passed": False}
    for name in BEFORE + NETWORK + OWN:
        source = cells[name]
        for old, new in replaced.items():
            source = source.replace(f"{old} = ", f"{old} = {new!r} or ")
        exec(source, scope)
    return scope


@pytest.fixture
def folder(tmp_path):
    """Red and blue pictures, of two formats and several sizes."""
    rng = np.random.default_rng(0)
    for name, channel, ending in (("red", 0, "png"), ("blue", 2, "jpg")):
        (tmp_path / name).mkdir()
        for number in range(30):
            pixels = rng.integers(0, 120, (rng.integers(40, 90), rng.integers(40, 90), 3), dtype=np.uint8)
            pixels[..., channel] += 130
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.{ending}")
    return tmp_path


@pytest.mark.parametrize("parameter", ["PICTURES", "DATA"])
def test_a_network_learns_the_classes_of_a_folder(parameter, folder, monkeypatch, capsys):
    scope = run(monkeypatch, **{parameter: str(folder)}, EPOCHS=6)
    assert scope["own"].classes == ["blue", "red"] and (len(scope["own"].train), len(scope["own"].test)) == (48, 12)
    assert "There is no folder" not in capsys.readouterr().out
    assert scope["own_accuracy"] > 0.9


def test_without_a_folder_some_classes_of_the_data_set_stand_in(monkeypatch, capsys):
    scope = run(monkeypatch)
    assert "There is no folder pictures" in capsys.readouterr().out and len(scope["own"].classes) == 3
