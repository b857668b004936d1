"""Check of notebook 01's training loop: what it returns, and what it does to a network, compared with a loop written here."""

import copy
import math

import torch
from torch import nn

from .. import train
from .compare import close
from .framework import exercise

SIZES = (4, 4, 2)  # of the batches: the last one is smaller
RESULTS = {  # how a loss could be put together wrongly: (function(batch means, batch sizes), hint)
    "sum of means / images": (lambda m, n: sum(m) / sum(n), "This is a sum of batch means divided by the number of images: multiply each "
                              "by its batch size first, loss.item() * len(labels)."),
    "mean of means": (lambda m, n: sum(m) / len(m), "This is the mean over batches: the last batch is smaller and must count less. Add "
                      "loss.item() * len(labels), and divide by the number of images."),
    "sum": (lambda m, n: _mean(m, n) * sum(n), "This is a sum: divide by the number of images at the end."),
    "sum of means": (lambda m, n: sum(m), "This is a sum over batches: multiply each by its batch size, and divide by the number of "
                     "images."),
    "per batch": (lambda m, n: _mean(m, n) * sum(n) / len(n), "The sum over images is divided by the number of batches: divide by the "
                  "number of images."),
    "last": (lambda m, n: m[-1], "This is the value of the last batch alone: add up all batches."),
    "first": (lambda m, n: m[0], "This is the value of the first batch alone: does `return` stand inside the loop?"),
    "last / images": (lambda m, n: m[-1] * n[-1] / sum(n), "Only the last batch is counted: add with +=, and start at 0 before the loop."),
    "first / images": (lambda m, n: m[0] * n[0] / sum(n), "Only the first batch is counted: does `return` stand inside the loop?"),
    "fixed size": (lambda m, n: sum(x * n[0] for x in m) / sum(n), "Each batch is multiplied by the same size: the last one is smaller, "
                   "take len(labels)."),
    "fixed count": (lambda m, n: _mean(m, n) * sum(n) / (n[0] * len(n)), "The number of images is taken as batches × batch size: the last "
                    "batch is smaller, so add up len(labels)."),
    "last size": (lambda m, n: sum(x * n[-1] for x in m) / sum(n), "Each batch is multiplied by the size of the last one: multiply inside "
                  "the loop."),
    "by last": (lambda m, n: _mean(m, n) * sum(n) / n[-1], "The sum is divided by the size of the last batch: count the images of all."),
    "without the last": (lambda m, n: sum(a * b for a, b in zip(m[:-1], n[:-1], strict=True)) / sum(n), "The last batch is left out."),
}  # fmt: skip


def _mean(means, sizes):
    return sum(a * b for a, b in zip(means, sizes, strict=True)) / sum(sizes)


class Probe(nn.Module):
    """A small network with BN and dropout that notes how it is called."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.calls, self.log = [], []  # what happens to it, in order
        self.layers[0].weight.register_post_accumulate_grad_hook(lambda _: self.log.append("backward"))

    def __deepcopy__(self, memo):
        other = Probe()
        other.load_state_dict(self.state_dict())
        return other.train(self.training)

    def zero_grad(self, set_to_none=True):
        self.log.append("zero_grad")
        super().zero_grad(set_to_none)

    def forward(self, x):
        self.log.append("forward")
        self.calls.append((self.training and all(m.training for m in self.layers), torch.is_grad_enabled(), len(x)))
        return self.layers(x)


class Watched(torch.optim.SGD):
    """An optimizer that notes its calls beside those of the model."""

    def __init__(self, model):
        super().__init__(model.parameters(), 0.5, momentum=0.5, weight_decay=0.01)
        self.log = model.log

    def zero_grad(self, set_to_none=True):
        self.log.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self, closure=None):
        self.log.append("step")
        return super().step(closure)


class Loader:
    """Batches, and how often somebody began to go through them."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.passes += 1
        return iter([(x.clone(), y.clone()) for x, y in self.batches])


