"""Checks of notebook 01: the CNN, with batch normalisation, with dropout. Pipeline and epoch: notebook01_transform.py, _epoch.py."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from .. import models
from .compare import STAGES, Case, Subject, network
from .framework import exercise

NUMBERS = ("first", "second", "third")
ACTIVATIONS = {"LeakyReLU": F.leaky_relu, "GELU": F.gelu, "SiLU": F.silu, "ELU": F.elu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
POOLS = [
    (None, lambda x: F.max_pool2d(x, 2)),
    ("The pooling takes the mean: the table says max-pooling, nn.MaxPool2d(2).", lambda x: F.avg_pool2d(x, 2)),
    ("The pooling windows are 3×3 and overlap: the table says 2×2, nn.MaxPool2d(2).", lambda x: F.max_pool2d(x, 3, 2, 1)),
    ("The pooling takes the maximum of one pixel only: nn.MaxPool2d(2) takes that of 2×2.", lambda x: F.max_pool2d(x, 1, 2)),
]


def _first_linear(message, shapes):
    """What goes wrong before the first linear layer, by the shape that it gets."""
    given = shapes[0] if shapes else ()
    if len(given) > 2:
        return f"The first linear layer gets {given}: flatten the images before it, x.flatten(1)."
    if len(given) == 1:
        return "flatten() makes one row of all images: x.flatten(1) keeps the first dimension, the images."
    size = math.isqrt(given[1] // 64) if len(given) == 2 else 0
    if size and size * size * 64 == given[1] and size != 4:
        why = 'Without padding="same", a convolution makes them smaller.' if size < 4 else "Three 2×2 max-poolings make 32 → 16 → 8 → 4."
        return (
            f"It gets {given[1]:,} = 64 × {size} × {size} numbers of each image: 64 channels of {size}×{size} pixels instead of 4×4. {why}"
        )
    return "Follow the shape of one image: 3×32×32 → 16×16×16 → 32×8×8 → 64×4×4 → 1024 → 512 → num_classes."


CAUSES = [(r"mat1 and mat2", _first_linear)]


def chain(r, x, order="crp", missing=(), act=torch.relu, pool=POOLS[0][1], at_end=lambda x: x, hidden=lambda x: x):
    """The CNN with the layers of r: for each convolution the steps that `order` spells (c, convolution; n, BN; r, ReLU; p, pooling).
    order may also be three of them.

    missing: numbers of the ReLUs that are left out; the fourth is the one between the linear layers.
    """
    convs, norms, linears = ([m for m in r.modules() if isinstance(m, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    for number in range(3):
        steps = {"c": convs[number], "p": pool, "r": (lambda x: x) if number in missing else act, "n": norms[number] if norms else None}
        for step in order if isinstance(order, str) else order[number]:
            x = steps[step](x)
    x = linears[0](x.flatten(1))
    return at_end(linears[1](hidden(x if 3 in missing else act(x))))


def chain_mistakes(order, orders=()):
    """(hint, function(r, x)): variations of the CNN, those with one mistake first. orders: (hint, another order of the steps)."""
    left_out = [(None, ())] + [((f"The ReLU after the {name} convolution is missing.",), (n,)) for n, name in enumerate(NUMBERS)]
    left_out += [
        (("The ReLU between the two linear layers is missing: without it, two linear layers are no more than one.",), (3,)),
        (("The ReLUs after the convolutions are missing: without them, the network could not learn more than a linear one.",), (0, 1, 2)),
        (("All ReLUs are missing: without them, the network could not learn more than a linear one.",), (0, 1, 2, 3)),
    ]
    ends = [(None, lambda x: x), ("A ReLU follows the last layer: logits may be negative, so nothing follows it.", torch.relu)]
    found = []
    for (hints, missing), (a, pool), (b, end), (c, spelt) in itertools.product(left_out, POOLS, ends, [(None, order), *orders]):
        hints = [*(hints or ()), *(hint for hint in (a, b, c) if hint)]
        if hints:
            found.append((hints, functools.partial(chain, order=spelt, missing=missing, pool=pool, at_end=end)))
    for name, act in ACTIVATIONS.items():
        found.append(([f"The activations are {name}: the table says ReLU."], functools.partial(chain, order=order, act=act)))
    found.append((["The result is divided or multiplied: nothing follows the last layer."], lambda r, x: r(x) / 2))
    return [(" ".join(hints), function) for hints, function in sorted(found, key=lambda pair: len(pair[0]))]


def _cases(name, make, orders=()):
    for arguments, keywords in (((), {}), ((10,), {}), ((), {"num_classes": 7})):
        classes = (arguments + tuple(keywords.values()) or (100,))[0]
        references = [functools.partial(make, classes)] + [functools.partial(_reordered, make, classes, order) for order in orders]
        yield Case(name, arguments, keywords, references, [(2, 3, 32, 32), (1, 3, 32, 32)])


def _reordered(make, classes, order):
    class Reordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = make(classes)

        def forward(self, x):
            return chain(self.body, x, order)

    return Reordered()


CNN_CLAIMS = {
    "runs": "it is built and called without an error: without an argument, with 10 and with num_classes=7",
    "shape": "(N, 3, 32, 32) becomes (N, num_classes), and num_classes is 100 by default",
    "layers": "three 3×3 convolutions 3 → 16 → 32 → 64, two linear layers 1024 → 512 → num_classes: 599,684 parameters",
    "order": "convolution, ReLU, 2×2 max-pooling, three times; then linear, ReLU, linear, and nothing after it",
    "training": "in training mode it does the same",
}


def _too_large(right, wrong):
    if wrong.kind == "linear" and wrong.weight.shape[1] > 1024:
        return "It reads too many numbers: each 2×2 max-pooling halves height and width, and there are three, 32 → 16 → 8 → 4."
    return "The channels go 3 → 16 → 32 → 64, and the linear layers 1024 → 512 → num_classes."


CNN_ADVICE = {
    "in": _too_large,
    "out": "The channels go 3 → 16 → 32 → 64, and the linear layers 1024 → 512 → num_classes.",
    "kernel": "All kernels are 3×3.",
    "stride": "The convolutions have stride 1: only the pooling makes the image smaller.",
    "missing": lambda step: "The table has three convolutions and two linear layers.",
    "extra": lambda step: "The table has three convolutions and two linear layers.",
}
CNN_LADDER = [
    "Write the shape of one image beside each line: 3×32×32 → 16×16×16 → 32×8×8 → 64×4×4 → 1024 → 512 → num_classes.",
    'One stage: nn.Sequential(nn.Conv2d(3, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)). Three of them, then nn.Flatten(), '
    "nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, num_classes).",
]


@exercise("1.2", "CNN", finished=lambda: models.CNN, causes=CAUSES, ladder=CNN_LADDER)
def cnn(answer):
    """cls(num_classes=100): the CNN of notebook 01, 599,684 parameters."""
    yield from network(answer, list(_cases("CNN", models.CNN)), CNN_CLAIMS, chain_mistakes("crp"), CNN_ADVICE)


@exercise(
    "1.5",
    "CNNWithBatchNorm",
    finished=lambda: functools.partial(models.CNN, batch_norm="after"),
    causes=CAUSES,
    ladder=[
        "The CNN of exercise 1.2, with one more line a stage: nn.BatchNorm2d(16), (32) and (64), each right after the stage's nn.ReLU()."
    ],
)
def batch_norm(answer):
    """cls(num_classes=100): the CNN with a BatchNorm2d after each convolution's ReLU, 599,908 parameters."""
    claims = CNN_CLAIMS | {
        "layers": "three 3×3 convolutions, three BatchNorm2d for 16, 32 and 64 channels, two linear layers: 599,908 parameters",
        "order": "convolution, ReLU, BN, 2×2 max-pooling, three times; then linear, ReLU, linear",
        "training": "in training mode each BN uses its batch, and learns its running statistics",
    }
    orders = [
        ("The BNs stand before the ReLUs. That works too, and is tried further down; here each stands after the ReLU.", "cnrp"),
        ("The BNs stand before the ReLUs, after the pooling: here each stands after the ReLU.", "cpnr"),
        ("The BNs stand before the pooling and the ReLUs: here each stands after the ReLU.", "cnpr"),
    ]
    advice = CNN_ADVICE | {
        "missing": lambda step: "One BN after the ReLU of each convolution: three." if step.kind == "norm" else CNN_ADVICE["missing"](step),
        "extra": lambda step: "One BN after the ReLU of each convolution: three." if step.kind == "norm" else CNN_ADVICE["extra"](step),
        "in": "A BN has as many channels as the convolution before it gives: 16, 32, 64.",
    }
    make = functools.partial(models.CNN, batch_norm="after")
    cases = list(_cases("CNNWithBatchNorm", make, orders=[*itertools.product(("crnp", "crpn"), repeat=3)][1:]))
    yield from network(answer, cases, claims, chain_mistakes("crnp", orders), advice)


