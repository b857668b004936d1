import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from runner import provenance
from utils import data, experiment, models, plots, train, weights


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes an Experiment in an empty project, without the environment's overrides."""
    monkeypatch.setattr(experiment, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    for name in ("RESNET_BUDGET", "RESNET_DATA", "RESNET_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    small = data.synthetic("cifar10", train=20, test=10)

    def load(name, like="cifar10", fallback=True):
        kind = {"synthetic": name == "synthetic", "published": name in data.KNOWN}
        return data.Dataset(name.rpartition("/")[2], small.train, small.test, small.classes, **kind)

    monkeypatch.setattr(data, "load", load)
    return lambda *args, **options: experiment.Experiment("09_test", "cifar10", *args, **options)


HISTORY = train.History([2.0, 1.0], [0.1, 0.2], [2.1, 1.1], [0.1, 0.15], [3.0, 3.0])


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"budget": "full"}, ""),
        ({"budget": "full", "data_name": "cifar10"}, ""),
        ({"budget": "quick"}, "quick"),
        ({"budget": "paper"}, "paper"),
        ({"budget": "smoke", "data_name": "synthetic"}, "smoke-synthetic"),
        ({"budget": "full", "data_name": "cifar100"}, "cifar100"),
        ({"budget": "full", "seed": 1}, "seed1"),
        ({"budget": "full", "epochs": 3}, "epochs3"),
        ({"budget": "quick", "seed": 2, "epochs": 3}, "quick-seed2-epochs3"),
    ],
)
def test_only_the_committed_configuration_writes_to_the_main_folder(make, tmp_path, given, folder):
    lab = make(**given)
    assert lab.folder == tmp_path / "figures" / "09_test" / folder and lab.folder.is_dir() and not list(lab.folder.glob("*.*"))


def test_a_folder_of_pictures_is_not_taken_for_the_data_set_of_its_name(make):
    lab = make("full", "pictures/cifar10")
    assert lab.folder.name.startswith("cifar10-") and lab.title == "pictures in cifar10"
    lab.save_result("plain", HISTORY)
    assert not (lab.folder.parent / "plain.json").exists()


def test_further_data_sets_are_made_up_with_the_first_and_known_for_it(make, monkeypatch):
    assert [other.synthetic for other in make("full", "synthetic", also=["cifar100"]).also.values()] == [True]
    assert make("full", also=["cifar100"]).folder.name == "09_test"
    load, made_up = data.load, data.synthetic("cifar100", train=200, test=100)
    monkeypatch.setattr(data, "load", lambda name, **options: made_up if name == "cifar100" else load(name, **options))
    lab = make("full", also=["cifar100"])
    assert lab.folder.name == "synthetic-cifar100", "one part of the results is not real"
    lab.save_result("hundred", HISTORY, dataset=lab.also["cifar100"])
    record = json.loads((lab.folder / "hundred.json").read_text())
    assert record["synthetic"] and record["dataset"] == "synthetic"


def test_budget_and_data_come_from_the_parameters_then_the_environment(make, monkeypatch):
    automatic = "full" if torch.cuda.is_available() else "quick"
    assert (make().budget, make().dataset.name) == (automatic, "cifar10")
    monkeypatch.setenv("RESNET_BUDGET", "smoke")
    monkeypatch.setenv("RESNET_DATA", "synthetic")
    assert (make().budget, make().dataset.name) == ("smoke", "synthetic")
    assert (make("full", "cifar100").budget, make("full", "cifar100").dataset.name) == ("full", "cifar100")


def test_epochs(make):
    assert make("quick").epochs(1, 2, 3) == 2
    assert make("quick", epochs=9).epochs(1, 2, 3) == 9
    assert make("paper").pick(1, 2, 3) == 3 and make("paper").pick(1, 2, 3, paper=4) == 4


def test_result_says_what_it_was_measured_on(make):
    lab = make("quick", seed=5)
    lab.save_result("plain", HISTORY, test_accuracy=0.5)
    record = json.loads((lab.folder / "plain.json").read_text())
    assert record["history"]["val_accuracy"] == [0.1, 0.15] and record["test_accuracy"] == 0.5
    expected = {"notebook": "09_test", "run": "plain", "dataset": "cifar10", "synthetic": False, "budget": "quick", "epochs": 2, "seed": 5}
    assert expected.items() <= record.items()
    assert record["device"] and record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["precision"] == str(train.precision(lab.device))
    assert [path.name for path in lab.folder.iterdir()] == ["plain.json"]


def test_plots_are_written_as_png_and_pdf(make):
    lab = make("smoke")
    written = []
    for _ in range(2):
        lab.save_figure(plots.curves({"a": HISTORY, "b": vars(HISTORY)}, "title", gap=True), "curves")
        assert sorted(path.name for path in lab.folder.iterdir()) == ["curves.pdf", "curves.png"]
        written.append([(lab.folder / f"curves.{ending}").read_bytes() for ending in ("png", "pdf")])
    assert written[0][0].startswith(b"\x89PNG") and written[0][1].startswith(b"%PDF")
    assert written[0] == written[1]  # no dates in them
    plt.close("all")


