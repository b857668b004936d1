"""Checks of notebook 09: a block that is skipped, directions as long as the filters, Grad-CAM."""

import torch
import torch.nn.functional as F
from torch import nn

from .. import blocks, inside, models
from .framework import exercise
from .guard import Failed
from .matching import close


def _hooks(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules())


def _lively(module):
    """With BNs that do something, as after training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean.uniform_(-0.5, 0.5)
    return module.eval()


def _tensor(out, call, shape=None):
    if out is None:
        raise Failed("it returns a tensor", f"Found: {call} returns None.\nIts last line needs `return`.")
    if not isinstance(out, torch.Tensor):
        raise Failed("it returns a tensor", f"Found: {call} returns a {type(out).__name__}.\nReturn one tensor.")
    if shape is not None and out.shape != shape:
        raise Failed(f"the result has the shape {tuple(shape)}", f"Found: {call} gives the shape {tuple(out.shape)}.")


# ---- 9.1 ------------------------------------------------------------------------------------------------------------


def _skip(block):
    return block.register_forward_hook(lambda module, inputs, output: module.shortcut(inputs[0]))


SKIPPED = [
    ("The block still gives relu(F(x) + shortcut(x)).\nA hook changes the output only if it *returns* something.", lambda b, x: b(x)),
    (
        "The block gives F(x) alone, so its shortcut is gone instead of its layers.",
        lambda b, x: b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x))))),
    ),
    ("The block gives back its input, also where the shape changes: return module.shortcut(inputs[0]).", lambda b, x: x),
    ("The block gives zeros: its shortcut must stay.", lambda b, x: torch.zeros_like(b(x))),
    ("The shortcut is added to the block's output: give back the shortcut alone.", lambda b, x: b(x) + b.shortcut(x)),
    ("The shortcut is taken from the block's output instead of from its input.", lambda b, x: b.shortcut(b(x))),
    (
        "The shortcut is subtracted from the output, which has been through a ReLU: call module.shortcut on the input.",
        lambda b, x: b(x) - b.shortcut(x),
    ),
]


@exercise(
    "9.1",
    "skip",
    finished=lambda: _skip,
    causes=[
        (
            r"'tuple' object|must be Tensor, not tuple|received an invalid combination",
            "A forward hook gets the inputs as a *tuple*, one for each argument of forward: the image maps are inputs[0].",
        ),
        (
            r"takes \d positional arguments? but 3 were given|missing \d required positional",
            "A forward hook is called with three arguments: hook(module, inputs, output).",
        ),
        (r"RecursionError", "A hook that calls the block itself starts the hook again: call module.shortcut only."),
    ],
    ladder=[
        "`block.register_forward_hook(hook)` calls hook(module, inputs, output) after each forward pass of the block; what the hook "
        "returns takes the place of the output.",
        "return block.register_forward_hook(lambda module, inputs, output: module.shortcut(inputs[0]))",
    ],
)
def skip_block(answer):
    """function(block) -> handle: the block gives only its shortcut until handle.remove()."""
    cases = {
        "a block that keeps the shape": (blocks.BasicBlock(4, 4), (2, 4, 6, 5)),
        "a block with a projection": (blocks.BasicBlock(4, 6, 2), (2, 4, 7, 6)),
        "a block with shortcut A": (blocks.BasicBlock(4, 8, 2, shortcut="A"), (3, 4, 6, 6)),
    }
    for name, (block, shape) in cases.items():
        _lively(block)
        x = torch.randn(shape).relu()
        before, weights = block(x).detach(), [w.clone() for w in block.state_dict().values()]
        handle = answer.run(answer.thing, block, doing=f"skip(block) with {name}")
        returned = "it returns a handle, whose remove() ends it"
        if not hasattr(handle, "remove"):
            found = "None" if handle is None else f"a {type(handle).__name__}"
            raise Failed(
                returned, f"Found: skip(block) returns {found}.\nregister_forward_hook returns the handle: return it to the caller."
            )
        if isinstance(handle, nn.Module):
            raise Failed(returned, "Found: it returns a module.\nRegister a hook on the block itself, and return the handle.")
        out = answer.run(block, x, doing=f"a forward pass of {name} that is skipped")
        claim = f"{name}: it then gives shortcut(x)"
        if not isinstance(out, torch.Tensor):
            what = "A hook returns one tensor, which takes the output's place. Its `inputs` are a tuple: the image maps are inputs[0]."
            raise Failed(claim, f"Found: the block now gives a {type(out).__name__}.\n{what}")
        right = block.shortcut(x)
        if out.shape != right.shape or not (close(out, right, 1e-5) or close(out, right.relu(), 1e-5)):
            handle.remove()
            for hint, mistake in SKIPPED:
                wrong = mistake(block, x)
                if wrong.shape == out.shape and close(out, wrong, 1e-5):
                    raise Failed(claim, f"Found: {hint}")
            raise Failed(claim, "Found: it gives something else than block.shortcut(x).\nReturn module.shortcut(inputs[0]) from the hook.")
        yield claim, True, ""
        again = answer.run(block, x * 2, doing="a second forward pass")
        claim = "a second forward pass is skipped, too"
        right = block.shortcut(x * 2)
        if not (close(again, right, 1e-5) or close(again, right.relu(), 1e-5)):
            raise Failed(claim, "Found: the second pass gives something else.\nCompute the shortcut inside the hook, from its own inputs.")
        handle.remove()
        claim = "after handle.remove(), the block is as it was before"
        if not close(block(x), before, 1e-5) or _hooks(block):
            raise Failed(
                claim, "Found: the block is still changed.\nOne hook, and its own handle; leave block.forward and the layers alone."
            )
        same = all(torch.equal(a, b) for a, b in zip(weights, block.state_dict().values(), strict=True))
        if not same:
            raise Failed(claim, "Found: the block's weights have changed.\nA hook needs no change of the weights.")
    yield "a second forward pass is skipped, too", True, ""
    yield "after handle.remove(), each block is as it was before", True, ""


# ---- 9.2 ------------------------------------------------------------------------------------------------------------


def _norms(tensor):
    return tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))


def _filter_normalised(drawn, weight):
    return drawn * _norms(weight) / _norms(drawn) if weight.dim() > 1 else torch.zeros_like(weight)


NORMALISED = [
    ("The drawn numbers come back as they are.", lambda d, w: d),
    ("All filters are scaled together: each output channel has a norm of its own.", lambda d, w: d * w.norm() / d.norm()),
    ("Each filter has length 1: multiply it by the length of the network's own.", lambda d, w: d / _norms(d)),
    ("The drawn numbers are multiplied by the filters' lengths, but not divided by their own.", lambda d, w: d * _norms(w)),
    ("The fraction is upside down: times the weight's length, divided by the drawn one's.", lambda d, w: d * _norms(d) / _norms(w)),
    (
        "The sum of squares is used where the length is needed: its root is missing.",
        lambda d, w: d * _norms(w).square() / _norms(d).square(),
    ),
    (
        "The norms are taken over the wrong dimension: a filter is all weights of one *output* channel, weight[i].",
        lambda d, w: (
            d
            * w.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (w.dim() - 2))
            / d.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (w.dim() - 2))
        ),
    ),
    (
        "Each kernel has a norm of its own: a filter is all weights of one output channel, over all input channels.",
        lambda d, w: (
            d * w.flatten(2).norm(dim=2)[..., None, None] / d.flatten(2).norm(dim=2)[..., None, None]
            if w.dim() == 4
            else d * w.abs() / d.abs()
        ),
    ),
    (
        "The mean absolute value is used where the length (the root of the sum of squares) is needed.",
        lambda d, w: (
            d * w.flatten(1).abs().mean(1).view(-1, *[1] * (w.dim() - 1)) / d.flatten(1).abs().mean(1).view(-1, *[1] * (w.dim() - 1))
        ),
    ),
    ("The network's weights come back: scale the drawn numbers.", lambda d, w: w),
]


@exercise(
    "9.2",
    "filter_normalised",
    finished=lambda: _filter_normalised,
    causes=[
        (
            r"must match the size of tensor|not broadcastable|output with shape",
            "One length for each filter must meet all its weights: give the lengths the shape (out, 1, 1, 1), for instance by "
            ".view(-1, *[1] * (weight.dim() - 1)) or keepdim=True.",
        ),
        (
            r"Dimension out of range|too many indices|flatten",
            "Weights have four dimensions (convolutions), two (linear layers) or one (BN, biases): flatten(1) works from two on.",
        ),
    ],
    ladder=[
        "weight.flatten(1).norm(dim=1) gives the length of each filter. Its shape is (out), and it must meet (out, in, k, k).",
        "if weight.dim() <= 1: return torch.zeros_like(weight)\nshape = (-1, *[1] * (weight.dim() - 1))\n"
        "return drawn * weight.flatten(1).norm(dim=1).view(shape) / drawn.flatten(1).norm(dim=1).view(shape)",
    ],
)
def filter_normalised(answer):
    """function(drawn, weight): drawn, each filter as long as the weight's; zeros where the weight has one dimension."""
    claims = {
        (4, 3, 3, 3): "a convolution: each drawn filter is as long as the network's own",
        (6, 5): "a linear layer: each row is as long as the network's own",
        (5, 5, 1, 1): "a 1×1 convolution",
        (7,): "BN and biases (one dimension): zeros",
    }
    for shape, claim in claims.items():
        drawn, weight = torch.randn(shape) * 3, torch.randn(shape)
        given = drawn.clone(), weight.clone()
        call = f"filter_normalised(drawn, weight) with weights of shape {shape}"
        out = answer.run(answer.thing, *given, doing=call)
        _tensor(out, call, drawn.shape)
        if not (torch.equal(given[0], drawn) and torch.equal(given[1], weight)):
            raise Failed("drawn and weight are left as they were", "Found: the function writes into its arguments.\nMake a new tensor.")
        right = _filter_normalised(drawn, weight)
        if close(out, right, 1e-4):
            yield claim, True, ""
            continue
        if len(shape) == 1:
            raise Failed(
                claim,
                "Found: it gives other numbers than zeros.\nThe directions must not move BN and biases: return torch.zeros_like(weight).",
            )
        for hint, mistake in NORMALISED:
            if close(out, mistake(drawn, weight), 1e-4):
                raise Failed(claim, f"Found: {hint}")
        lengths = out.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
        found = "is NaN" if lengths.isnan().any() else f"is {lengths[0]:.3g} times that of the weight"
        raise Failed(claim, f"Found: the length of the first filter {found}; it should be 1.")
    yield "drawn and weight are left as they were", True, ""


