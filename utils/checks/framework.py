"""How a check is written, and what it says.

    @exercise("2.2", "zero_padding", finished=lambda: padded, ladder=["x[:, :, ::stride, ::stride] takes …"])
    def zero_padding(answer):
        "function(x, out_channels, stride): …"
        out = answer(x, 6, 2)          # errors, endless loops and printing of the learner's code are taken care of
        yield "4 → 6 channels: (2, 6, 4, 4)", out.shape == (2, 6, 4, 4), f"Found: {tuple(out.shape)}.\\nF.pad adds …"

A check is a generator of (claim, whether it holds, hint). holds=None: not looked at, since an earlier claim doesn't hold. The hint
says what was found, what it means and what to do; a tuple of hints is shown one by one: the first at once, the next by
`checks.hint("zero_padding")`, and then those of the ladder, which hold for any mistake. A check may also `raise Failed(claim, hint, …)`.
`answer` is a guard.Answer; networks are compared with a reference by compare.network (see there). `finished` gives the project's own
version, with which a notebook goes on if its solution cell was skipped; "2.2" is the exercise's number, the second argument what the
notebook calls the answer.

In a notebook, an exercise is four cells: the stub; `checks.zero_padding(zero_padding)`; the hidden solution, which begins with
`@checks.solution("zero_padding")`; and `zero_padding = checks.use("zero_padding")`, which takes the learner's answer if it passed.
"""

import inspect
import os
import sys
import textwrap
import time
from dataclasses import dataclass, field

from . import guard
from .guard import Failed
from .progress import read, update

EXERCISES = {}  # name: Exercise, in the order of the notebooks
_last = {"notebook": None}  # of the exercise that was touched last in this kernel


