"""The speedrun trains, tests and writes down what it says, tried with a small network on made-up images."""

import json
import sys
from pathlib import Path

import pytest
import torch

from utils import data, models

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import speedrun  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(speedrun.models, "resnet18", lambda classes, stem: models.cifar_resnet(8, num_classes=classes))
    monkeypatch.setattr(speedrun, "BATCH", 64)
    return data.synthetic("cifar10", train=512, test=200)


def test_a_run_learns_and_is_the_same_for_the_same_seed(small):
    (seconds, accuracy), (_, again) = (speedrun.run(small, CPU, 4, seed=1) for _ in range(2))
    assert seconds > 0 and accuracy == again
    assert accuracy > 0.2, "guessing is right for one image in ten"


def test_every_run_is_written_down(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speedrun, "RESULTS", tmp_path)
    monkeypatch.setattr(speedrun, "TARGETS", {"cifar10": (1, 0.94, 30)})
    monkeypatch.setattr(speedrun.data, "load", lambda name, fallback: small)
    monkeypatch.setattr(speedrun.train, "device", lambda: type("Device", (), {"type": "cuda"})())
    monkeypatch.setattr(speedrun.train, "device_name", lambda device: "a GPU")
    measure = speedrun.measure
    monkeypatch.setattr(speedrun, "measure", lambda dataset, device, epochs, runs: measure(dataset, CPU, epochs, runs))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    speedrun.main(["cifar10", "--runs", "2"])
    record = json.loads((tmp_path / "speedrun.json").read_text())
    row = record["cifar10"]
    assert len(row["seconds"]) == len(row["accuracies"]) == 2 and row["epochs"] == 1 and record["device"] == "a GPU"
    assert row["mean_accuracy"] == pytest.approx(sum(row["accuracies"]) / 2, abs=1e-4)
    assert "NOT reached" in capsys.readouterr().out
    assert "2 runs, a GPU" in speedrun.line("cifar10", record)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    speedrun.main([])
    assert "needs a CUDA GPU" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [(["mnist"], "no target for mnist"), (["--runs", "1"], "no spread")])
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        speedrun.main(arguments)
    assert message in capsys.readouterr().err
