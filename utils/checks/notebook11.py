"""The exercises of notebook 11: one process's part of the images, and the mean of the gradients."""

import torch
from torch import nn

from .framework import exercise, in_turn


def shard_solution(order, rank, processes):
    return order[rank::processes]


def average_solution(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is not None:
            all_reduce(parameter.grad)
            parameter.grad /= processes


def _numbers(part):
    """A part as a list of plain numbers; None if it is none."""
    try:
        return [int(number) for number in part]
    except (TypeError, ValueError, RuntimeError):
        return None


def _shard_mistake(parts, order, processes):
    """(key, hint) of the first claim that does not hold; (None, "") if all do."""
    taken = [number for part in parts for number in part]
    sizes = [len(part) for part in parts]
    if set(taken) - set(order):
        strange = sorted(set(taken) - set(order))[0]
        positions = set(taken) <= set(range(len(order)))
        cause = "Return what stands at the positions, order[…], not the positions." if positions else "Take them from `order`."
        return "taken", f"Found: {strange}, which is not in `order`.\n{cause}"
    if processes > 1 and all(part == parts[0] for part in parts[1:]) and parts[0]:
        return "once", "Found: every process takes the same images.\nThe part depends on `rank`, which goes from 0 to processes − 1."
    if len(set(taken)) < len(taken):
        double = len(taken) - len(set(taken))
        ends = {parts[-1][-1]} if parts[-1] else set()
        cause = "Are the parts filled up to one length? Then some images count twice; here, parts may differ in length by one."
        if not ends & set(order[: processes - 1]) and double > processes - 1:
            cause = "Two parts overlap: with order[rank::processes] they don't. Don't draw at random: each process would draw on its own."
        return "once", f"Found: {double} image{'s are' if double > 1 else ' is'} taken twice.\n{cause}"
    missing = [number for number in order if number not in set(taken)]
    if missing:
        whole = len(order) - len(order) % processes
        cause = "Some part is nobody's: ranks go from 0 to processes − 1."
        if len(missing) == len(order) % processes and set(missing) == set(order[whole:]):
            cause = "The remainder of the division is nobody's: len(order) // processes images for each leave some over."
        return "all", f"Found: nobody takes {len(missing)} of {len(order)} images.\n{cause}"
    if max(sizes) - min(sizes) > 1:
        return (
            "even",
            f"Found: parts of {sizes} images.\nAll wait for the process that has most: their lengths should differ by one at most.",
        )
    return None, ""


@exercise(
    "11.1",
    "shard",
    finished=lambda: shard_solution,
    causes=[(r"division|integer", "Whole numbers only: // and %.")],
    ladder=["Process 0 takes the images at 0, processes, 2·processes, …; process 1 those at 1, …", "return order[rank::processes]"],
)
def shard(answer):
    """function(order, rank, processes): the part of a list of image numbers that this process takes."""
    hints = {}
    generator = torch.Generator().manual_seed(1)
    for n, processes in ((12, 2), (10, 4), (11, 3), (7, 1), (3, 5), (50, 8)):
        order = (torch.randperm(n, generator=generator) + 100).tolist()
        parts, given = [], list(order)
        for rank in range(processes):
            call = f"shard(order, {rank}, {processes}) with {n} images"
            out = answer.run(answer.thing, given, rank, processes, doing=call)
            again = answer.run(answer.thing, list(order), rank, processes, doing=call)
            part = _numbers(out)
            if out is None:
                hints = {"return": "Found: it returns None.\nIts last line needs `return`."}
            elif part is None:
                hints = {
                    "return": f"Found: it returns a {type(out).__name__}.\nReturn the numbers of the images, such as a part of `order`."
                }
            elif given != order:
                hints = {"input": "Found: `order` has changed after the call.\nAll processes need it as it is: make a new list."}
            elif _numbers(again) != part:
                hints = {"once": "Found: two calls with the same arguments give different images.\nNo process may draw at random here: "
                         "`order` is shuffled already, alike in all processes."}  # fmt: skip
            if hints:
                break
            parts.append(part)
        if not hints:
            key, hint = _shard_mistake(parts, order, processes)
            hints = {key: hint} if key else {}
        if hints:
            break
    claims = {
        "return": "it returns numbers",
        "input": "`order` is left as it was",
        "taken": "all are from `order`",
        "once": "no image is taken twice, for 1 to 8 processes",
        "all": "none is left out, whether the number of images can be divided or not",
        "even": "the parts differ in length by one at most",
    }
    yield from in_turn(claims, hints)


# ---- the mean of the gradients --------------------------------------------------------------------------------------


def _network():
    """A network with gradients, of which one layer was not used and has none."""
    layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(2, 2), nn.Linear(4, 5)])
    (layers[2](layers[0](torch.randn(6, 3)).relu()).square().sum()).backward()
    return layers


