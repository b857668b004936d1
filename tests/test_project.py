"""What holds for the project as a whole: its files agree with each other, and its numbers with their sources."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from utils import report

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path):
    return nbformat.read(path, as_version=4)


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


# ---- the environment ------------------------------------------------------------------------------------------------


def test_conda_environment_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert pip == {"pip": ["-e ."]}  # so the packages and versions are those of pyproject.toml


def test_versions_are_pinned_and_installed():
    from importlib.metadata import version

    for requirement in PROJECT["dependencies"]:
        name, pinned, number = re.fullmatch(r"([\w-]+)(==|<)([\d.]+)", requirement).groups()
        assert pinned == "==" and version(name) == number or name == "jsonschema"


@pytest.mark.parametrize("arguments", [["BUGET=smoke"], ["run-all", "ONLY=01 03", "EPOCH=3"]])
def test_make_refuses_mistyped_options(arguments):
    result = run("make", "--dry-run", *arguments)
    assert result.returncode != 0 and f"unknown option {arguments[-1].split('=')[0]}" in result.stderr


def test_make_passes_options_on():
    result = run("make", "--dry-run", "run-all", "BUDGET=smoke", "ONLY=01 03", "DATA=my pictures", "EPOCHS=3")
    assert '--budget "smoke" --data "my pictures" --device "auto" --seed "0" --epochs "3" --only 01 03' in result.stdout


def test_make_alone_explains_every_target():
    text = run("make").stdout
    makefile = (ROOT / "Makefile").read_text()
    for target in re.search(r"\.PHONY: (.*)", makefile)[1].split():
        assert target in ("help", "setup") or f"make {target} " in text, target


def test_make_lab_keeps_to_this_machine():
    command = run("make", "--dry-run", "lab").stdout
    assert "--ServerApp.ip=127.0.0.1" in command and "token" not in command


# ---- the notebooks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_conventions(path):
    notebook = read(path)
    assert notebook.metadata.kernelspec.name == "python3" and not {"papermill", "widgets"} & set(notebook.metadata)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[1].metadata.tags == ["parameters"]
    names = re.findall(r"^(\w+) = \S.*  # ", notebook.cells[1].source, re.MULTILINE)
    assert names == ["BUDGET", "DATA", "EPOCHS", "SEED", "DEVICE"]
    assert "Main result: " in code[-1].source
    for number, cell in enumerate(code, start=1):
        assert cell.execution_count == number, f"{cell.id}: not run in order; `make refresh` does it"
        assert len(cell.source.splitlines()) <= 30, cell.id
        outputs = json.dumps(cell.outputs)
        timing = "timing" in cell.metadata.get("tags", [])
        assert not (timing and cell.outputs), f"{cell.id}: times differ from run to run and are not stored"
        assert timing or not re.search(r"\d (images/s|seconds|ms)\b|times as fast", outputs), f"{cell.id}: a time; tag the cell as timing"
        assert not any(output.output_type == "error" for output in cell.outputs), cell.id
        assert not re.search(r"/(home|root|tmp|Users|work)/", outputs), f"{cell.id}: a path of somebody's machine"
        assert all("\r" not in output.get("text", "") for output in cell.outputs), f"{cell.id}: remains of a progress bar"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_a_stub_a_check_and_a_hidden_solution(path):
    cells = {cell.id: cell for cell in read(path).cells}
    exercises = [name.removesuffix("-exercise") for name in cells if name.endswith("-exercise")]
    text = "\n".join(cell.source for cell in cells.values() if cell.cell_type == "markdown")
    assert len(re.findall(r"^> \*\*Exercise \d+: .*\(\w+, \d+ minutes\)", text, re.MULTILINE)) == len(exercises)
    assert exercises or any(name.endswith("-diagnosis") for name in cells)  # notebook 07; see test_lab.py
    for name in exercises:
        check, solution = cells[f"{name}-check"], cells[f"{name}-solution"]
        assert "passed = checks." in check.source and "nbval-check-output" in check.metadata.tags
        assert "not attempted yet" in check.outputs[0].text  # the stub is stored untouched
        assert solution.source.startswith("# Solution – click to show\n") and solution.metadata.jupyter.source_hidden
        assert " if passed else " in solution.source.splitlines()[-1]


def test_links_between_files_work():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md", *NOTEBOOKS):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)|(?:src|href)=\"(?!http)([^\"]+)\"", prose(path)):
            name = "".join(target)
            assert (path.parent / name).exists(), f"{path.name}: {name}"


def test_no_large_files():
    tracked = run("git", "ls-files").stdout.splitlines()
    assert not [name for name in tracked if (ROOT / name).stat().st_size > 2_000_000]


# ---- the numbers ----------------------------------------------------------------------------------------------------
# A measured number is followed by a comment that names its source: 47.3 %<!-- figures/01_cnn_cifar100/plain.json test_accuracy -->

TEXTS = [ROOT / "README.md", *NOTEBOOKS]


def prose(path):
    return path.read_text() if path.suffix == ".md" else "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def result(text, source):
    """The result file that belongs to a text: as committed with it, if the text is unchanged since. A learner's own run replaces files in
    figures/, and the text does not speak of that run."""
    if run("git", "diff", "--quiet", "HEAD", "--", text).returncode == 0:
        committed = run("git", "show", f"HEAD:{source}")
        if committed.returncode == 0:
            return json.loads(committed.stdout)
    return json.loads((ROOT / source).read_text())


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_numbers_are_those_of_the_result_files(text):
    found = report.NUMBER.findall(prose(text))
    assert found, "no measured number with its source"
    for shown, unit, source, key in found:
        value = report.look_up(result(text, source), key) * report.UNITS[unit]
        decimals = len(shown.partition(".")[2])
        assert abs(float(shown.replace(",", "")) - value) <= 0.5001 * 10**-decimals, f"{shown} is {value} in {source} {key}"


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_no_measured_number_without_its_source(text):
    bare = re.findall(r"\d+\.\d+ %(?!<!--).{0,30}", prose(text))
    assert not bare, bare


def test_the_readme_is_what_make_report_makes():
    text = (ROOT / "README.md").read_text()
    assert report.readme(text, lambda source: result("README.md", source)) == text, "run `make report`"


def test_report_renews_numbers_and_keeps_their_form():
    text = "47.3 %<!-- a.json x.1 --> of 1,000<!-- a.json n --> and 3<!-- a.json n -->, 1.0 GB<!-- a.json bytes -->"
    found = {"x": [0, 0.5126], "n": 45_000, "bytes": 2_120_000_000}
    made = report.numbers(text, lambda source: found)
    assert made == "51.3 %<!-- a.json x.1 --> of 45,000<!-- a.json n --> and 45,000<!-- a.json n -->, 2.1 GB<!-- a.json bytes -->"
    assert report.numbers(made, lambda source: found) == made


def test_results_hold_nothing_about_the_machine_but_its_device():
    for name in run("git", "ls-files", "figures/*.json").stdout.splitlines():
        text = (ROOT / name).read_text()
        assert not re.search(r"/(home|root|tmp|Users|work)/", text), name
        unknown = {"user", "host", "path", "cwd", "environment"} & set(json.loads(text))
        assert not unknown, (name, unknown)


def test_synthetic_results_are_not_committed():
    for name in run("git", "ls-files", "figures/*.json").stdout.splitlines():
        record = json.loads((ROOT / name).read_text())
        assert not record["synthetic"] and record["budget"] in ("quick", "full"), name
        trained = {"epochs", "history"} if "history" in record else {"steps"}
        assert {"dataset", "seed", "device", "versions"} | trained <= set(record), name
