"""Right and wrong answers to the exercises of notebook 11."""

import random

import numpy as np
import torch

from utils import checks

# ---- shard ----------------------------------------------------------------------------------------------------------


def in_blocks(order, rank, processes):
    n = len(order)
    return order[n * rank // processes : n * (rank + 1) // processes]


def by_remainder(order, rank, processes):
    return [image for place, image in enumerate(order) if place % processes == rank]


def with_torch(order, rank, processes):
    return torch.tensor_split(torch.tensor(order), processes)[rank]


def with_numpy(order, rank, processes):
    return np.array_split(np.array(order), processes)[rank]


def step_by_step(order, rank, processes):
    part = []
    while rank < len(order):
        part.append(order[rank])
        rank += processes
    return part


def filled_up(order, rank, processes):
    missing = -len(order) % processes
    return (order + order[:missing])[rank::processes]


def remainder_lost(order, rank, processes):
    size = len(order) // processes
    return order[rank * size : (rank + 1) * size]


def remainder_to_the_last(order, rank, processes):
    size = len(order) // processes
    return order[rank * size : len(order) if rank == processes - 1 else (rank + 1) * size]


def overlapping(order, rank, processes):
    size = -(-len(order) // processes)
    return order[rank * size // 2 : rank * size // 2 + size]


def shuffles(order, rank, processes):
    random.shuffle(order)
    return order[rank::processes]


RIGHT_SHARD = {
    "every n-th": lambda order, rank, processes: order[rank::processes], "in blocks": in_blocks, "by remainder": by_remainder,
    "torch": with_torch, "numpy": with_numpy, "step by step": step_by_step,
}  # fmt: skip
WRONG_SHARD = {
    "everything": (lambda order, rank, processes: order, "every process takes the same images"),
    "first part": (lambda order, rank, processes: order[: len(order) // processes], "every process takes the same images"),
    "filled up": (filled_up, "Are the parts filled up to one length?"),
    "remainder lost": (remainder_lost, "The remainder of the division is nobody's"),
    "remainder to the last": (remainder_to_the_last, "differ by one at most"),
    "from rank 1": (lambda order, rank, processes: order[rank + 1 :: processes], "Some part is nobody's"),
    "positions": (lambda order, rank, processes: list(range(rank, len(order), processes)), "not the positions"),
    "overlapping": (overlapping, "Two parts overlap"),
    "draws": (lambda order, rank, processes: random.sample(order, len(order) // processes), "No process may draw at random"),
    "sorts": (lambda order, rank, processes: order.sort() or order[rank::processes], "has changed after the call"),
    "shuffles": (shuffles, "has changed after the call"),
    "takes out": (lambda order, rank, processes: [order.pop() for _ in range(1)], "has changed after the call"),
    "nothing": (lambda order, rank, processes: None, "Its last line needs `return`"),
    "length": (lambda order, rank, processes: len(order) // processes, "returns a int"),
    "two at a time": (lambda order, rank, processes: order[rank :: processes + 1], "nobody takes"),
}  # fmt: skip

# ---- the mean of the gradients --------------------------------------------------------------------------------------


def taught(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is not None:
            all_reduce(parameter.grad)
            parameter.grad /= processes


def divided_first(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is None:
            continue
        parameter.grad.div_(processes)
        all_reduce(parameter.grad)


def all_at_once(parameters, processes, all_reduce):
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / processes)


def new_tensor(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is not None:
            total = parameter.grad.clone()
            all_reduce(total)
            parameter.grad = total / processes


def by_data(parameters, processes, all_reduce):
    for gradient in filter(lambda g: g is not None, (parameter.grad for parameter in parameters)):
        all_reduce(gradient.data)
        gradient.data *= 1 / processes


def backwards(parameters, processes, all_reduce):
    for parameter in reversed(list(parameters)):
        if parameter.grad is not None:
            all_reduce(parameter.grad)
            torch.div(parameter.grad, processes, out=parameter.grad)


def each(what):
    """The loop as taught, with another body."""

    def answer(parameters, processes, all_reduce):
        for parameter in parameters:
            if parameter.grad is not None:
                what(parameter, processes, all_reduce)

    return answer


def then(scale):
    def body(parameter, processes, all_reduce):
        all_reduce(parameter.grad)
        parameter.grad *= scale(processes)

    return each(body)


def assigned(parameter, processes, all_reduce):
    parameter.grad = all_reduce(parameter.grad)


def copied(parameter, processes, all_reduce):
    all_reduce(parameter.grad.clone())


def divided_copy(parameter, processes, all_reduce):
    all_reduce(parameter.grad / processes)


def alone(parameter, processes, all_reduce):
    parameter.grad /= processes


def copied_and_divided(parameter, processes, all_reduce):
    all_reduce(parameter.grad.clone())
    parameter.grad /= processes


def on_weights(parameter, processes, all_reduce):
    all_reduce(parameter.data)
    parameter.data /= processes


def twice(parameter, processes, all_reduce):
    all_reduce(parameter.grad)
    all_reduce(parameter.grad)
    parameter.grad /= processes


def ends_early(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is None:
            return
        all_reduce(parameter.grad)
        parameter.grad /= processes


def first_only(parameters, processes, all_reduce):
    first = next(iter(parameters))
    all_reduce(first.grad)
    first.grad /= processes


def by_parameters(parameters, processes, all_reduce):
    for parameter in parameters:
        if parameter.grad is not None:
            all_reduce(parameter.grad)
            parameter.grad /= len(parameters)


def no_none(parameters, processes, all_reduce):
    for parameter in parameters:
        all_reduce(parameter.grad)
        parameter.grad /= processes


def makes_the_step(parameter, processes, all_reduce):
    all_reduce(parameter.grad)
    parameter.grad /= processes
    parameter.data -= 0.1 * parameter.grad


RIGHT_AVERAGE = {
    "as taught": taught, "divided first": divided_first, "all at once": all_at_once, "new tensor": new_tensor, "by data": by_data,
    "backwards": backwards,
}  # fmt: skip
WRONG_AVERAGE = {
    "sum": (then(lambda n: 1), "The sum isn't divided"),
    "twice divided": (then(lambda n: 1 / n**2), "by the number of processes twice"),
    "multiplied": (then(lambda n: n), "It is multiplied"),
    "root": (then(lambda n: n**-0.5), "divided by the root"),
    "always two": (then(lambda n: 0.5), "of 2, whatever the argument says"),
    "by the parameters": (by_parameters, "by the number of parameters"),
    "assigned": (each(assigned), "don't assign its result"),
    "copied": (each(copied), "was given a copy"),
    "divided copy": (each(divided_copy), "was given a copy"),
    "alone": (each(alone), "all_reduce is never called"),
    "copied and divided": (each(copied_and_divided), "by its own process only"),
    "weights": (each(on_weights), "the weights themselves have changed"),
    "step": (each(makes_the_step), "the weights themselves have changed"),
    "twice": (each(twice), "all_reduce is called twice"),
    "ends early": (ends_early, "must not end the loop"),
    "first only": (first_only, "gradients are not averaged"),
    "None": (no_none, "has the gradient None"),
    "nothing": (lambda parameters, processes, all_reduce: None, "all_reduce is never called"),
}  # fmt: skip

EXERCISES = {checks.shard: (RIGHT_SHARD, WRONG_SHARD), checks.average_gradients: (RIGHT_AVERAGE, WRONG_AVERAGE)}
