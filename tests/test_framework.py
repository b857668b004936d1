"""How the checks behave around the exercise: feedback, hints, the registry, progress, and what a learner's code must not change."""

import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from utils import blocks, checks
from utils.checks import framework, guard

progress = importlib.import_module("utils.checks.progress")  # checks.progress is the function
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh():
    """Exercises that nobody has tried."""
    kept = {name: (check.verdict, check.solutions, check.hints, check.stale) for name, check in framework.EXERCISES.items()}
    for check in framework.EXERCISES.values():
        check.verdict, check.solutions, check.hints, check.given, check.stale = (None, False), [], [], 0, None
    framework._last["notebook"] = None
    progress._memory.clear()
    progress._told.clear()
    yield
    for name, values in kept.items():
        check = framework.EXERCISES[name]
        check.verdict, check.solutions, check.hints, check.stale = values


def right(x, out_channels, stride):
    return blocks.ZeroPadding(out_channels - x.shape[1], stride)(x)


def wrong(x, out_channels, stride):
    return x[:, :, ::stride, ::stride]


# ---- feedback and hints ---------------------------------------------------------------------------------------------


def test_what_fails_comes_first_and_the_first_line_counts(capsys):
    checks.zero_padding(wrong)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "zero_padding: not yet: 2 of 3 hold"
    marks = [line.strip()[0] for line in lines[1:] if line.strip()[0] in "✗✓·"]
    assert marks == sorted(marks, key="✗✓·".index) and marks[0] == "✗"
    checks.zero_padding(right)
    assert capsys.readouterr().out.startswith("zero_padding: all right, 6 of 6 hold\n")


def test_failures_are_coloured_in_a_notebook_and_plain_elsewhere(capsys, monkeypatch):
    checks.zero_padding(wrong)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(framework, "_shell", lambda: SimpleNamespace(kernel=True, last_execution_result=None))
    checks.zero_padding(wrong)
    out = capsys.readouterr().out
    assert "60m  ✗" in out and "60m  ✓" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    checks.zero_padding(wrong)
    assert "\x1b" not in capsys.readouterr().out


def test_each_hint_is_stronger_than_the_one_before(capsys):
    checks.zero_padding(wrong)
    assert 'Another hint: checks.hint("zero_padding")' in capsys.readouterr().out
    shown = []
    for _ in range(4):
        checks.hint("zero_padding")
        shown.append(capsys.readouterr().out)
    assert "hint 1 of 3" in shown[0] and "F.pad" not in shown[0] and "F.pad" in shown[1]
    assert "the folded cell" in shown[2] and shown[3] == shown[2]
    checks.zero_padding(right)
    capsys.readouterr()
    checks.hint(checks.zero_padding)
    assert "solved" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there are"):
        checks.hint("zero")


def test_a_stub_that_is_half_written_is_named(capsys):
    class HalfWritten(nn.Module):
        def __init__(self, i, o, stride=1):
            super().__init__()
            self.conv = nn.Conv2d(i, o, 3)

        def forward(self, x):
            raise NotImplementedError

    class Untouched(nn.Module):
        def __init__(self, i, o, stride=1):
            super().__init__()
            raise NotImplementedError

        def forward(self, x):
            raise NotImplementedError

    assert checks.residual_block(HalfWritten) is False
    assert capsys.readouterr().out.startswith("residual_block: `forward` is still the stub")
    assert checks.residual_block(Untouched) is False
    assert capsys.readouterr().out == "residual_block: not attempted yet\n"


def test_an_error_of_the_check_itself_is_not_the_learners(capsys, monkeypatch):
    monkeypatch.delenv("RESNET_CHECKS_RAISE")
    monkeypatch.setattr(checks.zero_padding, "judge", lambda answer: 1 / 0)
    assert checks.zero_padding(right) is False
    out = capsys.readouterr().out
    assert "the check itself failed" in out and "not your mistake" in out and "✗" not in out
    assert not progress.read()["exercises"]


