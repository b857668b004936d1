"""Sealed cases for notebook 07: programs with hidden faults, to be diagnosed by instruments and mended.

lab.prepare(dataset, seed=0)      # which images; without it, CIFAR-10
case = lab.case(3)
case.curve()                      # free of charge
case.first_loss()                 # an instrument: it costs, see lab.instruments()
case.diagnose("healthy", evidence=["first_loss", "look_at_images", "look_at_labels"])
case.open()                       # the code, once the diagnosis is right
case.mend(epoch)                  # the mended function or class
lab.score()

The sealed programs are in cases/, and the answers in answers.py: leave them closed for as long as you like.
"""

from .. import data
from ..checks.progress import read, update
from . import bench, measure
from .answers import ANSWERS, SUSPECTS
from .case import NEW, Case, cost

NUMBERS = tuple(number for number in ANSWERS if number)  # of the graded cases
INSTRUMENTS = tuple(measure.COST)
_setting = {"dataset": None, "seed": 0, "count": bench.TRAIN}


def prepare(dataset, seed=0, count=bench.TRAIN):
    """Use `count` images of this data.Dataset for all cases; another seed draws other images and other weights."""
    _setting.update(dataset=dataset, seed=seed, count=count)


def images(number=0):
    """The small images of a case, bench.Images."""
    if _setting["dataset"] is None:
        prepare(data.load("cifar10"))
    count, seed = _setting["count"], 100 * _setting["seed"] + number
    return bench.Images.of(_setting["dataset"], count, count * bench.HELD_OUT // bench.TRAIN, seed)


def case(number):
    """Open a case by its number; 0 is the demonstration, which is not graded."""
    if number not in ANSWERS:
        raise ValueError(f"no case {number!r}: there are 0 to {max(NUMBERS)}")
    return Case(number, images(number), _setting["seed"])


def suspects():
    """Print what may be wrong, and under which name."""
    _table([(repr(name), text) for name, text in SUSPECTS.items()])


def instruments():
    """Print the instruments of a case, with their cost in minutes."""
    _table([(name, f"{minutes} min", measure.doc(name)) for name, minutes in measure.COST.items()])


def score():
    """Print all cases: the diagnosis and at which try it was right, the mend, the minutes spent beside the least possible."""
    kept, rows, solved = read().get("cases", {}), [], 0
    for number in NUMBERS:
        entry = NEW | kept.get(str(number), {})
        diagnosis = f"right at try {entry['tries']}" if entry["diagnosed"] else f"{entry['tries']} wrong" if entry["tries"] else "·"
        best = ANSWERS[number].best if entry["diagnosed"] else "·"
        solved += entry["mended"]
        rows.append((f"case {number}", diagnosis, "mended" if entry["mended"] else "·", str(cost(entry)), str(best)))
    print(f"{solved} of {len(rows)} cases solved")
    _table([("", "diagnosis", "mend", "minutes", "least possible"), *rows])


def reset(number):
    """Forget what was done on a case, for a new start."""
    update("cases", str(number), NEW)


def _table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