def _reference(model, batches, criterion, optimizer=None, zero=True, step="each", scale=None, after=lambda x: x, mode=None):
    """The right loop, with a place for each mistake -> (means of the batches, shares of hits)."""
    training = optimizer is not None
    model.train(training if mode is None else mode)
    losses, hits = [], []
    with torch.set_grad_enabled(training):
        for number, (x, y) in enumerate(batches):
            logits = after(model(x))
            loss = criterion(logits, y)
            if training:
                if step == "before":
                    optimizer.step()
                if zero is True or zero == "first" and number == 0:
                    optimizer.zero_grad()
                (loss * (scale(len(y), len(batches)) if scale else 1)).backward()
                if step == "each" or step == "twice":
                    optimizer.step()
                if step == "twice":
                    optimizer.step()
            losses.append(loss.item())
            hits.append((logits.argmax(1) == y).double().mean().item())
        if training and step == "end":
            optimizer.step()
    return losses, hits


LOOPS = [  # (hint, what is done differently in training)
    ("The gradients of all batches pile up: call optimizer.zero_grad() before each backward().", {"zero": False}),
    ("zero_grad() is called once only: the gradients of later batches pile up. Call it before each backward().", {"zero": "first"}),
    ("There is one step at the end of the epoch: optimizer.step() belongs into the loop, once a batch.", {"step": "end"}),
    ("There is one step at the end of the epoch, with the gradients of all batches.", {"step": "end", "zero": False}),
    ("optimizer.step() comes before loss.backward(): it then uses the gradients of the batch before.", {"step": "before"}),
    ("optimizer.step() is called twice a batch.", {"step": "twice"}),
    ("A softmax stands before the criterion: nn.CrossEntropyLoss has its own. Hand over the logits.", {"after": lambda x: x.softmax(1)}),
    ("A ReLU stands before the criterion: hand over the logits.", {"after": torch.relu}),
    ("The gradient is that of the loss times the batch size: backward() takes the mean that `criterion` gives; multiply only what is added "
     "up.", {"scale": lambda n, batches: n}),
    ("The gradient is that of the loss divided by the number of batches: backward() takes what `criterion` gives.",
     {"scale": lambda n, batches: 1 / batches}),
    ("The gradient is that of the loss divided by the batch size: backward() takes what `criterion` gives.", {"scale": lambda n, b: 1 / n}),
    ("`criterion` isn't used, but a cross-entropy of your own: use the argument.", {"criterion": nn.CrossEntropyLoss()}),
    *[("A seed is set inside: every epoch would draw the same. Leave the seed to whoever calls.", {"seed": seed}) for seed in (0, 42)],
    ("The network trains in evaluation mode: call model.train() when there is an optimizer.", {"mode": False}),
]  # fmt: skip


