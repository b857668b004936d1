"""The site, as far as it can be tested without building it; tests/browser/test_site.py does the rest."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))
import ready_to_run  # noqa: E402
import terms  # noqa: E402

ALT = tomllib.loads((ROOT / "docs" / "figures.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_sound(path):
    """They can't be run here: they are read, and what they call must be there."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["name"] and workflow[True]  # YAML reads `on` as true
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] and job["timeout-minutes"] <= 30, name
        assert all(other in workflow["jobs"] for other in [job.get("needs", [])] if other), name
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) if "uses" in step else step["run"], (name, step)
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
            for script in re.findall(r"(?:python|bash) ([\w./]+)", step.get("run", "")):
                assert (ROOT / script).exists(), script


def test_the_site_is_published_from_main_only():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8"))["jobs"]
    assert any(step.get("run") == "make site" for step in jobs["build"]["steps"])
    for name in ("publish", "ready-to-run"):
        assert "refs/heads/main" in jobs[name]["if"] and jobs[name]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}


def test_every_figure_has_an_alternative_text():
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for name in re.findall(r'save_figure\(\w+, \\"(\w+)\\"\)', path.read_text(encoding="utf-8")):
            assert name in ALT[path.stem], f"docs/figures.toml: [{path.stem}] {name}"
    for notebook, texts in ALT.items():
        for name, text in texts.items():
            assert 40 < len(text) < 300 and text.endswith("."), (notebook, name)


STAGE = "{term}`stage <stage>`"


@pytest.mark.parametrize(
    "text, linked",
    [
        ("A stage, and another stage.", f"A {STAGE}, and another stage."),
        ("A stage. Then *stage* is explained; a *stage*.", f"A stage. Then *{STAGE}* is explained; a *stage*."),
        ("Stages of residual\nblocks.", "{term}`Stages <stage>` of {term}`residual blocks <residual block>`."),
        ("- **Stage**: seen in a stage.", "- **{term}`Stage <stage>`**: seen in a stage."),
        ("One stage.\n\n- **Stage**: as above.", f"One {STAGE}.\n\n- **Stage**: as above."),
        ("A bottleneck; a *bottleneck*.", "A bottleneck; a *{term}`bottleneck <bottleneck>`*."),
        ("| stage |\n| --- |\n| `stage` |", f"| {STAGE} |\n| --- |\n| `stage` |"),
        ("# A stage\n\nA backstage, stage-wise.", None),
        ("`stage`, ``a `stage` ``, [a stage](a.md), ![stage](a.png), $stage$, $$a\nstage$$, <b title='stage'>", None),
        ("```python\nstage = 1\n```\n\n    stage = 2", None),
        ("<details><summary>Answer</summary>\n\nThe stage.\n</details>", None),
        ("<div>\nThe stage.\n</div>", None),
        (":::{grid} stage\n:::", None),
        ("84 %<!-- weights/stage.json stage -->", None),
    ],
)
def test_the_first_mention_of_a_term_leads_to_the_glossary(text, linked):
    assert terms.link([text], ["stage", "residual block", "bottleneck"]) == [linked or text]


def test_a_term_is_linked_once_in_a_notebook():
    assert terms.link(["A stage.", "A *stage*.", "A *stage*."], ["stage"]) == ["A stage.", f"A *{STAGE}*.", "A *stage*."]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_links_to_the_glossary_leave_the_text_of_a_notebook_as_it_is(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    linked = terms.link(texts)
    found = re.findall(r"\{term\}`[^`]+ <(.*?)>`", "\n".join(linked))
    assert len(found) == len(set(found)) > 4 and set(found) <= set(terms.TERMS)
    without = [re.sub(r"\{term\}`([^`]+) <.*?>`", r"\1", text) for text in linked]
    assert [text.split() for text in without] == [text.split() for text in texts]


def test_the_glossary_is_in_alphabetical_order():
    assert terms.TERMS == sorted(terms.TERMS, key=str.lower) and len(terms.TERMS) > 30


def test_the_locks_of_the_site_have_digests_and_name_no_registry():
    python = (ROOT / "docs" / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^[\w.-]+==.*(?:\n    --hash.*)*", python, re.MULTILINE)
    assert len(packages) > 30 and all("--hash=sha256:" in package for package in packages)
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["site"]:
        assert f"\n{re.match(r'[a-z-]+', requirement)[0]}==" in python, f"{requirement}: `make lock`"
    web = (ROOT / "docs" / "web" / "package-lock.json").read_text(encoding="utf-8")
    assert all("integrity" in package for name, package in json.loads(web)["packages"].items() if name)
    assert "://" not in python and "://" not in web


def in_a_bare_environment(folder, code):
    """Run it where the project is not installed, as in Colab; returns what it prints."""
    bare = (
        "import sys; sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]; "
        f"sys.path[:] = [place for place in sys.path if place != {str(ROOT)!r} and 'editable' not in place]\n"
    )
    command = [sys.executable, "-I", "-c", bare + code]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.slow
def test_the_first_cell_fetches_the_project(tmp_path):
    source = ready_to_run.cell(f"file://{ROOT}")["source"]
    where = "\nimport torch, utils.experiment, utils.train\nprint(utils.train.__file__)"
    assert str(tmp_path / "learn-resnets" / "utils") in in_a_bare_environment(tmp_path, source + where)


def test_the_first_cell_installs_what_is_missing_and_keeps_torch(tmp_path):
    from importlib.metadata import version

    prepare = f"""
import importlib.metadata, subprocess
found, run = list(importlib.metadata.distributions()), subprocess.run
importlib.metadata.distributions = lambda: [part for part in found if part.metadata["Name"].lower() not in ("tqdm", "jupyterlab")]
subprocess.run = lambda command, **options: run(command, **options) if command[0] == "git" else print(command[4:])
{ready_to_run.cell(f"file://{ROOT}")["source"]}"""
    printed = in_a_bare_environment(tmp_path, prepare)
    assert "'tqdm>=" in printed and f"torch=={version('torch')}" in printed
    assert "jupyterlab" not in printed and "numpy" not in printed and "torch>=" not in printed
