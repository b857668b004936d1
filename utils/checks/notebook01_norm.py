"""Check of notebook 01: batch normalisation of one batch, by hand."""

import itertools

import torch
import torch.nn.functional as F

from .compare import close
from .framework import exercise, in_turn


def normalised(x, gamma, beta, eps=1e-5):
    """What nn.BatchNorm2d does to a batch (N, C, H, W) in training mode, with scale gamma (C) and shift beta (C)."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), correction=0, keepdim=True)
    return gamma.view(-1, 1, 1) * (x - mean) / (variance + eps).sqrt() + beta.view(-1, 1, 1)


OVER = "Each channel has a mean and a variance of its own, over all images and positions: the dimensions (0, 2, 3)."
AXES = [  # (hint, dimensions that mean and variance are taken over)
    (None, (0, 2, 3)),
    (f"Mean and variance are taken over the images only. {OVER}", (0,)),
    (f"Mean and variance are taken of each image alone (that is instance normalisation). {OVER}", (2, 3)),
    (f"Mean and variance are taken over the channels of each image (that is layer normalisation). {OVER}", (1, 2, 3)),
    (f"Mean and variance are taken over the whole batch, all channels together. {OVER}", (0, 1, 2, 3)),
    (f"Mean and variance are taken over the channels. {OVER}", (1,)),
    (f"Mean and variance are taken over the images and channels. {OVER}", (0, 1)),
    (f"The width is missing among the dimensions. {OVER}", (0, 2)),
    (f"The height is missing among the dimensions. {OVER}", (0, 3)),
]
FLAT = "has shape (C) and meets the width instead of the channels: keepdim=True keeps it at (1, C, 1, 1)."
SPREADS = [  # (hint, function(x, dimensions, eps)): what is divided by
    (None, lambda x, d, e: (x.var(d, correction=0, keepdim=True) + e).sqrt()),
    ("The variance is divided by n − 1, as Tensor.var does unless told otherwise: correction=0 divides by n.",
     lambda x, d, e: (x.var(d, keepdim=True) + e).sqrt()),
    ("eps is added to the standard deviation: it belongs under the root, to the variance.",
     lambda x, d, e: x.std(d, correction=0, keepdim=True) + e),
    ("eps is added to the standard deviation, and that is divided by n − 1: correction=0, and eps under the root, to the variance.",
     lambda x, d, e: x.std(d, keepdim=True) + e),
    ("eps is missing: without it, a channel in which all numbers are equal is divided by zero.",
     lambda x, d, e: x.std(d, correction=0, keepdim=True)),
    ("eps is missing, and the variance is divided by n − 1: correction=0, and eps under the root.", lambda x, d, e: x.std(d, keepdim=True)),
    ("It is divided by the variance: take its root.", lambda x, d, e: x.var(d, correction=0, keepdim=True) + e),
    ("It is divided by the variance, and that by n − 1: take its root, and correction=0.", lambda x, d, e: x.var(d, keepdim=True) + e),
    ("The mean is subtracted, but nothing is divided: divide by the root of variance + eps.", lambda x, d, e: 1.0),
    ("It is multiplied by the root of the variance: divide by it.", lambda x, d, e: 1 / (x.var(d, correction=0, keepdim=True) + e).sqrt()),
    (f"The variance {FLAT}", lambda x, d, e: (x.var(d, correction=0) + e).sqrt()),
    ("`eps` is always 1e-5: use the argument.", lambda x, d, e: (x.var(d, correction=0, keepdim=True) + 1e-5).sqrt()),
]  # fmt: skip
CENTRES = [  # (hint, function(x, dimensions)): what is subtracted
    (None, lambda x, d: x.mean(d, keepdim=True)),
    ("The mean isn't subtracted.", lambda x, d: 0.0),
    ("The mean is added: subtract it.", lambda x, d: -x.mean(d, keepdim=True)),
    (f"The mean {FLAT}", lambda x, d: x.mean(d)),
    ("The median is subtracted: take the mean.", lambda x, d: x.transpose(0, 1).flatten(1).median(1).values.view(-1, 1, 1)),
]
LAST = "gamma and beta meet the last dimension, the width, which has as many pixels here as there are channels: gamma.view(-1, 1, 1)."
ENDS = [  # (hint, function(normalised x, gamma, beta))
    (None, lambda x, g, b: g.view(-1, 1, 1) * x + b.view(-1, 1, 1)),
    ("gamma isn't used: multiply by it.", lambda x, g, b: x + b.view(-1, 1, 1)),
    ("beta isn't used: add it, at the end.", lambda x, g, b: g.view(-1, 1, 1) * x),
    ("gamma and beta aren't used: multiply by gamma, then add beta.", lambda x, g, b: x),
    ("gamma and beta have changed places: gamma multiplies, beta is added.", lambda x, g, b: b.view(-1, 1, 1) * x + g.view(-1, 1, 1)),
    ("beta is multiplied by gamma: add it after the multiplication.", lambda x, g, b: g.view(-1, 1, 1) * (x + b.view(-1, 1, 1))),
    ("beta is subtracted: add it.", lambda x, g, b: g.view(-1, 1, 1) * x - b.view(-1, 1, 1)),
    (LAST, lambda x, g, b: g * x + b),
]
CAUSES = [
    (
        r"must match the size of tensor|broadcast",
        "Mean and variance need keepdim=True, gamma and beta the shape (C, 1, 1): .view(-1, 1, 1).",
    ),
    (r"dim\(\) argument|received an invalid combination", "The dimensions are a tuple: x.mean((0, 2, 3), keepdim=True)."),
]


@exercise(
    "1.4",
    "normalise",
    finished=lambda: normalised,
    causes=CAUSES,
    ladder=[
        "x.mean((0, 2, 3), keepdim=True) is one mean for each channel, of shape (1, C, 1, 1), which meets x channel by channel.",
        "The variance is the mean of (x - mean) ** 2 over the same dimensions. gamma.view(-1, 1, 1) meets x channel by channel, too.",
    ],
)
def normalise(answer):
    """function(x, gamma, beta, eps=1e-5): x of shape (N, C, H, W), normalised over the batch, times gamma (C), plus beta (C)."""
    hints = {}
    for shape, options in (((8, 4, 3, 4), {}), ((5, 3, 6, 2), {}), ((2, 6, 1, 5), {}), ((8, 4, 3, 4), {"eps": 0.3})):
        x, gamma, beta = _batch(shape)
        given, right = [x.clone(), gamma.clone(), beta.clone()], normalised(x, gamma, beta, **options)
        call = f"normalise(x, gamma, beta{''.join(f', {name}={value}' for name, value in options.items())}) with x of shape {shape}"
        out = answer.run(answer.thing, *given, doing=call, **options)
        hints = _wrong(out, right, given, (x, gamma, beta), options.get("eps", 1e-5), call)
        if hints:
            break
    claims = {
        "return": "it returns a tensor",
        "input": "x, gamma and beta are left as they were",
        "shape": "the output has the shape of x, (N, C, H, W)",
        "values": "for each channel: gamma · (x − mean) / √(variance + eps) + beta, over all images and positions",
    }
    if not (yield from in_turn(claims, hints)):
        return
    x, gamma, beta = (t.requires_grad_() for t in _batch((4, 3, 2, 5)))
    out = answer.run(answer.thing, x * 1, gamma * 1, beta * 1)
    weights = torch.randn_like(out)
    found = torch.autograd.grad((out * weights).sum(), (x, gamma, beta), allow_unused=True) if out.requires_grad else (None,) * 3
    expected = torch.autograd.grad((F.batch_norm(x, None, None, gamma, beta, training=True) * weights).sum(), (x, gamma, beta))
    alike = all(
        f is not None and torch.allclose(f, e, rtol=1e-3, atol=1e-3 * e.abs().max().item()) for f, e in zip(found, expected, strict=True)
    )
    cut = "Found: a wrong gradient, or none, reaches x, gamma or beta.\n.detach(), .data, .item(), .numpy(), torch.tensor(…) and no_grad cut it off."
    yield "the gradient is that of nn.BatchNorm2d: it goes through mean and variance, too", alike, cut


def _batch(shape):
    """A batch whose channels have means and spreads of their own; the last one varies so little that eps matters."""
    channels = shape[1]
    spread = torch.linspace(3.0, 0.5, channels)
    spread[-1] = 0.004
    x = torch.randn(shape) * spread.view(-1, 1, 1) + torch.linspace(-1.0, 2.0, channels).view(-1, 1, 1)
    return x, torch.linspace(0.5, 2.0, channels), torch.linspace(1.5, -1.0, channels)


def _wrong(out, right, given, before, eps, call):
    """{claim: hint} for what is wrong with a call's result; empty if it is right."""
    if out is None:
        return {"return": "Found: it returns None.\nIts last line needs `return`."}
    if not isinstance(out, torch.Tensor):
        return {"return": f"Found: it returns a {type(out).__name__}.\nReturn one tensor."}
    for name, now, old in zip(("x", "gamma", "beta"), given, before, strict=True):
        if not torch.equal(now, old):
            return {"input": f"Found: {name} itself has other numbers after the call.\nMake a new tensor: x = x - mean, not x -= mean."}
    if out.shape != right.shape:
        return {
            "shape": f"Found: {call} gives the shape {tuple(out.shape)}.\nMean and variance need keepdim=True, "
            "gamma and beta the shape (C, 1, 1): .view(-1, 1, 1)."
        }
    if not close(out, right, 1e-4):
        return {"values": f"Found: {call} gives other numbers.\n{_mistake(out, *before, eps)}"}
    return {}


def _mistake(out, x, gamma, beta, eps):
    found = itertools.product(AXES, CENTRES, SPREADS, ENDS)
    for parts in sorted(found, key=lambda parts: sum(hint is not None for hint, _ in parts)):
        hints = [hint for hint, _ in parts if hint]
        (_, dims), (_, centre), (_, spread), (_, end) = parts
        if len(hints) > 3:
            break
        try:
            other = end((x - centre(x, dims)) / spread(x, dims, eps), gamma, beta)
        except RuntimeError:
            continue
        if other.shape == out.shape and close(out, other, 1e-4):
            return " ".join(hints)
    if not torch.isfinite(out).all():
        return "Some are NaN or infinite: is something divided by zero, or a root taken of a negative number?"
    return "Print out.mean((0, 2, 3)): it must be beta. Then out.std((0, 2, 3), correction=0): it must be gamma, but for the last channel."