@exercise(
    "1.3",
    "epoch",
    finished=lambda: train.epoch,
    causes=[
        ("has no attribute 'dataset'", "Not every loader has a data set: count the images in the loop, samples += len(labels)."),
        ("NVIDIA|CUDA|cuda", "Not every computer has a GPU: move the batch where the model is, or leave it."),
        ("not implemented for|Expected floating", "The criterion takes the logits first and then the labels: criterion(logits, labels)."),
        ("modified by an inplace operation", "optimizer.step() changes weights that loss.backward() still needs: backward(), then step()."),
        ("does not require grad", "In training, gradients must be on: torch.set_grad_enabled(training), not torch.no_grad()."),
        (r"NoneType.*(zero_grad|step)|'NoneType' object has no attribute '(zero_grad|step)'",
         "Without an optimizer there is nothing to zero and no step: put these lines under `if optimizer is not None:`."),
        ("(?i)must be the same|expected floating point|Expected.*(Long|Float)|size mismatch.*target|only supports",
         "The criterion takes the logits first and then the labels: criterion(logits, labels)."),
        (r"positional argument|unexpected keyword",
         "It is called as epoch(model, loader, criterion, optimizer), and as epoch(model, loader, criterion) to evaluate."),
    ],
    ladder=[
        "Training and evaluation differ in three lines: model.train(training), torch.set_grad_enabled(training), and the three calls "
        "zero_grad(), backward(), step() under `if training:`. What is added up is the same.",
        "In the loop:\n  logits = model(images)\n  loss = criterion(logits, labels)\n  if training: zero_grad(), backward(), step()\n"
        "  loss_sum += loss.item() * len(labels)\n  correct += (logits.argmax(1) == labels).sum().item()\n"
        "  samples += len(labels)",
    ],
)  # fmt: skip
def epoch(answer):
    """function(model, loader, criterion, optimizer=None) -> (mean loss per image, share of correct predictions)."""
    x, y = torch.randn(sum(SIZES), 6), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 0, 1])
    batches = list(zip(x.split(SIZES), y.split(SIZES), strict=True))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.3)
    start = Probe()
    start.train(False)

    seeds = []

    def call(model, *optimizer, batches=batches, criterion=criterion):
        loader = Loader(batches)
        model.calls.clear(), model.log.clear()
        what = "epoch(model, loader, criterion" + (", optimizer)" if optimizer else ")")
        seeds.append(len(seeds) + 1)
        torch.manual_seed(seeds[-1])
        return answer.run(answer.thing, model, loader, criterion, *optimizer, doing=what), loader

    def right(model, *optimizer, criterion=criterion, seed=None, **different):
        torch.manual_seed(seeds[-1] if seed is None else seed)
        return _reference(model, batches, criterion, *optimizer, **different)

    # Training
    model, other = copy.deepcopy(start), copy.deepcopy(start)
    result, loader = call(model, optimizer := Watched(model))
    calls = list(model.calls)
    losses, hits = right(other, Watched(other))
    result, pair = _pair(result)
    yield "it returns two numbers, loss and accuracy", pair, _returned(result)
    if not pair:
        return
    graph = any(isinstance(value, torch.Tensor) and value.requires_grad for value in result)
    hint = (
        "Found: the loss that is returned still has its gradient.\nSo every batch's network is kept in memory: add loss.item(), a number."
    )
    yield "the results are plain numbers", not graph, hint
    seen = [size for *_, size in calls]
    hint = _passes(seen, loader)
    yield "it goes through the loader once, and calls the model once a batch", not hint, hint
    if hint:
        return
    hint = "Found: the model is in evaluation mode.\nCall model.train() when there is an optimizer: else dropout is off, and BN learns "
    hint += "no statistics."
    yield "training: the network is in training mode", all(mode for mode, *_ in calls), hint
    if not all(mode for mode, *_ in calls):
        return
    same = _same(model, other)
    rates = [group["lr"] for group in optimizer.param_groups]
    if same and rates != [0.5]:
        hint = (
            f"Found: the optimizer's learning rate was 0.5 and is {rates[0]:.3g} after an epoch.\nA schedule is not this function's task."
        )
        yield "training: the optimizer's settings stay as they are", False, hint
    yield "training: zero_grad, forward, loss, backward, step, once a batch", same, "" if same else _steps(model, start, right)
    if not same:
        return
    yield "training: the loss is the mean over images", *_compare(result[0], losses, "loss", (result, losses, hits))
    yield (
        "training: the accuracy is the share of correct predictions, from 0 to 1",
        *_compare(result[1], hits, "accuracy", (result, hits, losses)),
    )
    # Evaluation, right after training: everything has to change its mode.
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() if p.grad is not None else None for p in model.parameters()]
    result, loader = call(model)
    seen = [size for *_, size in model.calls]
    if hint := _passes(seen, loader):
        yield "evaluation: it goes through the loader once", False, hint
        return
    modes, grads = ([entry[i] for entry in model.calls] for i in (0, 1))
    hint = "Found: the model is in training mode.\nCall model.eval() when there is no optimizer: else dropout and BN go on as in training."
    yield "evaluation: the network is in evaluation mode", not any(modes), hint
    hint = "Found: gradients are on.\nPut the loop under torch.set_grad_enabled(training): that takes half the time and memory."
    yield "evaluation: nothing is kept for gradients", not any(grads), hint
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    changed += ["a gradient"] * any(
        (a is None) != (b is None) or a is not None and not torch.equal(a, b)
        for a, b in zip([p.grad for p in model.parameters()], gradients, strict=True)
    )
    hint = f"Found: {', '.join(changed[:2])} changed.\nWithout an optimizer there must be no step, no backward, and no batch statistics."
    yield "evaluation: the network stays as it was", not changed, hint
    if any(modes) or changed:
        return
    losses, hits = right(model)
    result, pair = _pair(result)
    hint = _returned(result)
    if pair:
        holds, hint = _compare(result[0], losses, "loss", (result, losses, hits))
        if holds:
            holds, hint = _compare(result[1], hits, "accuracy", (result, hits, losses))
        else:
            again, _ = _pair(call(model)[0])
            if _number(again[0]) != _number(result[0]):
                hint = "Found: two evaluations in a row give different results.\nSomething is kept from call to call: start every sum at 0."
    yield "evaluation: loss and accuracy are those of all images", pair and holds, hint
    if not (pair and holds):
        return
    # Once more, with other batches, another criterion and another optimizer.
    few = [(torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])), (torch.randn(3, 6), torch.tensor([2, 2, 0]))]
    other.load_state_dict(model.state_dict())
    plain = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]))
    result, _ = call(model, torch.optim.AdamW(model.parameters(), 0.01), batches=few, criterion=plain)
    calls = list(model.calls)
    torch.manual_seed(seeds[-1])
    losses, hits = _reference(other, few, plain, torch.optim.AdamW(other.parameters(), 0.01))
    hint = (
        "Found: after an evaluation, the network is not in training mode, or gradients are off.\nSet the mode at the start of every call."
    )
    if all(mode and grad for mode, grad, _ in calls):
        mean = _mean(losses, [5, 3])
        hint = f"Found: with another criterion, other batches and AdamW, loss {_number(result[0]):.4f}; expected {mean:.4f}.\n"
        hint += "Use the arguments, and nothing from outside: `criterion` for the loss, `optimizer` for the step; and start every sum at 0."
    good = _same(model, other) and math.isclose(_number(result[0]), _mean(losses, [5, 3]), rel_tol=1e-3)
    good = good and math.isclose(_number(result[1]), _mean(hits, [5, 3]), abs_tol=1e-4)
    yield "another call, with other batches, criterion and optimizer, is as good", good, hint