# ---- 9.3 ------------------------------------------------------------------------------------------------------------


def _maps(network, layer, images, classes, score=None, weigh=None, end=None):
    """Grad-CAM with places for mistakes; its last step divides by the largest value of each map."""
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = network(images)
    handle.remove()
    chosen = (score or (lambda logits: logits.gather(1, classes[:, None]).sum()))(logits)
    (gradient,) = torch.autograd.grad(chosen, kept[0])
    maps = (weigh or (lambda g, a: (g.mean((2, 3), keepdim=True) * a).sum(1)))(gradient, kept[0].detach())
    return (end or (lambda m: _to_one(F.relu(m))))(maps).detach()


def _to_one(maps):
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


CAM = [
    ("The ReLU is missing: what speaks against the class is cut off before the map is scaled.", {"end": _to_one}),
    ("The maps are not scaled: divide each by its own largest value.", {"end": F.relu}),
    ("The maps are neither cut off at zero nor scaled.", {"end": lambda m: m}),
    (
        "All maps are divided by the largest value of all: each image has its own.",
        {"end": lambda m: F.relu(m) / F.relu(m).max()},
    ),
    (
        "The maps are stretched from their smallest to their largest value: cut them off at zero instead (ReLU), then divide by the largest.",
        {"end": lambda m: (m - m.amin((1, 2), keepdim=True)) / (m.amax((1, 2), keepdim=True) - m.amin((1, 2), keepdim=True))},
    ),
    ("The absolute value is taken: Grad-CAM takes the ReLU.", {"end": lambda m: _to_one(m.abs())}),
    (
        "The gradient is of the largest logit, not of the class that was asked for.",
        {"score": lambda logits: logits.max(1).values.sum()},
    ),
    ("The gradient is of the sum of all logits: take that of the class.", {"score": lambda logits: logits.sum()}),
    (
        "Every channel counts alike: weight it by the mean of its gradient.",
        {"weigh": lambda g, a: a.sum(1)},
    ),
    (
        "The gradient is not averaged over the map: one weight for each channel.",
        {"weigh": lambda g, a: (g * a).sum(1)},
    ),
    ("The map is the gradient's alone: it weights the activations.", {"weigh": lambda g, a: g.mean((2, 3), keepdim=True).expand_as(a).sum(1)}),
    ("The map is the gradient's alone: it weights the activations.", {"weigh": lambda g, a: g.sum(1)}),
    ("The absolute gradient is averaged: its sign says whether a channel speaks for the class.",
     {"weigh": lambda g, a: (g.abs().mean((2, 3), keepdim=True) * a).sum(1)}),
]  # fmt: skip


