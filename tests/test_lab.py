"""Notebook 07: sealed cases that give nothing away, evidence that is one, a grader that looks at behaviour, a score that lasts."""

import inspect
import re
from functools import partial
from pathlib import Path

import answers07
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from utils import data, instruments, lab
from utils.lab import bench, measure, program
from utils.lab.answers import ANSWERS, SUSPECTS, judge
from utils.lab.grading import contract

ROOT = Path(__file__).parents[1]
CELLS = {cell.id: cell for cell in nbformat.read(ROOT / "notebooks" / "07_break_it.ipynb", as_version=4).cells}
DATASET = data.synthetic("cifar10")


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Nobody has solved anything yet."""
    monkeypatch.setenv("RESNET_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    lab.prepare(DATASET, 0, count=300)


def said(capsys, action):
    capsys.readouterr()
    action()
    return capsys.readouterr().out


# ---- instruments -----------------------------------------------------------------------------------------------------


def test_a_reading_is_a_table_and_a_dictionary():
    reading = instruments.Reading(("loss", "accuracy"), {"a": (2.30259, 0.1), "b": (1e-5, 12_345)})
    assert str(reading).splitlines() == ["   loss     accuracy", "a  2.303    0.100", "b  1.0e-05  12,345"] and reading["a"][1] == 0.1


def test_instruments_leave_nothing_behind():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    case = bench.Program.of_case(4, ANSWERS[4].design, lab.images(4), 4)
    for name in measure.COST:
        again = [measure.apply(name, case, **({"draw": False} if name.startswith("look") else {})) for _ in range(2)]
        assert again[0] == again[1], name  # its own copy, its own seed
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)
    assert not torch.nn.modules.module._global_forward_hooks


# ---- nothing is given away ------------------------------------------------------------------------------------------

TELLTALE = re.compile(
    r"shuffl|sort|permut|view|normalis|in.?place|softmax|relu|addition|stride|descri|untrain|frozen|freez|zero_grad|rate|schedul|"
    r"mean|eval|test|healthy|sound|fault|bug|wrong|broken|tutorial|author|last|kernel|register|list\b",
    re.IGNORECASE,
)
GRADED = [number for number in ANSWERS if number]


def test_cells_of_a_case_are_alike_but_for_its_number():
    parts = ("open", "measure", "diagnosis", "mend")
    for number in GRADED:
        for part in parts:
            cell = CELLS[f"case{number:02}-{part}"]
            expected = CELLS[f"case01-{part}"].source.replace("case1", f"case{number}").replace("case(1)", f"case({number})")
            assert cell.source == expected and len(cell.source.splitlines()) <= 5
            assert part == "open" or "raises-exception" in cell.metadata.tags
        heading, _, quote = CELLS[f"case{number:02}"].source.partition("\n\n")
        assert heading == f"### Case {number}" and re.fullmatch("\\*“.+”\\*", quote)
        solution = CELLS[f"case{number:02}-solution"].source
        assert solution.startswith(f"<details><summary>Case {number}: solution and moral</summary>\n\n") and solution.endswith("</details>")
        assert "**Moral:**" in solution
    order = [name for name in CELLS if re.match(r"case\d\d", name)]
    assert order == [f"case{n:02}{part}" for n in GRADED for part in ("", "-open", "-measure", "-diagnosis", "-mend", "-solution")]


def test_what_a_learner_sees_gives_nothing_away():
    shape = re.compile(r"stem \d×\d, stride \d; |reported: \S+ of the test images right")  # said of every case
    for number in GRADED:
        shown = CELLS[f"case{number:02}"].source
        for part in ("open", "diagnosis", "mend"):
            cell = CELLS[f"case{number:02}-{part}"]
            shown += "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for word in TELLTALE.findall(shape.sub("", shown)):
            assert word in ("must", "last", "wrong") and number in (4, 16), (number, word)
    for number in (3, 7, 14):
        case = lab.case(number)
        public = [name for name in dir(case) if not name.startswith("_")]
        assert public == [name for name in dir(lab.case(4)) if not name.startswith("_")]
        assert repr(case) == f"Case {number}: sealed, 0 minutes spent"
        assert not TELLTALE.search(repr(case.model)) and case.model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_tracebacks_and_file_names_are_neutral(monkeypatch, capsys):
    files = sorted(path.name for path in Path(bench.__file__).with_name("cases").glob("*.py"))
    assert files == ["__init__.py", *(f"case{number:02}.py" for number in ANSWERS)]
    for number in ANSWERS:
        source = inspect.getsource(__import__(f"utils.lab.cases.case{number:02}", fromlist=["_"]))
        assert "#" not in source and re.match('"""Case \\d+(, the demonstration)?."""\n', source)
    monkeypatch.setattr(bench.Program, "network", lambda self: 1 / 0)
    text = said(capsys, lab.case(7).first_loss)
    assert text.splitlines()[0] == "the program stopped: ZeroDivisionError" and "Traceback" not in text


def test_the_order_of_cases_is_not_that_of_the_suspects():
    places = [list(SUSPECTS).index(next(iter(ANSWERS[number].faults))) for number in GRADED]
    assert places != sorted(places) and "healthy" not in (*ANSWERS[1].faults, *ANSWERS[16].faults)
    assert len(GRADED) >= 12 and sum(len(ANSWERS[number].faults) == 2 for number in GRADED) == 2
    assert sum("healthy" in ANSWERS[number].faults for number in GRADED) == 1


# ---- diagnosis ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", GRADED)
def test_only_the_right_suspects_with_evidence_are_accepted(number):
    faults = ANSWERS[number].faults
    everything = set(measure.COST)
    for suspect in SUSPECTS:
        expected = {True: "right" if len(faults) == 1 else "part", False: "wrong"}[suspect in faults]
        assert judge(number, {suspect}, everything) == expected
    if "healthy" not in faults:
        assert judge(number, set(faults), {shown[0] for shown in faults.values()}) == "right"
        assert judge(number, set(faults), everything - {name for shown in faults.values() for name in shown}) == "wrong"
        assert judge(number, {*faults, "healthy"}, everything) == "wrong"


def test_a_case_from_curve_to_score(capsys):
    case = lab.case(14)
    assert "not attempted yet" in said(capsys, lambda: case.diagnose(None, None))
    assert "sealed" in said(capsys, case.open) and "not attempted yet" in said(capsys, lambda: case.mend(None))
    assert "epoch 6" in said(capsys, case.curve) and case.spent == 0
    assert "you have not used update_ratios" in said(capsys, lambda: case.diagnose("scheduler rhythm", "update_ratios"))
    assert "do you mean 'learning rate'?" in said(capsys, lambda: case.diagnose("learning rat", "first_loss"))
    assert "takes 3 as evidence" in said(capsys, lambda: case.diagnose("healthy", "first_loss"))
    case.first_loss()
    case.first_loss()
    assert case.spent == 1
    wrong = said(capsys, lambda: case.diagnose("learning rate", evidence="first_loss"))
    assert "does not explain" in wrong and "scheduler" not in wrong and case.spent == 11
    case.diagnose("learning rate", evidence="first_loss")  # Run All, once more
    assert case.spent == 11 and "1 wrong" in said(capsys, lab.score)
    assert "sealed" in said(capsys, lambda: case.mend(program.epoch))
    case.update_ratios()
    assert "right, at try 2; 15 minutes spent, the least possible is 4" in said(
        capsys, lambda: case.diagnose("scheduler rhythm", evidence=case.update_ratios)
    )
    assert "def epoch" in said(capsys, case.open)

    again = lab.case(14)  # another kernel
    assert repr(again) == "Case 14: diagnosed, 15 minutes spent"

    def epoch(model, loader, optimizer=None, scheduler=None):
        raise KeyError("a learner's\nerror")

    text = said(capsys, lambda: again.mend(epoch))
    assert "raised KeyError" in text and "not mended yet" in text
    assert "all" in said(capsys, lambda: again.mend(program.epoch)) and repr(again).startswith("Case 14: solved")
    score = said(capsys, lab.score)
    assert score.startswith("1 of 16 cases solved") and re.search(r"case 14 +right at try 2 +mended +15 +4\n", score)
    assert re.search(r"case 13 +· +· +0 +·\n", score)  # the least possible cost of a sealed case would be a hint
    lab.reset(14)
    assert repr(lab.case(14)).startswith("Case 14: sealed")


def test_two_faults_need_both_named(capsys):
    case = lab.case(6)
    case.first_loss()
    case.dependence()
    assert "a part of what" in said(capsys, lambda: case.diagnose("sum of means", "first_loss"))
    assert "right, at try 2" in said(capsys, lambda: case.diagnose(["no eval", "sum of means"], ["first_loss", "dependence"]))


def test_the_demonstration_is_not_graded_and_starts_anew(capsys, tmp_path):
    for _ in range(2):
        case = lab.case(0)
        case.weights_moved()
        assert "right, at try 1; 2 minutes spent" in said(capsys, partial(case.diagnose, "untrained layers", "weights_moved"))
    assert not (tmp_path / "progress.json").exists()


# ---- mends ----------------------------------------------------------------------------------------------------------


def grade(number, parts):
    """The claims that do not hold of a case with these parts."""
    mended = bench.Program(ANSWERS[number].design, lab.images(number), 0, bench.parts_of(number) | {p.__name__: p for p in parts})
    torch.manual_seed(0)
    try:
        return [claim for claim, holds in contract(mended) if not holds]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def test_the_sound_program_passes_and_no_sealed_one_does():
    for number, answer in ANSWERS.items():
        assert bool(grade(number, [])) == ("healthy" not in answer.faults), number


@pytest.mark.slow
def test_right_mends_in_other_styles_pass():
    for number, answers in answers07.RIGHT.items():
        for source in answers:
            wrong = grade(number, answers07.build(source))
            assert not wrong, f"case {number}: {wrong}\n{source}"


@pytest.mark.slow
def test_wrong_mends_do_not_pass():
    assert set(answers07.RIGHT) == set(answers07.WRONG) == set(ANSWERS) - {4}
    for number, answers in answers07.WRONG.items():
        assert len(answers) >= 3 and len(answers07.RIGHT[number]) >= 2 - (number == 11)
        for source in answers:
            assert grade(number, answers07.build(source)), f"case {number}\n{source}"


# ---- the notebook ---------------------------------------------------------------------------------------------------


def test_suspects_and_instruments_of_the_notebook_are_those_of_the_lab():
    table = CELLS["overview"].source
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) and set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(
        lab.INSTRUMENTS
    )
    for name in lab.INSTRUMENTS:
        assert inspect.getdoc(getattr(instruments, name)) and f"instruments.{name}(" in "".join(cell.source for cell in CELLS.values())
