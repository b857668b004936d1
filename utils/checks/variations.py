"""Mistakes for compare.network, put together from single ones: what a block does in several places, each right or wrong.

axes = [[(None, torch.relu), ("The last ReLU is missing.", identity)], [(None, add), ("The shortcut is subtracted: add it.", subtract)]]
mistakes = combine(axes, lambda end, join: lambda r, x: end(join(r.main(x), r.shortcut(x))))
"""

import itertools

import torch

from .residual import OTHER_ACTIVATIONS

relu = torch.relu


def same(x):
    return x


def combine(axes, build, most=2):
    """[(hint, function)] for all choices with one to `most` mistakes, those with the fewest first. axes: lists of (hint, value), of which
    the first is right and has the hint None; build(*values) makes a function(r, x)."""
    found = []
    for count in range(1, most + 1):
        for places in itertools.combinations(range(len(axes)), count):
            for choice in itertools.product(*(axes[place][1:] for place in places)):
                wrong = dict(zip(places, choice, strict=True))
                values = [wrong.get(place, axis[0])[1] for place, axis in enumerate(axes)]
                found.append((" ".join(dict.fromkeys(hint for hint, _ in wrong.values())), build(*values)))
    return found


def other(acts, where):
    """(hint, activation) for all that could stand in a ReLU's place."""
    return [(f"{where} stands {name}: the block has a ReLU there.", act) for name, act in acts.items()]


def joins(final):
    """How residual f and shortcut s can be put together: (hint, function(f, s)). final: what the block returns, in words."""
    return [
        (None, lambda f, s: f + s),
        (f"The shortcut is not added: return {final}.", lambda f, s: f),
        ("The ReLU is applied to the residual before the addition: it can then never be negative.", lambda f, s: relu(f) + s),
        ("The shortcut is multiplied by the residual: add it.", lambda f, s: f * s),
        ("The shortcut is subtracted: add it.", lambda f, s: f - s),
        ("The residual is subtracted from the shortcut: add it.", lambda f, s: s - f),
        ("The shortcut is added twice.", lambda f, s: f + s + s),
        ("The residual is added twice.", lambda f, s: f + f + s),
        ("A ReLU stands on the shortcut: add it as it is.", lambda f, s: f + relu(s)),
        ("The mean of both paths is taken: add them.", lambda f, s: (f + s) / 2),
        ("The sum is divided by the square root of 2: add them, and leave the sum as it is.", lambda f, s: (f + s) / 2**0.5),
        ("The larger of both paths is taken: add them.", torch.maximum),
        ("The residual is added to itself, and the shortcut is left out.", lambda f, s: f + f),
        ("The shortcut alone is returned: the residual is dropped.", lambda f, s: s),
    ]


CUT = "is cut off from the gradient (.detach(), .data, no_grad)"


def cuts(parts, join):
    """(hint, function(r, x)): the right outputs, with other gradients. parts(r, x): (residual, shortcut); join(f, s): the output."""

    def cut(how):
        return lambda r, x: how(lambda y: parts(r, y), x)

    yield f"The shortcut {CUT}: it is there as the gradient's way round.", cut(lambda p, x: join(p(x)[0], p(x)[1].detach()))
    yield f"The shortcut's input {CUT}.", cut(lambda p, x: join(p(x)[0], p(x.detach())[1]))
    yield f"The main path {CUT}: its layers never learn.", cut(lambda p, x: join(p(x)[0].detach(), p(x)[1]))
    yield f"The main path's input {CUT}.", cut(lambda p, x: join(p(x.detach())[0], p(x)[1]))
    yield f"The block's input {CUT}: nothing before this block would learn.", cut(lambda p, x: join(*p(x.detach())))


__all__ = ["CUT", "OTHER_ACTIVATIONS", "combine", "cuts", "joins", "other", "relu", "same"]
