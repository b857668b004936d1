"""Every exercise's check: plausible wrong answers are caught with a hint that names the mistake, unusual right ones pass.

The answers stand in answers01.py and so on, one file for each notebook: EXERCISES = {check: (right answers, wrong answers)}. How the
checks behave around the exercise is tested in test_framework.py.
"""

import os
from importlib import import_module
from pathlib import Path

import pytest
import torch

from utils import checks, models

ALL = os.environ.get("RESNET_ANSWERS") == "all"  # `make test-answers`; else some of each exercise, spread over the list
MODULES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("answers*.py")) if path.stem != "answers07"]
EXERCISES = {check: answers for module in MODULES for check, answers in module.EXERCISES.items()}


def some(answers, number):
    names = list(answers)
    return names if ALL else names[:: -(-len(names) // number)]


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, (right, _) in EXERCISES.items() for name in some(right, 2)], ids=str)
def test_right_answers_pass(check, name, capsys):
    passed, out = check(EXERCISES[check][0][name]), capsys.readouterr().out
    assert passed and "✗" not in out and "all right" in out, out


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, (_, wrong) in EXERCISES.items() for name in some(wrong, 4)], ids=str)
def test_wrong_answers_are_caught_with_a_hint(check, name, capsys):
    answer, hint = EXERCISES[check][1][name]
    assert check(answer) is False
    out = capsys.readouterr().out
    assert "✗" in out and "not yet" in out and hint in " ".join(out.split()), out  # the lines are wrapped
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("check", EXERCISES)
def test_an_untouched_stub_is_not_a_mistake(check, capsys):
    def stub(*args):
        raise NotImplementedError

    for untouched in (None, stub):
        assert check(untouched) is False
        assert capsys.readouterr().out == f"{check.__name__}: not attempted yet\n"


def test_every_check_is_tested():
    assert set(checks.__all__) == {check.__name__ for check in EXERCISES}
    for check, (right, wrong) in EXERCISES.items():
        assert len(right) >= 5 and len(wrong) >= 12, check


def test_checks_leave_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    checks.cnn(models.CNN)
    assert torch.equal(before, torch.get_rng_state())