def test_errors_are_shown_with_their_line(capsys):
    def divides(x, out_channels, stride):
        return x / 0 + nothing  # noqa: F821

    checks.zero_padding(divides)
    out = " ".join(capsys.readouterr().out.split())
    assert "NameError: name 'nothing' is not defined" in out and "return x / 0 + nothing" in out and "is it misspelt" in out


# ---- what a learner's code must not do ------------------------------------------------------------------------------


def test_an_endless_loop_is_stopped(capsys, monkeypatch):
    monkeypatch.setattr(guard, "LIMIT", 0.3)

    def endless(x, out_channels, stride):
        while True:
            try:
                x = x + 1
            except Exception:
                pass

    assert checks.zero_padding(endless) is False
    assert "still runs after 0.3 seconds" in " ".join(capsys.readouterr().out.split())


def test_without_a_main_thread_there_is_no_limit(capsys):
    result = []
    thread = threading.Thread(target=lambda: result.append(checks.zero_padding(right)))
    thread.start()
    thread.join()
    assert result == [True]


def test_printing_and_plots_stay_out_of_the_feedback(capsys):
    import matplotlib.pyplot as plt

    plt.close("all")
    mine = plt.figure()

    def talkative(x, out_channels, stride):
        plt.figure()
        for number in range(100):
            print("line", number)
        return right(x, out_channels, stride)

    assert checks.zero_padding(talkative)
    out = capsys.readouterr().out
    assert "Your code printed: line 0, and" in out and "line 1\n" not in out
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