def test_curves_show_both_parts_of_every_run():
    figure = plots.curves({"a": HISTORY, "b": HISTORY}, "title")
    loss, accuracy = figure.axes
    drawn = [line.get_ydata().tolist() for line in accuracy.lines]
    assert drawn == [[10, 20], [10, 15]] * 2
    assert {text.get_text() for text in loss.get_legend().get_texts()} == {"a", "b", "thin: training"}
    styles = {(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in accuracy.lines[1::2]}
    assert len({color for color, _, _ in styles}) == len({marker for _, _, marker in styles}) == 2
    plt.close("all")


def test_a_drawn_network_has_a_box_for_each_block_and_dashes_where_the_shape_changes():
    parts = [("stem", (4, 16, 16), 0), ("stage 1", (4, 16, 16), 3), ("stage 2", (8, 8, 8), 2), ("mean", (8,), 0)]
    (axis,) = plots.network(parts, "title").axes
    shortcuts = [line for line in axis.lines if len(line.get_xdata()) == 4]
    assert len(axis.patches) == 1 + 3 + 2 + 1 and len(shortcuts) == 5
    assert [line.get_linestyle() != "-" for line in shortcuts] == [False, False, False, True, False]
    assert {"stage 1", "4×16×16", "8"} <= {text.get_text() for text in axis.texts}
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "big"}, "no budget 'big': use auto, smoke, quick, full, paper"),
        ({"epochs": 0}, "EPOCHS must be"),
        ({"epochs": "3"}, "EPOCHS must be"),
        ({"seed": "a"}, "SEED must be a whole number from 0, got 'a'"),
        ({"seed": -1}, "SEED must be"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here"),
        ({"shape": (1, 28, 28)}, r"take images of shape \(1, 28, 28\)"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**arguments)
    assert "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"ValueError: {error.value}"], "what a notebook shows"


def test_a_folder_that_cannot_be_written_to(make, tmp_path):
    (tmp_path / "figures").write_text("a file in the way")  # as good as a read-only folder, and stops root, too
    with pytest.raises(OSError, match="cannot write to figures/09_test .*: make it writable"):
        make("full")


def test_checkpoints_are_kept_in_runs_of_run_all_alone(make, tmp_path, monkeypatch):
    assert make().checkpoint("plain") is None
    monkeypatch.setenv("RESNET_CHECKPOINTS", str(tmp_path))
    lab = make()
    place = lab.checkpoint("v1, 18 layers/seed 0")
    assert place == tmp_path / f"v1_18_layers_seed_0-{lab.dataset.digest[:6]}.pt", "other data, another file"


def test_run_all_is_told_what_was_written(make, tmp_path, monkeypatch):
    monkeypatch.setenv("RESNET_CHECKPOINTS", str(tmp_path))
    lab = make("smoke", also=["cifar100"])
    lab.save_result("plain", HISTORY)
    lab.save_array(np.arange(3), "raw")
    lab.save_figure(plt.figure(), "plot")
    told = json.loads((tmp_path / "experiment.json").read_text())
    assert told["folder"] == "figures/09_test/smoke"
    assert [(used["asked"], used["digest"]) for used in told["data"]] == [("cifar10", lab.dataset.digest), ("cifar100", lab.dataset.digest)]
    assert told["files"] == {file.name: provenance.digest(file.read_bytes()) for file in lab.folder.iterdir()} and len(told["files"]) == 4
    assert np.load(lab.folder / "raw.npy").tolist() == [0, 1, 2]


def test_only_the_committed_configuration_writes_to_the_weights_of_the_project(make, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    for given, place in (({"budget": "smoke"}, "figures/09_test/smoke"), ({"budget": "full"}, "weights")):
        make(**given).save_weights(models.cifar_resnet(20), "resnet20-cifar10", test_accuracy=0.9)
        models.load("resnet20-cifar10", tmp_path / place)
        found = weights.record("resnet20-cifar10", tmp_path / place)
        assert found["budget"] == given["budget"] and found["test_accuracy"] == 0.9 and found["dataset"] == "cifar10"
        assert (tmp_path / "weights").exists() == (given["budget"] == "full")


def test_what_is_measured_once_stays_while_the_run_lasts(make, tmp_path, monkeypatch):
    numbers, lab = iter(range(10)), make("smoke")
    assert [lab.once("seconds", lambda: next(numbers)) for _ in range(2)] == [0, 1], "a notebook that a learner runs measures each time"
    monkeypatch.setenv("RESNET_CHECKPOINTS", str(tmp_path))
    assert [lab.once("seconds", lambda: {"a": next(numbers)}) for _ in range(2)] == [{"a": 2}, {"a": 2}]
    assert lab.once("others", lambda: next(numbers)) == 3
