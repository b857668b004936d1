"""A result names the code that it comes from."""

import ast
import json

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import provenance

NOTEBOOK = '''
def f(x, y=2):
    """A docstring."""
    return x + y  # a comment
'''


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


DIFFERENT = [
    ("a[1:]", "a[:1]"), ("a[1:2]", "a[1::2]"), ("a[1]", "a[1,]"), ("x, y = p", "y, x = p"), ("x = y", "y = x"), ("f(x, y)", "f(y, x)"),
    ("if a:\n    b()\nelse:\n    c()", "if a:\n    b()\n    c()"), ("if a:\n    b()\nelse:\n    c()", "if a:\n    b()"),
    ("for i in a:\n    b()\nelse:\n    c()", "for i in a:\n    b()\nc()"), ("def f(a, b): pass", "def f(a, /, b): pass"),
    ("def f(a, b): pass", "def f(a, *, b): pass"), ("def f(a, b=1): pass", "def f(a=1, b=1): pass"), ("f(*a)", "f(a)"), ("f(**a)", "f(*a)"),
    ("f(a=1)", "f(b=1)"), ("a < b", "a > b"), ("a < b < c", "a < b and b < c"), ("not a == b", "a != b"), ("a = 1", "a = True"),
    ("a = 1", "a = 1.0"), ("a = '1'", "a = 1"), ("a = b''", "a = ''"), ("a += 1", "a -= 1"), ("[a for b in c]", "(a for b in c)"),
    ("[a for b in c if d]", "[a for b in c]"), ("lambda a: b", "lambda b: a"), ("x if a else y", "y if a else x"), ("a.b", "a.c"),
    ("try:\n    a()\nexcept E:\n    b()", "try:\n    a()\nfinally:\n    b()"), ("with a as b: c()", "with b as a: c()"),
    ("global_ = {1: 2}", "global_ = {2: 1}"), ("f'{a}b'", "f'b{a}'"), ("f'{a:.1f}'", "f'{a:.2f}'"), ("a, *b = c", "*a, b = c"),
    ("import a", "import a as b"), ("from a import b", "from . import b"), ("raise a from b", "raise b from a"), ("del a", "a"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_programs_have_different_names(tmp_path, one, other):
    assert provenance.source(write(tmp_path, one)) != provenance.source(write(tmp_path, other))


names = st.sampled_from("abc")
bound = st.one_of(st.just(""), names)
slices = st.builds(lambda a, b, c: f"x[{a}:{b}:{c}]", bound, bound, bound)
branches = st.builds(lambda a, b, c, e: f"if {a}:\n    {b}()\n" + (f"else:\n    {c}()" if e else ""), names, names, names, st.booleans())
arguments = st.builds(
    lambda kinds, default: "def f(" + ", ".join(kinds) + f", k={default}): pass",
    st.sampled_from([["a", "/", "b"], ["a", "b", "/"], ["a", "*", "b"], ["a", "*b"], ["a", "**b"][:1], ["a", "b"], ["b", "a"]]),
    names,
)
programs = st.one_of(slices, branches, arguments)


@given(programs, programs)
def test_two_programs_have_one_name_only_if_python_reads_them_alike(one, other):
    alike = ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    assert (provenance._plain(one) == provenance._plain(other)) is alike


def test_only_what_a_notebook_uses_counts(tmp_path):
    modules = tmp_path / "utils"
    modules.mkdir()
    code = "LIMIT = 3\n\ndef used(): return inner()\n\ndef inner(): return LIMIT\n\ndef other(): return 1\n\nprint('on import')\n"

    def source(code):
        (modules / "a.py").write_text(code)
        return provenance.source(path, modules)

    path = write(tmp_path, "from utils import a\na.used()")
    before = source(code)
    assert source(code.replace("return 1", "return 2")) == before == source(code + "\ndef more(): pass\n")
    for change in (
        ("LIMIT = 3", "LIMIT = 4"),
        ("return LIMIT", "return -LIMIT"),
        ("return inner()", "return inner(1)"),
        ("on import", "on"),
    ):
        assert source(code.replace(*change)) != before, change


def test_outputs_and_text_do_not_count(tmp_path):
    path = write(tmp_path, NOTEBOOK)
    before = provenance.source(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    nbformat.write(notebook, path)
    assert provenance.source(path) == before


def test_stored_networks_count_for_a_notebook_that_loads_them(tmp_path):
    file, found = tmp_path / "resnet20.npz", {}
    for content in (b"one training", b"another"):
        file.write_bytes(content)
        for code in ("model = models.load('resnet20')", "model = models.resnet20()"):
            found[content, code] = provenance.source(write(tmp_path, code), weights=tmp_path)
    assert len(set(found.values())) == 3, found  # the second notebook has one name, the first one has two


def test_status_tells_stale_results_from_current_ones(tmp_path):
    path = write(tmp_path, NOTEBOOK)
    folder = tmp_path / "figures" / "01_a"
    folder.mkdir(parents=True)
    for name in ("kept.json", "changed.json", "plot.png", "foreign.json"):
        (folder / name).write_text(name)
    files = {name: provenance.digest((folder / name).read_bytes()) for name in ("kept.json", "changed.json", "plot.png")}
    (folder / "changed.json").write_text("by hand")

    def states(source):
        (folder / "run.json").write_text(json.dumps({"source": source, "files": files}))
        return {file.name: state.partition(":")[0] for file, state in provenance.status(tmp_path / "figures", tmp_path)}

    expected = {"kept.json": "current", "plot.png": "current", "changed.json": "unknown", "foreign.json": "unknown"}
    assert states(provenance.source(path)) == expected
    assert states("0123456789ab") == expected | {"kept.json": "stale", "plot.png": "stale"}
    (folder / "run.json").unlink()
    assert {state for _, state in provenance.status(tmp_path / "figures", tmp_path)} == {"unknown: not as the last run-all wrote it"}


def test_the_hash_does_not_depend_on_the_version_of_python(monkeypatch):
    """Newer versions add fields to the syntax tree (type_params in 3.12), which are empty in code that doesn't use them."""
    code = "def f(x: int = None, *y):\n    return f'{x!r:>{3}} {y}' if x else [z for z in y[1:]]"
    before = provenance._plain(code)
    if "type_params" not in ast.FunctionDef._fields:
        monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "type_params"))
    tree = ast.parse(code)
    tree.body[0].type_params = []
    assert provenance._plain(tree) == before and "type_params" not in before
