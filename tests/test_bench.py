"""The bench measures what it says; its figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import models

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import bench  # noqa: E402


@pytest.mark.slow
def test_every_way_is_measured_and_written_down(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "LOADER_IMAGES", 64)
    monkeypatch.setattr(bench, "GROWTH", (32, 64))
    monkeypatch.setattr(bench, "runner_overhead", lambda: 1.0)
    monkeypatch.setattr(bench, "peak", lambda: 1e11)
    monkeypatch.setattr(bench, "bandwidth", lambda: 1e10)
    monkeypatch.setattr(bench, "memory", lambda workload, side: 10**8)
    monkeypatch.setitem(bench.WORKLOADS, "CNN", (lambda: models.CNN(100), 32, 16, 32, 32))
    bench.main(["--only", "CNN"])
    record = json.loads((tmp_path / f"{bench.DEVICE.type}.json").read_text())
    assert {"device", "torch", "python", "rounds", "workers", "loader", "CNN"} <= set(record)
    speeds = record["CNN"]["images_per_second"]
    assert set(speeds) == {"shared", "textbook", "workers", "tuned"} and all(speed > 0 for speed in speeds.values())
    assert all(low <= r["median"] <= high for r in record["CNN"]["ratio"].values() for low, high in [r["range"]])
    assert set(record["growth"]) == {"32", "64"} and all(row["seconds_per_image"] > 0 for row in record["growth"].values())
    assert record["CNN"]["share_of_peak"] > 0 and record["CNN"]["share_of_bandwidth"] > 0
    assert set(record["CNN"]["first_batch_seconds"]) == {"shared", "textbook", "workers"}
    assert "| CNN of notebook 01 | " in (tmp_path / f"{bench.DEVICE.type}.md").read_text()
    assert "CNN" in capsys.readouterr().out


def test_all_ways_get_the_same_images(monkeypatch):
    split = bench.data.synthetic("cifar100", train=20, test=10).train
    for side in bench.LOOPS:
        labels = [int(label) for _, batch in bench.loader_of(side, split, 32, 8) for label in batch]
        assert sorted(labels) == sorted(split.labels.tolist())


@pytest.mark.parametrize(
    ("make", "size", "first"), [(lambda: models.CNN(100), 32, 32 * 32 * 27 * 16), (models.resnet18, 96, 48 * 48 * 147 * 64)]
)
def test_operations_of_a_step(make, size, first):
    """Forward, and backward for weights and inputs, but the first layer has no gradient for its input."""
    assert bench.operations(make(), size) == 2 * (3 * models.macs(make(), (3, size, size)) - first)


def test_traffic_of_a_step():
    """A convolution from 3 to 8 channels, whose 8 · 256 outputs are taken for logits."""
    convolution = (3 + 8) + (8 + 3)  # forward; backward for the weights alone: the images have no gradient
    loss = (8 + 8) + 8 + (8 + 8) + (8 + 8 + 8)  # log-softmax, negative log-likelihood; both backward
    found = bench.traffic(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.Flatten()), 16)
    bytes_of_a_channel = 16 * 16 * (2 if bench.CUDA else 4)
    assert 0 <= found - (convolution + loss) * bytes_of_a_channel < 50  # the label


@pytest.mark.slow
def test_peak_memory_is_that_of_the_process_itself():
    """Not that of the process which started it, though it has held more."""
    large = torch.ones(100_000_000)
    del large
    code = "import bench, torch; before = bench.peak_memory(); x = torch.ones(50_000_000); print(bench.peak_memory() - before)"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(bench.__file__).parent, capture_output=True, text=True, check=True)
    assert 150e6 < int(run.stdout) < 300e6
