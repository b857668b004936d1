"""Bring the pages of docs/ and the texts of the notebooks up to date with the result files; what `make report` calls.

A measured number in a text is followed by a comment that names its source, `46.3 %<!-- figures/NN_name/RUN.json test_accuracy -->`: it is
written anew, with as many decimals as before. The table of speeds in docs/speed.md, between comments of its own, is made anew, too.
"""

import json
import re
import sys

from utils.files import atomic_write

from .provenance import ROOT

NUMBER = re.compile(r"([\d,]*\.?\d+)( %| G| GB)?<!-- (\S+\.json) (\S+) -->")
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "<!-- " in path.read_text(encoding="utf-8")]
UNITS = {"": 1, " %": 100, " G": 1e-9, " GB": 1e-9}


def look_up(record, key):
    """The number behind a key such as "history.val_loss.0"; KeyError if there is none."""
    for part in key.split("."):
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def numbers(text, read=lambda source: json.loads((ROOT / source).read_text(encoding="utf-8"))):
    """The text with every marked number as its source has it."""

    def renew(match):
        shown, unit, source, key = match.groups(default="")
        value = look_up(read(source), key) * UNITS[unit]
        decimals = len(shown.partition(".")[2])
        return f"{value:,.{decimals}f}{unit}<!-- {source} {key} -->"

    return NUMBER.sub(renew, text)


def renewed(text, **options):
    """A text with everything in it that is made from results; options as those of `numbers`."""
    tables = [path.read_text(encoding="utf-8").strip() for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))]
    speeds = re.compile(r"(?<=<!-- speed -->\n).*(?=\n<!-- end -->)", re.DOTALL)
    return numbers(speeds.sub(lambda match: "\n\n".join(tables), text), **options)


def main():
    for path in (*PAGES, *sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))):
        old = path.read_text(encoding="utf-8")
        try:
            new = renewed(old)  # in a notebook, too: a comment holds nothing that JSON would write in another way
        except (OSError, KeyError, IndexError) as error:
            sys.exit(f"report: a number in {path.relative_to(ROOT)} has no source: {error}")
        if new != old:
            with atomic_write(path) as partial:
                partial.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: brought up to date")
    print("all numbers are those of their sources")


if __name__ == "__main__":
    main()
