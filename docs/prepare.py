"""What the site is made from besides its own pages: copies of the notebooks, the gallery, tables of results and exercises, and the
files that the pages load. All of it goes to docs/notebooks/ and docs/_generated/, which git ignores.
"""

import fnmatch
import json
import re
import shutil
import tomllib
from pathlib import Path

import network
import numpy as np
import terms
from sphinx.util import logging

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "_generated"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["learn-resnets"]["repository"].rstrip("/")
ALT = tomllib.loads((DOCS / "figures.toml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# What a link in a notebook or in a text of the repository becomes on the site.
PAGES = {"CONTRIBUTING.md": "contributing", "README.md": "index", "data/README.md": "own-pictures", "weights/README.md": "results"}

warn = logging.getLogger(__name__).warning


def repository_options():
    """Options of the theme that need the repository's address; none while it is empty."""
    if not REPOSITORY:
        return {}
    return {
        "repository_url": REPOSITORY,
        "repository_branch": "ready-to-run",  # made by the workflow: its notebooks fetch the project where it is missing
        "path_to_docs": "",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    }


def write(path, text):
    """Only if it differs: Sphinx then reads only what is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def links(text, folder):
    """Links to files of the repository, seen from `folder` in it, as links of a page in docs/notebooks/, or else in docs/ itself."""

    def renew(match):
        label, target, anchor = match.groups(default="")
        path = (ROOT / folder / target).resolve()
        place = path.relative_to(ROOT).as_posix()
        up = "../" if folder == "notebooks" else ""
        if path.suffix == ".ipynb" or place.startswith("docs/"):
            return f"[{label}]({up}{place.removeprefix('docs/')}{anchor})"
        if place in PAGES:
            return f"[{label}]({up}{PAGES[place]}.md)"
        if place.startswith("utils/") and "/lab/" not in place:
            return f"[{label}]({up}api.md)"
        return f"[{label}]({REPOSITORY}/blob/main/{place})" if REPOSITORY else f"{label} (`{place}`)"

    text = text.replace("](../docs/_static/", "](../_static/")  # pictures
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)", renew, text)


def alt(notebook, names):
    """The alternative text of a figure, under the first of its names that has one."""
    for name in names:
        for pattern, text in ALT.get(notebook, {}).items():
            if fnmatch.fnmatch(name, pattern):
                return text
    warn("docs/figures.toml has no alternative text for %s of %s", " or ".join(names), notebook)
    return names[0]


def saved_figures(source):
    return re.findall(r"save_figure\(\w+, \"(\w+)\"\)", source)


def for_the_site(path):
    """A notebook as the site shows it: solutions folded as in JupyterLab, links that work there and to the glossary, alternative texts."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    for cell, source in zip(prose, terms.link(links("".join(cell["source"]), "notebooks") for cell in prose), strict=True):
        cell["source"] = source
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        source, metadata = "".join(cell["source"]), cell["metadata"]
        if metadata.get("jupyter", {}).get("source_hidden"):
            metadata["tags"] = [*metadata.get("tags", []), "hide-input"]
            title, rest = re.match(r"# (Solution) – click to show\n(.*)", source, re.DOTALL).groups()
            metadata["mystnb"] = {"code_prompt_show": f"{title} – click to show", "code_prompt_hide": f"{title} – click to hide"}
            cell["source"] = rest
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            metadata.setdefault("mystnb", {})["image"] = {"alt": alt(path.stem, [*saved_figures(source), cell["id"]])}
    write(DOCS / "notebooks" / path.name, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return notebook


def title(notebook):
    return "".join(notebook["cells"][0]["source"]).partition("\n")[0].strip("# ")


def gallery(notebooks):
    """A card for every plot, in the order of the notebooks."""
    parts = []
    for path, notebook in notebooks.items():
        code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        names = [name for name in saved_figures(code) if (ROOT / "figures" / path.stem / f"{name}.png").exists()]
        if names:
            parts.append(f"## {title(notebook)}\n\n::::{{grid}} 1 2 2 3\n:gutter: 2")
        for name in names:
            parts.append(
                f":::{{grid-item-card}} {name.replace('_', ' ').capitalize()}\n:img-top: ../figures/{path.stem}/{name}.png\n"
                f":img-alt: {alt(path.stem, [name])}\n:link: notebooks/{path.stem}\n:link-type: doc\n:class-title: sd-fs-6\n:::"
            )
        if names:
            parts.append("::::")
    return "\n\n".join(parts)


def exercises(notebooks):
    """A table of all exercises, each a link to its section."""
    rows = ["| notebook | exercise | how hard | minutes |\n| --- | --- | --- | --- |"]
    for path, notebook in notebooks.items():
        text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        for heading, name, hard, minutes in re.findall(r"^### (Exercise (\d+\.\d+ · .*) \((\w+), (\d+) minutes\))", text, re.MULTILINE):
            anchor = re.sub(r"[^\w\u4e00-\u9fff\- ]", "", heading.strip().lower().replace(" ", "-"))
            rows.append(f"| {path.stem[:2]} | [{name}](notebooks/{path.name}#{anchor}) | {hard} | {minutes} |")
    return "\n".join(rows)


def results():
    """A table of every stored result that has an accuracy on test images."""
    rows = ["| notebook | run | data set | test accuracy | trained on | epochs | seeds | budget | device |\n" + "| --- " * 9 + "|"]
    for path in sorted((ROOT / "figures").glob("[0-9][0-9]_*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        accuracy = record.get("test_accuracy", 1 - record["mean_test_error"] if "mean_test_error" in record else None)
        if not isinstance(accuracy, float) or record.get("synthetic"):
            continue
        images = record.get("train_images", record.get("images", ""))
        seeds = record.get("seeds", record.get("test_accuracy_by_seed", 1))
        seeds = len(seeds) if isinstance(seeds, list) else seeds
        cells = (path.parent.name[:2], record["run"], record["dataset"], f"{accuracy:.1%}".replace("%", " %"),
                 f"{images:,}" if isinstance(images, int) else "", record.get("epochs", ""),
                 seeds, record["budget"], record["device"])  # fmt: skip
        rows.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows)


def picture():
    """The picture of the front page: the first of these that has been made."""
    wanted = (("02_residual_block", "deep_stacks"), ("06_depth", "figure6"), ("01_cnn_cifar100", "all_variants"))
    for notebook, name in wanted:
        if (ROOT / "figures" / notebook / f"{name}.png").exists():
            break
    text = alt(notebook, [name])
    return f"```{{figure}} ../figures/{notebook}/{name}.png\n:alt: {text}\n:target: notebooks/{notebook}.html\n\n{text}\n```"


def loaded_files():
    """What the pages load and this repository does not hold, from the packages of npm."""
    modules = DOCS / "web" / "node_modules"
    static = GENERATED / "static"
    for source, target in {
        "mathjax/es5/tex-svg.js": "mathjax/tex-svg.js",
        "mathjax/es5/input/tex/extensions": "mathjax/input/tex/extensions",
        "onnxruntime-web/dist/ort.wasm.min.js": "ort/ort.wasm.min.js",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs": "ort/ort-wasm-simd-threaded.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort/ort-wasm-simd-threaded.wasm",
    }.items():
        (static / target).parent.mkdir(parents=True, exist_ok=True)
        if (modules / source).is_dir():
            shutil.copytree(modules / source, static / target, dirs_exist_ok=True)
        else:
            shutil.copyfile(modules / source, static / target)


def playground():
    """The network of the playground."""
    with np.load(ROOT / "weights" / "resnet20-cifar10.npz", allow_pickle=False) as weights:
        network.build(weights, GENERATED / "static" / "resnet20.onnx")


def everything():
    loaded_files()
    playground()
    notebooks = {path: for_the_site(path) for path in NOTEBOOKS}
    for old in set((DOCS / "notebooks").glob("*.ipynb")) - {DOCS / "notebooks" / path.name for path in NOTEBOOKS}:
        old.unlink()
    write(GENERATED / "gallery.md", gallery(notebooks))
    write(GENERATED / "exercises.md", exercises(notebooks))
    write(GENERATED / "results.md", results())
    write(GENERATED / "picture.md", picture())
    for name in ("CONTRIBUTING.md", "data/README.md", "weights/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8").partition("\n")[2]  # each page has a title of its own
        write(GENERATED / name.replace("/", "-"), links(text, Path(name).parent.as_posix().strip(".")))