def _with_maps(network, layer, shape):
    """Images, and for each a class that is not the likeliest, and for which something in the image speaks and something doesn't."""
    for _ in range(100):
        images = torch.randn(shape) + 2 * torch.randn(shape[0], 3, 1, 1)
        order, found = network(images).argsort(1, descending=True)[:, 1:], []
        for rank in range(order.shape[1]):
            maps = _maps(network, layer, images, order[:, rank], end=lambda m: m)
            found.append((maps.amax((1, 2)) > 0.1 * maps.abs().amax((1, 2))) & (maps.amin((1, 2)) < 0))
        fits = torch.stack(found, 1)
        classes = order.gather(1, fits.int().argmax(1, keepdim=True))[:, 0]
        if fits.any(1).all() and (len(classes) == 1 or len(set(classes.tolist())) > 1):
            break
    return images, classes


def _cam_mistake(out, network, layer, images, classes):
    out = out.nan_to_num()  # 0 / 0 in a map of zeros
    for hint, mistake in CAM:
        if close(out, _maps(network, layer, images, classes, **mistake), 1e-4):
            return hint
    for hint, score in (
        ("The gradient is of the class's probability: take the logit, before the softmax.",
         lambda logits: logits.softmax(1).gather(1, classes[:, None]).sum()),
        ("The gradient is of the loss: take that of the class's logit.", lambda logits: F.cross_entropy(logits, classes)),
        ("The gradient is of the log-probability: take the logit, before the softmax.",
         lambda logits: logits.log_softmax(1).gather(1, classes[:, None]).sum()),
        ("The gradient is of the same class for all images: each has its own in `classes`.", lambda logits: logits[:, classes[0]].sum()),
    ):  # fmt: skip
        if close(out, _maps(network, layer, images, classes, score=score), 1e-4):
            return hint
    low, high = out.min().item(), out.max().item()
    return f"the values reach from {low:.3g} to {high:.3g}, and differ from those of the formula.\nGo through its four steps one by one."


