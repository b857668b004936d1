"""Every exercise's check: plausible wrong answers are caught with a hint that names the mistake, unusual right ones pass.

The answers stand in answers01.py and so on, one file for each notebook: EXERCISES = {check: (right answers, wrong answers)}.
"""

import answers01
import answers02
import answers03
import answers04
import answers05
import answers06
import answers08
import pytest
import torch

from utils import checks, models
from utils.checks import framework

MODULES = (answers01, answers02, answers03, answers04, answers05, answers06, answers08)
EXERCISES = {check: answers for module in MODULES for check, answers in module.EXERCISES.items()}


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, (right, _) in EXERCISES.items() for name in right])
def test_right_answers_pass(check, name, capsys):
    assert check(EXERCISES[check][0][name]), capsys.readouterr().out
    assert "✗" not in capsys.readouterr().out


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, (_, wrong) in EXERCISES.items() for name in wrong])
def test_wrong_answers_are_caught_with_a_hint(check, name, capsys):
    answer, hint = EXERCISES[check][1][name]
    framework._tries.clear()
    assert check(answer) is False
    first = capsys.readouterr().out
    assert check(answer) is False
    second = capsys.readouterr().out
    assert "✗" in first and hint in second, second
    # The first time only what was found is said, never what to do.
    assert "Not clear? Run this cell once more" in first or first == second
    assert "Not clear?" not in second and len(second.splitlines()) >= len(first.splitlines()) - 1


def test_a_hint_comes_only_when_asked_for_again(capsys):
    def ones(x, out_channels, stride):
        return torch.ones(2, 6, 4, 4)

    framework._tries.clear()
    shown = []
    for answer in (ones, ones, models.ZeroPadding, None, ones):
        checks.zero_padding(answer)
        shown.append("F.pad" in capsys.readouterr().out)
    assert shown[:2] == [False, True]


def test_progress_lists_what_is_solved(capsys):
    framework._tries.clear()
    checks.residual_block(models.ResidualBlock)
    checks.zero_padding(None)
    capsys.readouterr()
    checks.progress()
    assert capsys.readouterr().out == "1 of 2 exercises solved\n  ✓ residual_block\n  · zero_padding\n"


@pytest.mark.parametrize("check", EXERCISES)
def test_an_untouched_stub_is_not_a_mistake(check, capsys):
    def stub(*args):
        raise NotImplementedError

    for untouched in (None, stub):
        assert check(untouched) is False
        out = capsys.readouterr().out
        assert "not attempted yet" in out and "✗" not in out


def test_every_check_is_tested():
    assert set(checks.__all__) == {check.__name__ for check in EXERCISES}
    assert all(len(right) >= 3 and len(wrong) >= 6 for right, wrong in EXERCISES.values())


def test_checks_leave_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    checks.cnn(models.CNN)
    assert torch.equal(before, torch.get_rng_state())
