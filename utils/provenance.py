"""What a result was made from: the notebook's code, the code in utils/ that computes, the parameters, the data, the versions.

python -m utils.provenance       which results in figures/ come from older code; what `make status` calls
"""

import ast
import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPUTING = ("blocks", "data", "experiment", "models", "synthetic", "train")  # the modules that a result depends on
PACKAGES = ("torch", "torchvision", "numpy")


def source(notebook):
    """A short name for the code behind a notebook's results: its cells and utils/. Comments, docstrings and layout don't count."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    codes += [Path(__file__).with_name(f"{name}.py").read_text() for name in COMPUTING]
    return short([_meaning(code) for code in codes])


def fingerprint(notebook, parameters):
    """A short name for one run: equal only if code, parameters, environment, data and versions are."""
    places = [ROOT / "data", Path(parameters["DATA"]).expanduser(), ROOT / parameters["DATA"]]
    files = sorted({file for place in places if place.is_dir() for file in place.rglob("*") if file.is_file()})
    found = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    environment = [os.environ.get(name) for name in ("RESNET_BUDGET", "RESNET_DATA", "CUDA_VISIBLE_DEVICES")]
    return short([source(notebook), parameters, environment, found, versions()])


def versions():
    """Of Python and the packages that a result depends on, {name: version}."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def short(what):
    """Twelve characters that stand for a value."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]


def _meaning(code):
    """The syntax tree as a list, in a form that is the same in every version of Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    nodes = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0].value, "value", None), str):
            body[0].value = ast.Constant("")  # a docstring
        values = [value for _, value in ast.iter_fields(node) if isinstance(value, (str, int, float, bytes))]
        nodes.append((type(node).__name__, values))
    return nodes


def status(figures=ROOT / "figures", notebooks=ROOT / "notebooks"):
    """One line for each result file and plot: (its path, "current", "stale: …" or "unknown: …")."""
    from PIL import Image

    rows = []
    for notebook in sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb")):
        now = source(notebook)
        for file in sorted((Path(figures) / notebook.stem).glob("*.*")):
            if file.suffix not in (".json", ".png"):  # a .pdf is written together with its .png
                continue
            made_from = json.loads(file.read_text()).get("source") if file.suffix == ".json" else Image.open(file).info.get("Source")
            state = (
                "current" if made_from == now else "stale: made by older code" if made_from else "unknown: made before this was recorded"
            )
            rows.append((file.relative_to(figures), state))
    return rows


if __name__ == "__main__":
    rows = status()
    for name, state in rows:
        print(f"{str(name):60} {state}")
    old = [state for _, state in rows if state != "current"]
    advice = "; `make refresh` makes the others anew" if old else ""
    print(f"{len(rows) - len(old)} of {len(rows)} results and plots are from the present code{advice}")