@dataclass(eq=False)
class Exercise:
    """A check: call it with an answer; it prints what holds, never raises, and returns whether all is well."""

    judge: callable
    number: str  # "2.1": the first exercise of notebook 02
    answer: str  # what a notebook calls it
    finished: callable = None
    ladder: tuple = ()
    causes: tuple = ()  # (pattern of an error's message, advice)
    verdict: tuple = (None, False)  # the answer that was judged last, and whether it passed
    solutions: list = field(default_factory=list)
    hints: list = field(default_factory=list)
    stale: object = None

    def __post_init__(self):
        self.__name__, self.__doc__ = self.judge.__name__, self.judge.__doc__

    @property
    def notebook(self):
        return f"{int(self.number.partition('.')[0]):02}"

    def __repr__(self):
        return f"checks.{self.__name__}({self.answer})"

    def __call__(self, answer=None):
        _last["notebook"] = self.notebook
        line = self._not_judged(answer)
        if line:
            print(f"{self.__name__}: {line}")
            return False
        rows, learner, crash = self._rows(answer)
        if crash is guard.NotAttempted:
            print(f"{self.__name__}: not attempted yet")
            return False
        passed = all(holds for _, holds, _ in rows) and not crash
        again = self.verdict[0] is answer
        self.verdict = (answer, passed)
        self._show(rows, learner, passed, crash)
        if not crash:
            self._record(passed, again)
        return passed

    def _not_judged(self, answer):
        """Why an answer is not judged, in one line; None if it is."""
        state = guard.stub(answer)
        if state is True:
            return "not attempted yet"
        if any(answer is solution for solution in self.solutions):
            return "this is the solution. To check your own answer, run its cell first, then this one."
        if answer is self.stale or (answer is self.verdict[0] and (error := _last_cell_failed())):
            self.stale = answer
            error = _last_cell_failed() or "an error"
            return f"the cell before this one ended with {error}, so {self.answer} is still your earlier answer. Mend that cell first."
        self.stale = None
        return state or None

    def _rows(self, answer):
        """(the claims, the guarded answer, what kind of error the check itself has met)."""
        learner = guard.Answer(answer, self.causes)
        rows = []
        with guard.own_random_state():
            try:
                for claim, holds, hint in self.judge(learner):
                    hints = [hint] if isinstance(hint, str) else list(hint or [])
                    rows.append((claim, None if holds is None else bool(holds), hints))
            except guard.NotAttempted:
                return rows, learner, guard.NotAttempted
            except Failed as failed:
                rows.append((failed.claim, False, list(failed.hints)))
            except Exception as error:
                return self._crashed(rows, learner, error)
        for name, now in learner.faults.items():
            if name == "seed":
                hint = f"Found: your code calls {now}(…), so that every network and every image is drawn alike from then on.\nLeave it out."
            else:
                hint = f"Found: your code leaves {name}({now}) behind, for all that comes later.\nUse it in a `with` block, or not at all."
            rows.insert(0, ("random numbers and PyTorch's settings stay as they were", False, [hint]))
        return rows, learner, None

    def _crashed(self, rows, learner, error):
        if os.environ.get("RESNET_CHECKS_RAISE"):  # the project's own tests
            raise error
        return rows, learner, f"{type(error).__name__}: {error}"

    def _show(self, rows, learner, passed, crash):
        rows = sorted(rows, key=lambda row: (row[1] is True, row[1] is None))  # what fails first, what holds next
        rows = [row for row in rows if row[1] is False] + [row for row in rows if row[1]] + [row for row in rows if row[1] is None]
        holds = sum(row[1] is True for row in rows)
        if crash:
            print(f"{self.__name__}: this answer can't be judged: the check itself failed ({crash}). That is not your mistake.")
        elif passed:
            print(f"{self.__name__}: all right, {holds} of {len(rows)} hold")
        else:
            print(f"{self.__name__}: not yet: {holds} of {len(rows)} hold")
        for claim, state, hints in rows:
            mark = {True: "✓", False: "✗", None: "·"}[state]
            lines = textwrap.wrap(f"{mark} {claim}", 100, initial_indent="  ", subsequent_indent="    ")
            for line in lines:
                print(_coloured(line) if state is False else line)
            for line in (hints[0] if state is False and hints else "").splitlines():
                print(textwrap.fill(line, 100, initial_indent="      ", subsequent_indent="      "))
        for note in learner.notes:
            print(textwrap.fill(f"Note: {note}", 100, initial_indent="  ", subsequent_indent="    "))
        if learner.printed:
            more = f", and {len(learner.printed) - 1} more lines" if len(learner.printed) > 1 else ""
            print(textwrap.shorten(f"  (Your code printed: {learner.printed[0]}", 92, placeholder=" …") + f"{more})")
        failed = [row for row in rows if row[1] is False]
        if failed:
            hints = [*failed[0][2][1:], *self.ladder]
            if hints != self.hints[: len(hints)] or not self.hints:
                self.hints = [*hints, "The solution is in the folded cell below the check: click it."]
                self.given = 0
            print(f'  Another hint: checks.hint("{self.__name__}")')
        elif passed:
            self.hints = []

    def hint(self):
        """Print the next hint."""
        if self.verdict[1]:
            print(f"{self.__name__}: solved, there is nothing to mend")
            return
        hints = self.hints or [*self.ladder, "The solution is in the folded cell below the check: click it."]
        number = min(getattr(self, "given", 0), len(hints) - 1)
        self.given = number + 1
        print(f"{self.__name__}, hint {number + 1} of {len(hints)}:")
        for line in hints[number].splitlines():
            indent = "  " + " " * (len(line) - len(line.lstrip()))
            print(textwrap.fill(line.strip(), 100, initial_indent=indent, subsequent_indent=indent))

    def _record(self, passed, again):
        now = time.strftime("%Y-%m-%dT%H:%M:%S")

        def entry(old):
            old = old or {"solved": None, "attempts": 0}
            solved = old.get("solved") or (now if passed else None)
            return {**old, "notebook": self.notebook, "solved": solved, "attempts": old.get("attempts", 0) + (not again)}

        update("exercises", self.__name__, entry)


def exercise(number, answer, finished=None, ladder=(), causes=()):
    """Make a check of a generator function; see the top of this file."""

    def decorate(judge):
        check = Exercise(judge, number, answer, finished, tuple(ladder), tuple(causes))
        EXERCISES[check.__name__] = check
        in_order = sorted(EXERCISES.items(), key=lambda item: [int(part) for part in item[1].number.split(".")])
        EXERCISES.clear()
        EXERCISES.update(in_order)
        return check

    return decorate


# ---- what notebooks call --------------------------------------------------------------------------------------------


def solution(name):
    """Decorator for a solution cell: marks a class or function as the project's solution of an exercise."""
    check = _exercise(name)

    def mark(thing):
        check.solutions.append(thing)
        return thing

    return mark


