"""A result names the code that it comes from."""

import json

import nbformat
import numpy as np
import pytest

from utils import plots, provenance

NOTEBOOK = """
\"\"\"A docstring.\"\"\"
def f(x, y=2):
    return x + y  # a comment
"""


def write(folder, *sources):
    path = folder / "01_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (NOTEBOOK.replace("a comment", "another"), True),
        (NOTEBOOK.replace("A docstring", "Another"), True),
        (NOTEBOOK.replace("x + y", "(x\n        + y)"), True),
        (NOTEBOOK.replace("x + y", "x - y"), False),
        (NOTEBOOK.replace("y=2", "y=3"), False),
        (NOTEBOOK.replace("f(", "g("), False),
        ("not python", False),
    ],
)
def test_source_is_the_meaning_of_the_code(tmp_path, other, same):
    assert (provenance.source(write(tmp_path, NOTEBOOK)) == provenance.source(write(tmp_path, other))) is same


def test_outputs_and_text_do_not_count(tmp_path):
    path = write(tmp_path, NOTEBOOK)
    before = provenance.source(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    nbformat.write(notebook, path)
    assert provenance.source(path) == before


def test_status_tells_stale_results_from_current_ones(tmp_path):
    path = write(tmp_path, NOTEBOOK)
    folder = tmp_path / "figures" / "01_a"
    folder.mkdir(parents=True)
    for name, made_from in (("new", provenance.source(path)), ("old", "0123456789ab"), ("ancient", None)):
        (folder / f"{name}.json").write_text(json.dumps({"source": made_from}))
        plots.save(plots.image_grid(np.zeros((1, 3, 4, 4), np.uint8)), folder / name, made_from)
    rows = {file.name: state for file, state in provenance.status(tmp_path / "figures", tmp_path)}
    assert len(rows) == 6
    for ending in (".json", ".png"):
        assert rows["new" + ending] == "current"
        assert rows["old" + ending].startswith("stale") and rows["ancient" + ending].startswith("unknown")