@pytest.mark.parametrize(
    ("change", "look"),
    [
        (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
        (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    ],
)
def test_settings_are_put_back_and_said(change, look, capsys):
    before = look()

    def careless(x, out_channels, stride):
        change()
        return right(x, out_channels, stride)

    assert checks.zero_padding(careless) is False
    assert "behind, for all that comes later" in " ".join(capsys.readouterr().out.split())
    assert look() == before


def test_a_seed_inside_is_found(capsys):
    def seeded(x, out_channels, stride):
        torch.manual_seed(0)
        torch.rand(1)
        return right(x, out_channels, stride)

    before = torch.get_rng_state()
    assert checks.zero_padding(seeded) is False
    assert "torch.manual_seed" in capsys.readouterr().out
    assert torch.equal(before, torch.get_rng_state())


# ---- whose answer it is ---------------------------------------------------------------------------------------------


def test_the_solution_is_never_judged_as_the_learners(capsys):
    @checks.solution("zero_padding")
    def solution(x, out_channels, stride):
        return right(x, out_channels, stride)

    assert checks.use("zero_padding") is solution
    assert capsys.readouterr().out == "zero_padding: the project's solution\n"
    assert checks.zero_padding(solution) is False
    assert "this is the solution" in capsys.readouterr().out
    assert checks.zero_padding(right) and checks.use("zero_padding") is right
    assert "zero_padding: your own answer\n" in capsys.readouterr().out
    assert not checks.zero_padding(wrong) and checks.use("zero_padding") is solution


def test_a_skipped_solution_cell_does_no_harm(capsys):
    block = checks.use("residual_block")
    assert block is blocks.ResidualBlock
    assert checks.residual_block(block) is False and "this is the solution" in capsys.readouterr().out


@pytest.mark.slow
def test_every_exercise_has_a_finished_version_that_passes(capsys):
    for check in framework.EXERCISES.values():
        assert check(check.finished()), capsys.readouterr().out


def test_a_change_after_it_passed_is_said(capsys, monkeypatch):
    checks.zero_padding(right)
    monkeypatch.setattr(sys.modules["__main__"], "zero_padding", wrong, raising=False)
    assert checks.use("zero_padding") is right
    assert "It has changed since: check it again" in capsys.readouterr().out


def test_an_old_answer_does_not_pass_after_an_error_in_its_cell(capsys, monkeypatch):
    shell = SimpleNamespace(last_execution_result=None)
    monkeypatch.setattr(framework, "_shell", lambda: shell)
    assert checks.zero_padding(right)
    shell.last_execution_result = SimpleNamespace(error_before_exec=SyntaxError("invalid"), error_in_exec=None)
    for _ in range(2):
        assert checks.zero_padding(right) is False
        assert "still your earlier answer" in capsys.readouterr().out
        shell.last_execution_result = SimpleNamespace(error_before_exec=None, error_in_exec=None)
    assert checks.zero_padding(lambda *args: right(*args))


# ---- progress -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("RESNET_PROGRESS", str(path))
    return path


def test_progress_lasts_and_tells_what_comes_next(place, capsys):
    checks.zero_padding(None)
    assert not place.exists()  # a stub is no attempt
    checks.zero_padding(wrong)
    checks.zero_padding(wrong)  # the same answer again is no second one
    checks.zero_padding(right)
    found = json.loads(place.read_text())["exercises"]["zero_padding"]
    assert found["notebook"] == "02" and found["attempts"] == 2 and found["solved"].startswith("20")
    checks.zero_padding(wrong)
    assert json.loads(place.read_text())["exercises"]["zero_padding"]["solved"] == found["solved"]
    capsys.readouterr()
    checks.progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "notebook 02: 1 of 2 exercises solved" and lines[-1] == "next: exercise 2.1, residual_block"
    assert lines[1].split()[:3] == ["·", "2.1", "residual_block"] and lines[2].split()[:4] == ["✓", "2.2", "zero_padding", "3"]
    checks.reset("zero_padding")
    assert json.loads(place.read_text()) == {"exercises": {}, "cases": {}}


def test_all_notebooks_are_listed(place):
    checks.zero_padding(right)
    result = subprocess.run([sys.executable, "-m", "utils.checks"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"1 of {len(checks.__all__)} exercises solved\nnotebook 01: 0 of 6\n")
    assert "✓ 2.2 zero_padding" in result.stdout and "notebook 08" in result.stdout


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"exercises": {"cnn": 3}}', "\x00\xff"])
def test_a_damaged_file_is_set_aside(place, text, capsys):
    place.write_text(text, encoding="latin-1")
    for number in ("", "2"):
        checks.zero_padding(wrong)
        assert f"it is kept as progress.json.damaged{number}" in capsys.readouterr().out
        assert place.with_name(f"progress.json.damaged{number}").read_text(encoding="latin-1") == text
        assert list(json.loads(place.read_text())["exercises"]) == ["zero_padding"]
        place.write_text(text, encoding="latin-1")
        framework._exercise("zero_padding").verdict = (None, False)


def test_what_others_keep_in_the_file_stays(place):
    place.write_text(json.dumps({"exercises": {}, "cases": {"3": {"score": 1}}, "later": [1]}))
    checks.zero_padding(right)
    progress.update("cases", "4", {"score": 2})
    found = json.loads(place.read_text())
    assert found["cases"] == {"3": {"score": 1}, "4": {"score": 2}} and found["later"] == [1] and "zero_padding" in found["exercises"]


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNET_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert checks.zero_padding(right) and not checks.zero_padding(wrong)
    assert capsys.readouterr().out.count("can't be kept") == 1
    checks.progress()
    assert "✓ 2.2 zero_padding" in capsys.readouterr().out


@pytest.mark.slow
def test_kernels_that_write_at_once_lose_nothing(place):
    code = """
import sys
from utils.checks.progress import update
for number in range(8):
    update("cases", f"{sys.argv[1]}-{number}", {"score": number})
    update("exercises", "cnn", lambda old: {"attempts": (old or {"attempts": 0})["attempts"] + 1})
"""
    kernels = [subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT) for name in "ab"]
    assert [kernel.wait(60) for kernel in kernels] == [0, 0]
    found = progress.read()
    assert len(found["cases"]) == 16 and found["exercises"]["cnn"]["attempts"] == 16