@exercise(
    "1.6",
    "CNNWithDropout",
    finished=lambda: functools.partial(models.CNN, dropout=0.5),
    causes=CAUSES,
    ladder=[
        "The CNN of exercise 1.2, with one more line: nn.Dropout(0.5), after the ReLU of the first linear layer and before the second."
    ],
)
def dropout(answer):
    """cls(num_classes=100): the CNN with dropout of probability 0.5 after the first linear layer, 599,684 parameters."""
    claims = CNN_CLAIMS | {"order": "in evaluation nothing is dropped: the output is that of the plain CNN"}
    halved = [("In evaluation the numbers are halved. nn.Dropout doubles them in training instead, so that evaluation changes nothing.",
               lambda r, x: chain(r, x, hidden=lambda h: h / 2))]  # fmt: skip
    networks = yield from network(
        answer, list(_cases("CNNWithDropout", models.CNN)), claims, halved + chain_mistakes("crp"), CNN_ADVICE, random=True
    )
    kept = "half of the 512 numbers after the first linear layer are dropped in training, the others doubled"
    single = "each image has its own draw, each number, and each call"
    if not networks:
        yield kept, None, ""
        yield single, None, ""
        return
    # A last layer that hands its input on shows what it reads. Its bias tells a drop before it from one after it.
    wide = _network_of(answer, 512)
    pairs, reference = wide.match
    last = [m for m in reference.modules() if isinstance(m, nn.Linear)][-1]
    mine = {id(r): m for m, r in pairs}
    with torch.no_grad():
        mine[id(last.weight)].copy_(torch.eye(512).view(mine[id(last.weight)].shape))
        mine[id(last.bias)].fill_(3.0)
    x = torch.randn(40, *wide.x.shape[1:], dtype=wide.x.dtype)
    with torch.no_grad():
        calm, second = wide.call(x) - 3, wide.call(x, training=True) - 3
        first, wide.trained = wide.call(x, training=True, trace=True)
        first = first - 3
    claim = kept, *_dropped(wide, calm, first)
    yield claim
    if not claim[1]:
        yield single, None, ""
        return
    yield single, not torch.equal(first, second), f"Found: every call drops the same numbers.\n{ANEW}"