def use(name):
    """What the notebook goes on with: the learner's answer if the last one checked in this kernel passed, else the solution."""
    check = _exercise(name)
    _last["notebook"] = check.notebook
    answer, passed = check.verdict
    if passed:
        now = vars(sys.modules["__main__"]).get(check.answer)
        changed = now is not None and now is not answer and not any(now is s for s in check.solutions) and guard.stub(now) is False
        print(f"{check.answer}: your own answer" + (" as it was when it passed. It has changed since: check it again." if changed else ""))
        return answer
    if not check.solutions:
        check.solutions.append(check.finished())
    print(f"{check.answer}: the project's solution")
    return check.solutions[-1]


def hint(name):
    """Print the next hint for an exercise: each is stronger than the one before."""
    _exercise(name).hint()


def progress(notebook=None):
    """Print which exercises of this notebook (or of another: progress("03")) are solved, and what comes next."""
    entries = read()["exercises"]
    notebook = notebook or _last["notebook"] or os.environ.get("JPY_SESSION_NAME", "").rpartition("/")[2][:2]
    here = [name for name, check in EXERCISES.items() if check.notebook == notebook] or list(EXERCISES)
    solved = [name for name in here if _solved(entries, name)]
    print((f"notebook {notebook}: " if notebook else "") + f"{len(solved)} of {len(here)} exercises solved")
    for name in here:
        print(_line(entries, name))
    left = [name for name in here if name not in solved] or [name for name in EXERCISES if not _solved(entries, name)]
    if left:
        check = EXERCISES[left[0]]
        print(f"next: exercise {check.number}, {left[0]}" + (f", in notebook {check.notebook}" if check.notebook != notebook else ""))
    else:
        print("That was the last one: all exercises are solved.")


def overview():
    """Print all notebooks' exercises; what `make progress` shows."""
    entries = read()["exercises"]
    print(f"{sum(_solved(entries, name) for name in EXERCISES)} of {len(EXERCISES)} exercises solved")
    for notebook in dict.fromkeys(check.notebook for check in EXERCISES.values()):
        here = [name for name, check in EXERCISES.items() if check.notebook == notebook]
        print(f"notebook {notebook}: {sum(_solved(entries, name) for name in here)} of {len(here)}")
        for name in here:
            print(_line(entries, name))


def reset(name):
    """Forget one exercise: its attempts, and that it was solved."""
    check = _exercise(name)
    check.verdict, check.hints, check.given, check.stale = (None, False), [], 0, None
    update("exercises", check.__name__, None)
    print(f"{check.__name__}: forgotten")


def _solved(entries, name):
    return bool(entries.get(name, {}).get("solved"))


def _line(entries, name):
    entry = entries.get(name, {})
    attempts = entry.get("attempts", 0)
    times = f"{attempts} attempt{'s' * (attempts != 1)}" if attempts else "not attempted yet"
    when = f", solved on {str(entry['solved'])[:10]}" if _solved(entries, name) else ""
    return f"  {'✓' if when else '·'} {EXERCISES[name].number} {name:18} {times}{when}"


def _exercise(name):
    name = getattr(name, "__name__", name)
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}: there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


# ---- where it is shown ----------------------------------------------------------------------------------------------


def _shell():
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _coloured(line):
    """In a notebook and in a terminal, a red that is readable on white and on black; plain where a program reads the output."""
    live = getattr(_shell(), "kernel", None) is not None or sys.stdout.isatty()
    return f"\x1b[1;38;2;215;60;60m{line}\x1b[0m" if live and "NO_COLOR" not in os.environ else line


def _last_cell_failed():
    """What kind of error the cell that ran before this one ended with, or None."""
    result = getattr(_shell(), "last_execution_result", None)
    error = result and (result.error_before_exec or result.error_in_exec)
    return type(error).__name__ if error else None


def in_turn(claims, hints):
    """For a check whose claims build on each other: yield them up to the first one that has a hint; returns whether all hold.

    claims: {key: text}. hints: {key: text} of those that do not hold.
    """
    for key, claim in claims.items():
        yield claim, key not in hints, hints.get(key, "")
        if key in hints:
            return False
    return True


def takes(thing):
    """The names of a callable's parameters, or None if they are unknown."""
    try:
        return list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return None