def _pair(result):
    """(the two results, True), or (what was returned, False)."""
    try:
        two = tuple(result) if not isinstance(result, (str, dict, set)) else ()
    except TypeError:
        two = ()
    good = len(two) == 2 and all(_number(value) is not None and not isinstance(value, str) for value in two)
    return (two, True) if good else (result, False)


def _number(value):
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _returned(result):
    if result is None:
        return "Found: it returns None.\nEnd with: return loss, accuracy."
    if isinstance(result, (tuple, list)):
        kinds = ", ".join(type(value).__name__ for value in result)
        return f"Found: it returns {len(result)} values ({kinds}).\nEnd with: return loss, accuracy. Both are numbers."
    return f"Found: it returns one {type(result).__name__}.\nEnd with: return loss, accuracy."


def _passes(seen, loader):
    if not seen and not loader.passes:
        return "Found: neither the model nor the loader that are handed over are used.\nUse the arguments, not variables of the notebook."
    if not seen:
        return "Found: the model that is handed over is never called.\nUse the argument `model`, not a variable of the notebook."
    if not loader.passes:
        return "Found: the loader that is handed over is never used.\nUse the argument `loader`, not a variable of the notebook."
    if loader.passes > 1:
        return f"Found: it goes through the loader {loader.passes} times.\nOne pass is enough: each costs as much as the first."
    if len(seen) == 1 and len(loader) > 1:
        return f"Found: only the first of {len(loader)} batches is used.\nDoes `return` (or `break`) stand inside the loop?"
    if len(seen) > len(loader):
        return (
            f"Found: the model is called {len(seen)} times for {len(loader)} batches.\nOnce a batch is enough: keep its output as `logits`."
        )
    if len(seen) < len(loader):
        return f"Found: the model is called for {len(seen)} of {len(loader)} batches only.\nEvery batch counts."
    if seen != [len(y) for _, y in loader.batches]:
        return f"Found: the model gets batches of {seen} images.\nHand it over as it comes from the loader."
    return ""


