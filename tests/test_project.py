"""What holds for the project as a whole: its files agree with each other, and its numbers with their sources."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from runner import report

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


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = [name for extra in PROJECT["optional-dependencies"].values() for name in extra]


def test_the_lock_is_complete_and_installed():
    from importlib.metadata import version

    for requirement in PROJECT["dependencies"] + EXTRAS:
        name = re.match(r"[\w-]+", requirement)[0]
        locked = re.findall(rf"^{name}==([\w.+]+)", LOCK, re.MULTILINE)
        assert any(version(name).split("+")[0] == number for number in locked), f"{name}: `make lock`, then `make setup`"


def test_the_lock_has_digests_and_names_no_registry():
    packages = re.findall(r"^[\w.-]+==.*(?:\n    --hash.*)*", LOCK, re.MULTILINE)
    assert len(packages) > 50 and all("--hash=sha256:" in package for package in packages)
    assert "://" not in LOCK and "index-url" not in LOCK


def test_what_is_imported_is_declared():
    """By the code that runs: the notebooks, utils and the runner. Tests and benchmarks may use what is for development as well."""
    names = {"PIL": "pillow", "IPython": "ipython"}

    def imported(*patterns):
        code = "\n".join(path.read_text(encoding="utf-8") for pattern in patterns for path in ROOT.glob(pattern))
        code += "\n".join(cell.source for path in NOTEBOOKS for cell in read(path).cells if cell.cell_type == "code")
        found = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE)) - set(sys.stdlib_module_names)
        return {names.get(name, name) for name in found} - {"utils", "runner"}

    runtime = {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert imported("utils/*.py", "utils/*/*.py", "runner/*.py") <= runtime
    assert not runtime & {re.match(r"[\w-]+", requirement)[0] for requirement in EXTRAS}


@pytest.mark.parametrize("arguments", [["BUGET=smoke"], ["run-all", "ONLY=01 03", "EPOCH=3"]])
def test_make_refuses_mistyped_options(arguments):
    result = run("make", "--dry-run", *arguments)
    assert result.returncode != 0 and f"unknown option {arguments[-1].split('=')[0]}" in result.stderr


def test_make_passes_options_on():
    result = run("make", "--dry-run", "run-all", "BUDGET=smoke", "ONLY=01 03", "DATA=my pictures", "EPOCHS=3")
    assert '--budget "smoke" --data "my pictures" --device "auto" --seed "0" --epochs "3" --only 01 03' in result.stdout


def test_make_clean_deletes_what_the_project_made_and_nothing_else(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    stays = ["figures/01_a/plain.json", "figures/01_a/quick/plain.json", "data/cifar10.npz", "my .venv/a", "utils/__pycache__ of mine/a",
             "pictures/cat/__pycache__/a.png"]  # fmt: skip
    goes = [".venv/a", "figures/checkpoints/a", "utils/__pycache__/a", "notebooks/.ipynb_checkpoints/a", "notebooks/my .venv/__pycache__/a"]
    for name in [*stays, *goes, "benchmarks/a", "runner/a", "tests/a"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert all((tmp_path / name).exists() for name in stays) and not any((tmp_path / name).exists() for name in goes)


def test_make_alone_explains_every_target():
    text = run("make").stdout
    makefile = (ROOT / "Makefile").read_text()
    for target in re.search(r"\.PHONY: (.*)", makefile)[1].split():
        assert target in ("help", "setup") or f"make {target} " in text, target


def test_make_lab_opens_copies_and_never_overwrites_one(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("notebooks/01_cnn_cifar100.ipynb", "notebooks/02_b.ipynb", "my_notebooks/02_b.ipynb", ".venv/bin/python", "pyproject.toml",
                 "requirements.lock", ".venv/installed"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n" if name.endswith("python") else name)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / "my_notebooks/02_b.ipynb").write_text("my answers")
    subprocess.run(["make", "lab"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "my_notebooks/01_cnn_cifar100.ipynb").read_text() == "notebooks/01_cnn_cifar100.ipynb"
    assert (tmp_path / "my_notebooks/02_b.ipynb").read_text() == "my answers"


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
    lab = next(cell for cell in code if cell.id == "lab").outputs[0].text.partition("\n")[0]
    assert f"*Stored outputs: {lab}.*" in notebook.cells[0].source, "`make refresh` writes this line"
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
    headings = re.findall(r"^(?:> \*\*Exercise \d+: |### Exercise \d+\.\d+ · ).*\(\w+, \d+ minutes\)", text, re.MULTILINE)
    assert len(headings) == len(exercises)
    assert exercises or any(name.endswith("-diagnosis") for name in cells)  # notebook 07; see test_lab.py
    for name in exercises:
        check, solution = cells[f"{name}-check"], cells[f"{name}-solution"]
        assert "passed = checks." in check.source and "nbval-check-output" in check.metadata.tags
        assert "not attempted yet" in check.outputs[0].text  # the stub is stored untouched
        assert solution.source.startswith("# Solution – click to show\n") and solution.metadata.jupyter.source_hidden
        if " if passed else " not in solution.source.splitlines()[-1]:  # later cells ask the registry
            exercise = re.search(r"checks\.(\w+)\(", check.source)[1]
            assert f'checks.solution("{exercise}")' in solution.source
            assert any(f'= checks.use("{exercise}")' in cell.source for cell in cells.values())


def test_links_between_files_work():
    for path in (*ROOT.glob("*.md"), ROOT / "data" / "README.md", *(ROOT / "docs").glob("*.md"), *NOTEBOOKS):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)|(?:src|href)=\"(?!http)([^\"]+)\"", prose(path)):
            name = "".join(target)
            assert name.startswith("_static/ort/") or (path.parent / name).exists(), f"{path.name}: {name}"  # ort comes from npm


def test_no_large_files():
    tracked = run("git", "ls-files").stdout.splitlines()
    assert not [name for name in tracked if (ROOT / name).stat().st_size > 2_000_000]


# ---- the numbers ----------------------------------------------------------------------------------------------------
# A measured number is followed by a comment that names its source: 47.3 %<!-- figures/01_cnn_cifar100/plain.json test_accuracy -->

TEXTS = [ROOT / "docs" / "results.md", *NOTEBOOKS]


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
    words = prose(text)
    found = report.NUMBER.findall(words)
    assert found, "no measured number with its source"
    assert len(found) == words.count("<!--"), "a comment that is not closed, or has no number before it"
    for shown, unit, source, key in found:
        value = report.look_up(result(text, source), key) * report.UNITS[unit]
        decimals = len(shown.partition(".")[2])
        assert abs(float(shown.replace(",", "")) - value) <= 0.5001 * 10**-decimals, f"{shown} is {value} in {source} {key}"


@pytest.mark.parametrize("text", [ROOT / "README.md", *TEXTS], ids=lambda path: path.stem)
def test_no_measured_number_without_its_source(text):
    bare = re.findall(r"\d+\.\d+ %(?!<!--).{0,30}", prose(text))
    assert not bare, bare


@pytest.mark.parametrize("path", report.PAGES, ids=lambda path: path.stem)
def test_the_pages_are_what_make_report_makes(path):
    text = path.read_text()
    assert report.renewed(text, read=lambda source: result(path, source)) == text, "run `make report`"


def test_the_readme_is_plain_to_read():
    text = (ROOT / "README.md").read_text()
    assert "<!--" not in text and len(text.splitlines()) < 100
    assert all(f"(notebooks/{path.name})" in text for path in NOTEBOOKS)


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["license"] == PROJECT["license"]
    assert citation["version"] == PROJECT["version"]
    (author,) = citation["authors"]
    assert all(words in (ROOT / "README.md").read_text() for words in (citation["title"], author["name"]))


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
        if name.endswith("/run.json"):  # the runner's own, about all of them
            assert record["parameters"]["SEED"] == 0 and record["parameters"]["BUDGET"] in ("quick", "full"), name
            continue
        assert not record["synthetic"] and record["budget"] in ("quick", "full"), name
        trained = {"epochs", "history"} if "history" in record else set()
        assert {"dataset", "seed", "device", "versions"} | trained <= set(record), name