def _average_mistake(parameters, before, weights, calls, processes, factor):
    found = [(p.grad, old) for p, old in zip(parameters, before, strict=True) if old is not None]
    if any(not torch.equal(p.detach(), w) for p, w in zip(parameters, weights, strict=True)):
        return "weights", "Found: the weights themselves have changed.\nAverage parameter.grad; the optimizer makes the step afterwards."
    if any(grad is None for grad, _ in found):
        return (
            "mean",
            "Found: a gradient is None afterwards.\nall_reduce changes its tensor in place and returns nothing: don't assign its result.",
        )
    if not calls:
        return "called", "Found: all_reduce is never called.\nWithout it, no process learns of the others' gradients."
    if any(grad.shape != old.shape for grad, old in found):
        return (
            "mean",
            "Found: a gradient has another shape afterwards.\nEach number is averaged with the same number of the other processes.",
        )
    right = [old * factor / processes for _, old in found]

    def like(expected):
        return all(torch.allclose(grad, want, rtol=1e-4, atol=1e-7) for (grad, _), want in zip(found, expected, strict=True))

    if like(right):
        return None, ""
    for hint, scale in (
        ("The sum isn't divided by the number of processes: the step would be that many times too long.", factor),
        ("The gradients are as before: all_reduce was given a copy, or its result was not kept.", 1.0),
        ("Each gradient is divided, but by its own process only: the sum over all has to come into parameter.grad.", 1 / processes),
        ("It is divided by the number of processes twice.", factor / processes**2),
        ("It is multiplied with the number of processes: divide by it.", factor * processes),
        ("It is divided by the root of the number of processes: a mean is the sum divided by the number itself.", factor / processes**0.5),
        ("all_reduce is called twice for a gradient: once is enough.", factor**2 / processes),
        ("It is divided by the number of parameters: divide by the number of processes.", factor / len(parameters)),
        ("It is divided by a number of processes of 2, whatever the argument says.", factor / 2),
    ):
        if like([old * scale for _, old in found]):
            return "mean", f"Found: not the mean over all processes.\n{hint}"
    good = [torch.allclose(grad, want, rtol=1e-4, atol=1e-7) for (grad, _), want in zip(found, right, strict=True)]
    if any(good):
        where = "A parameter without a gradient must not end the loop: use `continue`." if good[0] else "Go through all parameters."
        return "mean", f"Found: {good.count(False)} of {len(good)} gradients are not averaged.\n{where}"
    return "mean", "Found: not the mean over all processes.\nFor each parameter: all_reduce(parameter.grad), then divide by `processes`."


@exercise(
    "11.2",
    "average_gradients",
    finished=lambda: average_solution,
    causes=[(r"NoneType", "A parameter that took no part has the gradient None: leave it out.")],
    ladder=[
        "all_reduce(parameter.grad) puts the sum over all processes into parameter.grad.",
        "if parameter.grad is not None:\n    all_reduce(parameter.grad)\n    parameter.grad /= processes",
    ],
)
def average_gradients(answer):
    """function(parameters, processes, all_reduce): replaces each gradient by its mean over all processes, in place."""
    hints = {}
    for processes, factor in ((3, 5.0), (2, -3.0), (4, 2.5)):
        calls = []

        def all_reduce(tensor, factor=factor, calls=calls):
            """As if the other processes had together (factor − 1) times the numbers of this one."""
            calls.append(tensor.shape)
            with torch.no_grad():
                tensor.mul_(factor)

        parameters = list(_network().parameters())
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        weights = [p.detach().clone() for p in parameters]
        answer.run(answer.thing, parameters, processes, all_reduce, doing=f"average_gradients(parameters, {processes}, all_reduce)")
        key, hint = _average_mistake(parameters, before, weights, calls, processes, factor)
        if key:
            hints = {key: hint}
            break
    claims = {
        "weights": "the weights stay as they are",
        "called": "all_reduce is called",
        "mean": "each gradient is the mean over all processes, for 2, 3 and 4 of them",
    }
    yield from in_turn(claims, hints)