def _same(model, other):
    return all(close(a, b, 1e-5) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def _steps(model, start, right):
    """What was done differently in training, if the weights tell."""
    log = [entry for entry, before in zip(model.log, [None, *model.log], strict=False) if entry != before or entry != "backward"]
    batch = log[: log.index("forward", log.index("forward") + 1)] if log.count("forward") > 1 else log
    found = f"Found: for the first batch, {', '.join(batch)}.\n"
    if "backward" not in log and "step" not in log:
        return found + "loss.backward() and optimizer.step() are missing: the first computes the gradients, the second changes the weights."
    if "backward" not in log:
        return found + "loss.backward() is missing: without it, there are no gradients."
    if "step" not in log:
        if all(torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)):
            return found + "optimizer.step() is never called: the weights stay as they are."
        return found + "The weights change, but the optimizer that is handed over makes no step: use the argument `optimizer`."
    if "zero_grad" in batch and "step" in batch and batch.index("backward") < batch.index("zero_grad") < batch.index("step"):
        return found + "zero_grad() stands between backward() and step(): it erases the gradients before they are used."
    for hint, different in LOOPS:
        other = copy.deepcopy(start)
        try:
            right(other, Watched(other), **different)
        except RuntimeError:  # a step before the backward pass
            continue
        if _same(model, other):
            return f"Found: the weights after an epoch are other ones.\n{hint}"
    advice = "For each batch: zero_grad(), forward, loss = criterion(logits, labels), backward(), step(), once and in this order, and "
    return f"{found}The weights after it are other ones.\n{advice}nothing else that changes gradients or weights."


def _compare(value, parts, name, all_results):
    """(whether a result is the mean over images of `parts`, and what it seems to be instead)."""
    value, sizes = _number(value), list(SIZES)
    mean = _mean(parts, sizes)
    if math.isclose(value, mean, rel_tol=1e-4, abs_tol=1e-5):
        return True, ""
    found = f"Found: {name} {value:.4f}; expected {mean:.4f}.\n"
    result, _, others = all_results
    swapped = _number(result[1 if name == "loss" else 0])
    if math.isclose(value, _mean(others, sizes), rel_tol=1e-4) and math.isclose(swapped, mean, rel_tol=1e-4):
        return False, found + "The order is (loss, accuracy)."
    if value in {round(mean, digits) for digits in range(4)} | {int(mean)}:
        return False, found + "It is rounded: return the number itself, and round only what is printed."
    for scale, text in ((1, ""), (100, "Leave it a share from 0 to 1: no percent.")):
        if scale == 100 and math.isclose(value, 100 * mean, rel_tol=1e-3):
            return False, found + text
        for function, hint in RESULTS.values():
            if math.isclose(value, scale * function(parts, sizes), rel_tol=1e-4, abs_tol=1e-6):
                if name == "accuracy" and "len(labels)" in hint:
                    hint = (
                        "The shares of the batches are put together: add up the hits instead, (logits.argmax(1) == labels).sum().item(), "
                    )
                    hint += "and divide by the number of images at the end."
                return False, f"{found}{hint} {text}"
    if name == "accuracy":
        return False, found + "Count (logits.argmax(1) == labels).sum().item(), and divide by the number of images at the end."
    return False, found + "Add loss.item() * len(labels) for each batch, and divide by the number of images at the end."
