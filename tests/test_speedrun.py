"""The speedrun trains, tests and writes down what it says, tried with a small network on made-up images."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from utils import data, fast

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import speedrun  # noqa: E402

CPU = torch.device("cpu")
SMALL = {
    "epochs": 2,
    "widths": (8, 16, 16),
    "sizes": (24, 32),
    "branch": 1,
    "shortcut": "outside",
    "batch": 50,
    "lr": 0.24,
    "smoothing": 0.2,
}


@pytest.fixture
def small():
    return data.synthetic("cifar10", train=400, test=100)


@pytest.fixture
def written(small, tmp_path, monkeypatch):
    """Where the results of small runs go."""
    monkeypatch.setattr(speedrun, "RESULTS", tmp_path)
    monkeypatch.setattr(fast, "RECIPES", {"cifar10": SMALL, "cifar100": SMALL})
    monkeypatch.setattr(speedrun.data, "load", lambda name, fallback: small)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    return tmp_path / "speedrun.json"


def test_a_run_learns_and_is_the_same_for_the_same_seed(small):
    run = speedrun.Run(small, CPU, SMALL, compiled=False)
    one, two = (run.train(1, "small") for _ in range(2))
    assert one["seconds"] > 0 and one["accuracy"] == two["accuracy"] and one["six_views"] == two["six_views"]
    assert one["accuracy"] > 0.2, "guessing is right for one image in ten"


def test_every_run_is_written_down(written, capsys):
    speedrun.main(["--data", "cifar10", "cifar100", "--seeds", "2", "--device", "cpu"])
    record = json.loads(written.read_text())
    row = record["cifar10_cpu"]
    assert set(record) == {"cifar10_cpu", "cifar100_cpu"}
    assert len(row["seconds"]) == len(row["accuracy"]) == row["runs"] == 2 and row["images"] == 400 and not row["compiled"]
    assert row["mean_six_views"] == pytest.approx(sum(row["six_views"]) / 2)
    out = capsys.readouterr().out
    assert "NOT reached" in out and "min left" in out and "in six views, after" in out
    assert written.with_suffix(".md").read_text().count("\n- CIFAR-10") == 1  # one line each, sorted


def test_a_run_that_was_stopped_goes_on_with_the_next_seed(written, monkeypatch, capsys):
    train, seeds = speedrun.Run.train, []

    def stopped(run, seed, label):
        seeds.append(seed)
        if seeds == [0, 1]:
            raise KeyboardInterrupt
        return train(run, seed, label)

    monkeypatch.setattr(speedrun.Run, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        speedrun.main(["--seeds", "2", "--device", "cpu"])
    assert not written.exists()
    speedrun.main(["--seeds", "2", "--device", "cpu"])
    assert seeds == [0, 1, 1] and "going on with seed 1" in capsys.readouterr().out
    assert json.loads(written.read_text())["cifar10_cpu"]["runs"] == 2
    speedrun.main(["--seeds", "1", "--device", "cpu"])
    assert seeds[3:] == [0], "a finished run starts anew"


def test_a_run_with_other_options_is_not_written_down(written, capsys):
    speedrun.main(["--epochs", "1", "--seeds", "1", "--images", "100", "--device", "cpu"])
    assert not written.exists() and "1 epochs, 1 runs" in capsys.readouterr().out


class NoCompiler(torch.nn.Module):
    def __init__(self, model, **options):
        super().__init__()
        self.model = model

    def forward(self, x):
        raise RuntimeError("no C compiler\nand much more")


class BadCompiler(NoCompiler):
    def forward(self, x):
        self.model.head.weight.data.fill_(float("nan"))
        return self.model(x)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(NoCompiler, "RuntimeError: no C compiler"), (BadCompiler, "FloatingPointError: warming up, 24×24: the loss is")],
)
def test_without_a_compiler_it_goes_on(small, monkeypatch, capsys, compiler, reason):
    monkeypatch.setattr(torch, "compile", compiler)
    run = speedrun.Run(small, CPU, SMALL, compiled=True)
    assert run.trained is run.model and run.rates
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    out = capsys.readouterr().out
    assert f"torch.compile does not work here ({reason}" in out and "going on without it" in out


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_the_compiled_network_learns_with_16_bits(small, monkeypatch):
    monkeypatch.setenv("RESNET_PRECISION", "bfloat16")
    run = speedrun.Run(small, CPU, SMALL, compiled=True)
    assert run.trained is not run.model, "it was not compiled"
    assert run.train(1, "small")["accuracy"] > 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--data", "mnist"], "invalid choice"), (["--seeds", "0"], "at least 1, got 0"), (["--sizes", "16"], "at least 17")],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        speedrun.main(arguments)
    assert message in capsys.readouterr().err