ANEW = "Use nn.Dropout(0.5): it draws anew for every number of every image, in every call."


def _network_of(answer, classes):
    """The answer's network with so many classes, matched with the reference."""
    case = Case("CNNWithDropout", (classes,), {}, [functools.partial(models.CNN, classes)], [(2, 3, 32, 32)])
    subject = Subject(answer, case)
    for stage in ("runs", "layers"):
        STAGES[stage](subject, ())
    return subject


def _dropped(subject, calm, out):
    """Whether training drops half of the numbers that the last layer reads, and a hint. Both have the last layer's bias, 3, taken off."""
    alive = calm.abs() > 1e-6
    dropped = alive & (out.abs() < 1e-9)
    share = dropped.sum().item() / alive.sum().item()
    factors = out[alive & ~dropped] / calm[alive & ~dropped]
    where = ""
    for step in subject.trained.steps:
        if "dropout" in step.kind and step.settings.get("training", True):
            where = (
                f"\n{step.describe()} reads {subject.trained.formula(step.given[0]) or 'a tensor'}, of shape {tuple(step.given[0].shape)}."
            )
    if len(factors) and (factors - factors[0]).abs().max() > 1e-3:
        if ((out[~alive] + 3).abs() < 1e-9).any():
            return False, "Found: the logits are dropped.\nDropout comes before the last layer, not after it."
        hint = "Found: training changes what the last layer reads, but not by dropping and doubling."
        return False, f"{hint}{where}\nnn.Dropout(0.5) belongs between the two linear layers, after the ReLU, and nowhere else."
    factor = factors[0].item() if len(factors) else 0.0
    parts = [torch.stack([row[on].double().mean() for row, on in zip(d, a, strict=True) if on.sum() > 9])
             for d, a in ((dropped, alive), (dropped.T, alive.T))]  # fmt: skip
    rows, columns = ((part.min() < 0.05 and part.max() > 0.95) for part in parts)
    found = f"Found: {share:.0%} are dropped, and the others are multiplied by {factor:.3g}.\n"
    if rows:
        return False, f"Found: all numbers of an image are dropped together.\n{ANEW}"
    if columns:
        return False, f"Found: the same numbers are dropped for all images.\n{ANEW}"
    if share < 0.001:
        return False, found + "Nothing is dropped in training: put nn.Dropout(0.5) before the last linear layer, and hand on its result."
    if abs(factor - 1) < 1e-3:
        return False, found + "The numbers that stay must be divided by 1 − p, here doubled. nn.Dropout does that by itself."
    if abs(share - 0.75) < 0.03:
        return False, found + "That is dropout twice: once is enough."
    right = 0.47 < share < 0.53 and abs(factor - 2) < 1e-3
    return right, found + "Use nn.Dropout(0.5), once, between the two linear layers."
