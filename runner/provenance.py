"""Which code a notebook's results come from. `python -m runner.provenance` lists those of older code; `make status` calls it."""

import ast
import json
import os
import re
from pathlib import Path

from utils.files import digest

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(notebook, parameters):
    """A short name for a run: equal only if code, parameters, versions and environment are. Its data are compared on their own."""
    from utils.experiment import versions

    return digest(repr([source(notebook), parameters, versions(), [os.environ.get(f"RESNET_{n}") for n in ("DATA", "PRECISION")]]).encode())


def source(notebook, modules=ROOT / "utils", weights=ROOT / "weights"):
    """A short name for the code that a notebook runs: its cells, and what of utils/ they use, directly or through other functions.

    A definition counts as soon as its name appears in code that counts. Comments, docstrings, layout and the learner's checks don't count.
    The stored networks count for a notebook that loads them: with others, its results are out of date, too.
    """
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    used = [_plain(text) for text in texts]
    if any("models.load(" in text for text in texts):
        used += [digest(path.read_bytes()) for path in sorted(Path(weights).glob("*.npz"))]
    waiting = []  # (names, code) of the definitions that nothing has named yet
    for path in sorted(Path(modules).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if names := _defined(node):
                waiting.append((names, _plain(node)))
            elif not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call):  # all but docstrings
                used.append(_plain(node))
    found = used
    while found:
        mentioned = {name for code in found for name in re.findall(r"[^\W\d]\w*", code)}
        found = [code for names, code in waiting if names & mentioned]
        waiting = [(names, code) for names, code in waiting if not names & mentioned]
        used = used + found
    return digest(repr(used).encode())


def _plain(code):
    """What code consists of, without comments, docstrings and layout, alike in every version of Python; the text, if it is not Python.

    code: a text, or its syntax tree.
    """
    try:
        tree = ast.parse(code) if isinstance(code, str) else code
    except SyntaxError:  # a magic command, a mistake
        return code
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return repr(_parts(tree))


def _parts(node):
    if isinstance(node, ast.AST):  # newer versions of Python have more fields, which are empty where they are not used
        return type(node).__name__, [(name, _parts(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [_parts(part) for part in node] if isinstance(node, list) else node


def _defined(node):
    """The names that a statement of a module defines; none for what runs when the module is imported."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return set()


def changed(folder, record):
    """The files of a run, as its record has them, that have changed since or are gone."""
    there = {name: digest((folder / name).read_bytes()) for name in record["files"] if (folder / name).exists()}
    return [name for name, content in record["files"].items() if there.get(name) != content]


def status(figures=ROOT / "figures", notebooks=ROOT / "notebooks"):
    """One line for each committed result and plot: (its path, "current", "stale: …" or "unknown: …")."""
    rows = []
    for notebook in sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb")):
        folder, record = Path(figures) / notebook.stem, {"source": None, "files": {}}
        if (folder / "run.json").exists():
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        state = "current" if record["source"] == source(notebook) else "stale: made by older code"
        known = set(record["files"]) - set(changed(folder, record))
        for file in sorted({*folder.glob("*.*")} - {folder / "run.json", *folder.glob("*.ipynb")}):
            rows.append((file.relative_to(figures), state if file.name in known else "unknown: not as the last run-all wrote it"))
    return rows


if __name__ == "__main__":
    rows = status()
    print(*(f"{str(name):60} {state}" for name, state in rows), sep="\n")
    print(f"{sum(state == 'current' for _, state in rows)} of {len(rows)} results and plots are from the present code")
