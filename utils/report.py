"""Bring the README and the texts of the notebooks up to date with the result files; what `make report` calls.

A measured number in a text is followed by a comment that names its source, `46.3 %<!-- figures/NN_name/RUN.json test_accuracy -->`: it is
written anew, with as many decimals as before. The gallery of plots and the table of speeds in the README, between the comments
<!-- gallery --> or <!-- speed --> and <!-- end -->, are made from the files in figures/ and benchmarks/results/.
"""

import json
import re
import sys
from pathlib import Path

from .files import whole

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"([\d,]*\.?\d+)( %| G| GB)?<!-- (\S+\.json) (\S+) -->")
UNITS = {"": 1, " %": 100, " G": 1e-9, " GB": 1e-9}
SPEED = {  # what `make bench` measures: what the table calls it
    "loader": "loader alone", "CNN": "CNN of notebook 01", "ResNet-25": "ResNet-25 of notebook 03",
    "ResNet-18-CIFAR-stem": "ResNet-18, CIFAR stem", "ResNet-18-at-96": "ResNet-18 at 96×96", "ResNet-50-at-224": "ResNet-50 at 224×224",
}  # fmt: skip


def read(source):
    """The result file, given its path in the project."""
    return json.loads((ROOT / source).read_text())


def look_up(record, key):
    """The number behind a key such as "history.val_loss.0"; KeyError if there is none."""
    for part in key.split("."):
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def numbers(text, read=read):
    """The text with every marked number as its source has it."""

    def renew(match):
        shown, unit, source, key = match.groups(default="")
        value = look_up(read(source), key) * UNITS[unit]
        decimals = len(shown.partition(".")[2])
        return f"{value:,.{decimals}f}{unit}<!-- {source} {key} -->"

    return NUMBER.sub(renew, text)


def gallery():
    """The plots of all notebooks, small, each a link to itself."""
    lines = []
    for notebook in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        title = json.loads(notebook.read_text())["cells"][0]["source"][0].strip("# \n")
        shown = [f"**[{title}](notebooks/{notebook.name})**<br>"]
        for plot in sorted((ROOT / "figures" / notebook.stem).glob("*.png")):
            name, place = plot.stem.replace("_", " "), plot.relative_to(ROOT)
            shown.append(f'<a href="{place}"><img src="{place}" height="170" alt="{name}" title="{name}"></a>')
        lines += [" ".join(shown), ""]
    return "\n".join(lines).rstrip()


def speed(read=read):
    """A table for each device on which `make bench` has run, and a line for each speedrun."""
    lines = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        record = read(str(path.relative_to(ROOT)))
        if path.stem == "speedrun":
            lines += [_speedrun(name, record[name], record) for name in ("cifar10", "cifar100") if name in record]
            continue
        lines += [f"{record['device']}, torch {record['torch']}, medians of {record['rounds']} rounds, images a second:", ""]
        lines += ["| | `utils` | textbook | with workers | tuned | `utils` / textbook | of the matrix peak | of the memory bandwidth |"]
        lines += ["| --- " * 8 + "|", *(_speed_row(title, record[name]) for name, title in SPEED.items() if name in record), ""]
    return "\n".join(lines).rstrip()


def _speedrun(name, row, record):
    return (
        f"- {row['network']} on {name}: {100 * row['mean_accuracy']:.2f} ± {100 * row['std_accuracy']:.2f} percent of the test images "
        f"after {row['median_seconds']:.1f} s ({row['epochs']} epochs, {len(row['seconds'])} runs, {record['device']})"
    )


def _speed_row(title, row):
    speeds = [row["images_per_second"].get(side) for side in ("shared", "textbook", "workers", "tuned")]
    cells = [f"{value:,.{0 if value > 1000 else 1}f}" if value else "" for value in speeds]
    shares = [f"{100 * row[share]:.0f} %" if share in row else "" for share in ("share_of_peak", "share_of_bandwidth")]
    return "| " + " | ".join([title, *cells, f"{row['ratio']['textbook']['median']:.2f}", *shares]) + " |"


def readme(text, read=read):
    """The README with everything in it that is made from results."""
    for name, made in (("gallery", gallery()), ("speed", speed(read))):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda match, made=made: match[1] + made + match[2], text, flags=re.DOTALL
        )
    return numbers(text, read)


def main():
    path = ROOT / "README.md"
    texts = {path: (path.read_text(), readme)}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        texts[path] = (path.read_text(), numbers)  # the comments hold nothing that JSON would write in another way
    for path, (old, make) in texts.items():
        try:
            new = make(old)
        except (OSError, KeyError, IndexError) as error:
            print(f"report: a number in {path.relative_to(ROOT)} has no source: {error}", file=sys.stderr)
            return 1
        if new != old:
            with whole(path) as partial:
                partial.write_text(new)
        print(f"{path.relative_to(ROOT)}: {'brought up to date' if new != old else 'nothing to do'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
