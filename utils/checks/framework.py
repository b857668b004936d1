"""What the checks of all notebooks share.

An exercise is written as a generator of (claim, holds, hint); `exercise` makes of it a function that takes a learner's answer. A hint
says what was found and, on lines of its own, what to do about it: "Found 4.\\nAppend `blocks` blocks." The first time that an answer
fails, the check shows only what was found; the next time, all of it.
"""

import functools

import torch

_tries = {}  # exercise: None once it is solved, else how many answers have failed since


def exercise(likely_cause):
    """Make a check from a generator function. likely_cause: the hint if the answer fails with an error."""

    def decorate(claims):
        name = claims.__name__

        def not_attempted():
            _tries.setdefault(name, 0)
            print(f"{name}: not attempted yet, the notebook goes on with the solution")
            return False

        @functools.wraps(claims)
        def check(answer):
            if answer is None:
                return not_attempted()
            rows = []  # (claim, None or what to say where it does not hold)
            with torch.random.fork_rng(devices=[]):  # whatever is drawn here must not shift the notebook's own draws
                torch.manual_seed(0)
                try:
                    for claim, holds, hint in claims(answer):
                        rows.append((claim, None if holds else hint))
                except NotImplementedError:
                    return not_attempted()
                except Exception as error:  # a learner's code may raise anything
                    message = " ".join(f"{type(error).__name__}: {error}".split())
                    rows.append(("runs without an error", f"Found {message}\n{likely_cause}"))
            wrong = any(hint is not None for _, hint in rows)
            print(f"{name}: " + ("the notebook goes on with the solution" if wrong else "all right, the notebook goes on with your answer"))
            hidden = False
            for claim, hint in rows:
                print(f"  {'✓' if hint is None else '✗'} {claim}")
                for line in (hint or "").splitlines():
                    if _tries.get(name) or line.startswith(("Found", "Expected")):
                        print(f"      {line}")
                    else:
                        hidden = True
            if hidden:
                print("  Not clear? Run this cell once more for a hint.")
            _tries[name] = (_tries.get(name) or 0) + 1 if wrong else None
            return not wrong

        return check

    return decorate


def progress():
    """Print which exercises of this notebook are solved."""
    solved = [name for name, tries in _tries.items() if tries is None]
    print(f"{len(solved)} of {len(_tries)} exercises solved")
    for name in _tries:
        print(f"  {'✓' if name in solved else '·'} {name}")


def inputs(model, kinds, x):
    """Run model(x); returns the output and, for each module of these kinds in order of use, (module, its input)."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, args, _: seen.append((module, args[0].detach())))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    try:
        with torch.no_grad():
            return model(x), seen
    finally:
        for hook in hooks:
            hook.remove()


def are_probabilities(out):
    """Whether each row of a network's output is a softmax, or the logarithm of one."""
    one = torch.ones(len(out))
    return torch.allclose(out.exp().sum(1), one, atol=1e-3) or torch.allclose(out.sum(1), one, atol=1e-3)


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())
