"""What the checks of all notebooks share.

An exercise is written as a generator of (claim, holds, hint); `exercise` makes of it a function that takes a learner's answer.
"""

import functools

import torch


def exercise(likely_cause):
    """Make a check from a generator function. likely_cause: the hint if the answer fails with an error."""

    def decorate(claims):
        def not_attempted():
            print(f"{claims.__name__}: not attempted yet, the notebook goes on with the solution")
            return False

        @functools.wraps(claims)
        def check(answer):
            if answer is None:
                return not_attempted()
            lines, wrong = [], 0
            with torch.random.fork_rng(devices=[]):  # whatever is drawn here must not shift the notebook's own draws
                torch.manual_seed(0)
                try:
                    for claim, holds, hint in claims(answer):
                        lines.append(f"  {'✓' if holds else '✗'} {claim}")
                        if not holds:
                            wrong += 1
                            lines.append(f"      {hint}")
                except NotImplementedError:
                    return not_attempted()
                except Exception as error:  # a learner's code may raise anything
                    wrong += 1
                    lines += ["  ✗ runs without an error", f"      {type(error).__name__}: {error}", f"      {likely_cause}"]
            verdict = "all right, the notebook goes on with your answer" if not wrong else "the notebook goes on with the solution"
            print(f"{claims.__name__}: {verdict}", *lines, sep="\n")
            return not wrong

        return check

    return decorate


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


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())
