"""Give every notebook a first cell that fetches the project where it is not installed, as in Colab; run by the workflow of the site.

It writes to notebooks/, for a branch of its own: learners with a copy of the repository never see that cell. Needs the repository's
address, `[tool.learn-resnets] repository` in pyproject.toml.
"""

import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CELL = """# Where the project is not installed, fetch it and install what is missing. What is there stays as it is, torch above all.
import importlib.metadata as installed
import os
import re
import subprocess
import sys
import tomllib

try:
    import utils.experiment
except ImportError:
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "REPOSITORY", "learn-resnets"], check=True)
    sys.modules.pop("utils", None)
    sys.path.insert(0, os.path.abspath("learn-resnets"))
    present = {part.metadata["Name"].lower(): part.version for part in installed.distributions()}
    with open("learn-resnets/pyproject.toml", "rb") as file:
        wanted = {re.match(r"[\\w-]+", line)[0]: line for line in tomllib.load(file)["project"]["dependencies"]}
    for tool in ("ipykernel", "ipython", "jupyterlab", "nbformat", "papermill"):  # a notebook that is open needs none of them
        wanted.pop(tool)
    missing = [line for name, line in wanted.items() if name not in present]
    kept = [f"{name}=={present[name]}" for name in ("torch", "torchvision") if name in present]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing, *kept], check=True)
"""


def cell(repository):
    source = CELL.replace("REPOSITORY", repository)
    return {"cell_type": "code", "id": "fetch", "metadata": {}, "execution_count": None, "outputs": [], "source": source}


def main():
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["learn-resnets"]["repository"]
    if not repository:
        sys.exit("pyproject.toml has no address of the repository: nothing to do")
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["cells"][1]["id"] != "fetch":
            notebook["cells"].insert(1, cell(repository))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