@exercise(
    "9.3",
    "grad_cam",
    finished=lambda: inside.grad_cam,
    causes=[
        (
            r"grad can be implicitly created only for scalar outputs",
            "The gradient of one number is needed: take the sum over the images of the logits of their classes.",
        ),
        (
            r"does not require grad|does not have a grad_fn",
            "The activations were cut off from the gradient (.detach(), no_grad()) before the backward pass: keep the hook's output as it is.",
        ),
        (
            r"One of the differentiated Tensors appears to not have been used",
            "The gradient must be taken with respect to the very tensor that the hook has kept.",
        ),
    ],
    ladder=[
        "A forward hook on `layer` keeps its output. torch.autograd.grad(score, kept) gives the gradient, of the same shape.",
        "weights = gradient.mean((2, 3), keepdim=True)\nmaps = F.relu((weights * kept).sum(1))\n"
        "return maps / maps.amax((1, 2), keepdim=True)",
    ],
)
def grad_cam(answer):
    """function(network, layer, images, classes) -> (N, h, w) maps, each with largest value 1."""
    small = _lively(models.cifar_resnet(8))
    deep = _lively(models.ResNet(models.BasicBlock, (1, 1), 3, 7, "cifar", (6, 8)))
    with torch.no_grad():  # logits of both signs, far from each other
        small.head[-1].weight.normal_(0, 0.5)
        deep.head[-1].weight.normal_(0, 0.5)
    cases = {
        "the last stage of a network, three images": (small, small.stages[-1], (3, 3, 32, 32)),
        "another network, an earlier layer, images that are not square": (deep, deep.stages[0], (2, 3, 16, 12)),
        "a single image": (small, small.stages[1], (1, 3, 32, 32)),
    }
    for claim, (network, layer, shape) in cases.items():
        images, classes = _with_maps(network, layer, shape)
        given, state = images.clone(), [value.clone() for value in network.state_dict().values()]
        right = _maps(network, layer, images, classes)
        call = f"grad_cam(network, layer, images, classes) with {len(images)} image{'s' * (len(images) > 1)}"
        out = answer.run(answer.thing, network, layer, given, classes.clone(), doing=call)
        _tensor(out, call)
        squeezed = out.squeeze(1) if out.dim() == 4 and out.shape[1] == 1 else out
        if squeezed.shape == images.shape[:1] + images.shape[2:] != right.shape:
            raise Failed(
                f"the maps have the size of the layer's output: {tuple(right.shape)}",
                f"Found: {tuple(out.shape)}, the size of the images.\nLeave enlarging the maps to the plot.",
            )
        if out.shape != right.shape:
            few = " The sum goes over the channels, dimension 1." if out.dim() == 4 else ""
            raise Failed(
                f"the maps have the size of the layer's output: {tuple(right.shape)}", f"Found: {call} gives {tuple(out.shape)}.{few}"
            )
        if _hooks(network):
            raise Failed("the hook comes off again", "Found: a hook is still on the network.\nKeep the handle, and call handle.remove().")
        if not close(out, right, 1e-4):
            network.zero_grad()
            raise Failed(claim, f"Found: {_cam_mistake(out, network, layer, images, classes)}")
        same = all(torch.equal(a, b) for a, b in zip(state, network.state_dict().values(), strict=True))
        if not same or network.training:
            raise Failed(
                "the network stays as it was, in evaluation mode",
                "Found: the network's weights, statistics or mode have changed.\nGrad-CAM only looks: network.eval(), and no optimizer.",
            )
        network.zero_grad()
        yield claim, True, ""
    yield "the hook comes off again, and the network stays as it was", True, ""
