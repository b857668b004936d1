"""A sealed case: what one sees at work, the instruments, the diagnosis, the mend."""

import copy
import difflib
import inspect
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

from .. import plots
from ..checks.progress import read, update
from . import bench, measure
from .answers import ANSWERS, HEALTHY, SUSPECTS, judge
from .grading import contract

WRONG = 10  # minutes that a wrong diagnosis costs
NEW = {"used": [], "wrong": [], "tries": 0, "diagnosed": False, "mended": False}
_demonstration = {}


class Model:
    """A trained network, sealed: it can be called, model(images (N, 3, 16, 16)) -> logits (N, classes)."""

    __slots__ = ("_call", "_text")

    def __init__(self, network, classes):
        count = sum(p.numel() for p in network.parameters())
        self._call, self._text = network.eval(), f"network with {count:,} parameters: (N, 3, 16, 16) -> (N, {classes})"

    def __call__(self, images):
        with torch.no_grad():
            return self._call(images.clone())

    def __repr__(self):
        return self._text


class Case:
    """One program with or without faults, opened by its number; `lab.case(number)` makes it."""

    def __init__(self, number, images, seed):
        self.number, self._seed = number, 100 * seed + number
        self._program = bench.Program.of_case(number, ANSWERS[number].design, images, self._seed)
        self._run = None
        if number == 0:
            _demonstration.clear()  # it is not graded, and starts anew each time

    def __repr__(self):
        return f"Case {self.number}: {self._state()}, {_minutes(self.spent)} spent"

    # ---- what is kept ----

    @property
    def _entry(self):
        kept = _demonstration if self.number == 0 else read().get("cases", {}).get(str(self.number), {})
        return NEW | kept

    def _keep(self, **changes):
        entry = self._entry | changes
        if self.number == 0:
            _demonstration.update(entry)
        else:
            update("cases", str(self.number), entry)

    def _state(self):
        entry = self._entry
        return "solved" if entry["mended"] else "diagnosed" if entry["diagnosed"] else "sealed"

    @property
    def spent(self):
        """Minutes spent so far: each instrument once, and each wrong diagnosis."""
        return cost(self._entry)

    def _say(self, text):
        print(f"case {self.number}: {text}")

    # ---- what one sees ----

    def _trained(self):
        if self._run is None:
            with bench.alone(self._seed):
                network = self._program.network()
                rows, reported = self._program.fit(network, *self._program.loaders().values())
            self._run = rows, reported, Model(network, len(self._program.images.classes))
        return self._run

    @property
    def history(self):
        """What the program reports after each epoch, as plots.curves wants it."""
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        return dict(zip(names, map(list, zip(*self._trained()[0], strict=True)), strict=True))

    @property
    def model(self):
        """The trained network, sealed."""
        return self._trained()[2]

    def curve(self):
        """Run the program, print its log, and plot its learning curve. Free of charge."""
        rows, reported, _ = self._trained()
        design, images = self._program.design, f"{len(self._program.images.train[1]):,} images"
        print(f"{design}\n{self.model}\n{images}, batches of {design.batch_size}, {design.epochs} epochs")
        for number, (train_loss, train_accuracy, val_loss, val_accuracy) in enumerate(rows, start=1):
            training = f"training loss {train_loss:.3f} accuracy {train_accuracy:.3f}"
            print(f"epoch {number} | {training} | validation loss {val_loss:.3f} accuracy {val_accuracy:.3f}")
        print(f"reported: {reported:.3f} of the test images right")
        title = f"Case {self.number}, {self._program.images.title}, {images}, seed {self._seed}"
        figure = plots.curves({"validation": self.history}, title)
        figure.set_size_inches(8, 3)
        plt.show()

    # ---- instruments: see measure.py ----

    def _measure(self, name):
        try:
            reading = measure.apply(name, self._program)
        except Exception as error:  # of a sealed program: its traceback would open it
            reading = f"the program stopped: {type(error).__name__}"
        print(reading)
        if name in self._entry["used"]:
            self._say(f"{name} has been paid for; {_minutes(self.spent)} spent")
        else:
            self._keep(used=[*self._entry["used"], name])
            self._say(f"{name} cost {_minutes(measure.COST[name])}; {_minutes(self.spent)} spent")

    # ---- diagnosis and mend ----

    def diagnose(self, suspects=None, evidence=None):
        """Name a suspect or a list of them (`lab.suspects()`), and the instruments that convinced you (a name or a list)."""
        if suspects is None:
            return self._say("not attempted yet")
        named, shown = _names(suspects), _names(evidence)
        problem = _unknown(named, SUSPECTS, "suspect") or _unknown(shown, measure.COST, "instrument")
        unused = sorted(shown - set(self._entry["used"]))
        if not problem and not (named and shown):
            problem = "name the instrument that convinced you: evidence=…"
        if not problem and "healthy" in named and len(shown) < HEALTHY:
            problem = f'no single instrument shows that nothing is wrong: "healthy" takes {HEALTHY} as evidence'
        if not problem and unused:
            problem = f"you have not used {', '.join(unused)} on this case yet"
        if problem:
            return self._say(problem)
        verdict, entry = judge(self.number, named, shown), self._entry
        if verdict == "right":
            tries = entry["tries"] if entry["diagnosed"] else entry["tries"] + 1
            self._keep(tries=tries, diagnosed=True, mended=entry["mended"] or "healthy" in named)
            return self._say(f"right, at try {tries}; {_minutes(self.spent)} spent, the least possible is {ANSWERS[self.number].best}")
        attempt = [sorted(named), sorted(shown)]
        if not entry["diagnosed"] and attempt not in entry["wrong"]:
            self._keep(tries=entry["tries"] + 1, wrong=[*entry["wrong"], attempt])
        what = "explains a part of what this case does, not all of it" if verdict == "part" else "does not explain what this case does"
        self._say(f"this diagnosis, with this evidence, {what}")
        self._say(f"a try costs {WRONG} minutes; {_minutes(self.spent)} spent")

    def open(self):
        """Print the code in question, ready to be pasted into a cell and mended; once the diagnosis is right."""
        if not self._entry["diagnosed"]:
            return self._say("sealed until the diagnosis is right")
        parts = bench.parts_of(self.number).values()
        if not parts:
            return self._say("this is `utils/lab/program.py` as it stands: nothing to mend")
        print("\n\n".join(inspect.getsource(part).rstrip() for part in parts))

    def mend(self, *parts):
        """Grade the mended functions or classes, under the names that they have in the opened code. Prints what does not hold yet."""
        parts = [part for group in parts for part in (group if isinstance(group, (list, tuple)) else [group]) if part is not None]
        if not parts:
            return self._say("not attempted yet")
        if not self._entry["diagnosed"]:
            return self._say("sealed until the diagnosis is right")
        mine = bench.parts_of(self.number)
        given = {getattr(part, "__name__", None): part for part in parts}
        if len(mine) == len(parts) == 1:
            given = dict(zip(mine, parts, strict=True))
        if set(given) - set(mine):
            return self._say(
                f"give {' and '.join(mine)}, under {'these names' if len(mine) > 1 else 'this name'}" if mine else "nothing to mend"
            )
        wrong, held = [], 0
        try:
            with bench.alone(0):
                program = bench.Program(self._program.design, self._program.images, self._seed, mine | given)
                for claim, holds in contract(program):
                    held += bool(holds)
                    wrong += [] if holds else [claim]
        except NotImplementedError:
            return self._say("not attempted yet")
        except Exception as error:  # a learner's code may raise anything
            wrong.append(" ".join(f"runs without an error; it raised {type(error).__name__}: {error}".split()))
        for claim in dict.fromkeys(wrong):
            print(f"  ✗ {claim}")
        if wrong:
            return self._say("not mended yet")
        self._keep(mended=True)
        self._say(f"mended: all {held} checks hold")

    def history_with(self, *parts):
        """The history of the program with these parts in place of its own; nothing is graded or kept."""
        again = copy.copy(self)
        again._run, again._program = (
            None,
            replace(self._program, parts=bench.parts_of(self.number) | {part.__name__: part for part in parts}),
        )
        return again.history


def cost(entry):
    return sum(measure.COST[name] for name in entry["used"]) + WRONG * len(entry["wrong"])


def _minutes(count):
    return f"{count} minute" + "s" * (count != 1)


def _names(given):
    group = given if isinstance(given, (list, tuple, set)) else [] if given is None else [given]
    return {str(getattr(one, "__name__", one)) for one in group}  # an instrument may be given itself, case3.first_loss


def _unknown(names, known, what):
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            return f"no {what} {name!r}" + (f": do you mean {close[0]!r}?" if close else f": see lab.{what}s()")


def _method(name):
    def instrument(self):
        self._measure(name)

    instrument.__name__, instrument.__doc__ = name, measure.doc(name)
    return instrument


for _name in measure.COST:
    setattr(Case, _name, _method(_name))
