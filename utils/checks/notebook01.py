"""Checks of notebook 01: the pipeline, the CNN, the epoch, batch normalisation, dropout."""

import copy
import functools
import itertools
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from .. import models
from .compare import STAGES, Case, Subject, network
from .framework import exercise


@exercise("01", "train_transform", raw=True, causes=[("", "The transform is called with one PIL image and must return a tensor.")])
def train_transform(transform):
    """transform: PIL image, RGB 32×32 -> float32 tensor (3, 32, 32): flip, ±15°, crop with padding 4, normalised to −1 … 1."""

    def picture(rows=slice(None), columns=slice(None)):
        image = torch.zeros(32, 32, 3, dtype=torch.uint8)
        image[rows, columns] = 255
        return Image.fromarray(image.numpy())

    first = transform(picture())
    kind = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, torch.Tensor) else type(first).__name__
    right_kind = kind == "torch.float32 (3, 32, 32)"
    yield (
        "a PIL image becomes a float32 tensor of shape (3, 32, 32)",
        right_kind,
        f"Found {kind}.\nStart with v2.ToImage() and v2.ToDtype(torch.float32, scale=True).",
    )
    if not right_kind:
        return

    def outputs(*where):
        return torch.stack([transform(picture(*where)) for _ in range(200)])[:, 0]  # (200, 32, 32), one channel

    white, half, dot = outputs(), outputs(slice(None), slice(0, 10)), outputs(slice(15, 17), slice(15, 17))
    line = outputs(slice(15, 17))
    top = white.max().item()
    black = dot.median().item()
    yield (
        "white is 1 and black is −1",
        math.isclose(top, 1, abs_tol=1e-4) and math.isclose(black, -1, abs_tol=1e-4),
        f"Found {top:.3g} and {black:.3g}.\n"
        + ("Is scale=True set, so that 255 becomes 1? " if top > 100 else "")
        + "Normalize with mean 0.5 and std 0.5 for each of the three channels.",
    )

    fill = outputs(slice(0, 0)).max().item()  # the lightest that a transform makes of a black picture
    gray = abs(fill) < 0.05
    yield (
        "the corners and edges that come in are black",
        fill < black + 0.05,
        "Normalize comes last: after it, a filling of 0 is gray." if gray else "Leave the transforms' fill at 0.",
    )
    if fill > 0.05:  # light edges would spoil what is measured next
        return

    weights = (half > half.mean()).float()
    flipped = ((weights * torch.arange(32.0)).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1) > 15.5).float().mean().item()
    yield (
        "about half of the images are flipped left to right",
        0.35 < flipped < 0.65,
        f"Found {flipped:.0%} of 200.\nUse v2.RandomHorizontalFlip(p=0.5).",
    )

    # The middle line of a picture shows by its slope how far the picture was turned.
    bright = (line - black).clamp(min=0)
    height = (bright * torch.arange(32.0)[:, None]).sum(1) / bright.sum(1).clamp(min=1e-6)  # of the line in each column
    angles = []
    for heights, there in zip(height, bright.sum(1) > 0, strict=True):
        x, y = torch.arange(32.0)[there], heights[there]
        x, y = x - x.mean(), y - y.mean()
        angles.append(math.degrees(math.atan2((x * y).sum().item(), (x * x).sum().item())))
    low, high = min(angles), max(angles)
    yield (
        "images are turned by up to 15° both ways",
        -17 < low < -11 and 11 < high < 17,
        f"Found {low:.0f}° to {high:.0f}° in 200 images.\nUse v2.RandomRotation(15).",
    )

    # The middle of a picture stays where it is when the picture is turned or flipped: it shows the shift alone.
    dots = (dot > (dot.max() + black) / 2).float()
    moved = torch.stack([(dots.sum(2 - axis) * torch.arange(32.0)).sum(1) / dots.sum((1, 2)).clamp(min=1) - 15.5 for axis in (0, 1)])
    reach = moved.abs().amax(1).round().int().tolist()
    yield (
        "images are shifted by up to 4 pixels in both directions",
        all(r == 4 for r in reach),
        f"Found up to {reach[0]} down or up and {reach[1]} to the sides.\nUse v2.RandomCrop(32, padding=4).",
    )

    steps = [type(step).__name__ for step in getattr(transform, "transforms", [])]
    order = [name for name in steps if name in ("RandomHorizontalFlip", "RandomRotation", "RandomCrop", "Normalize")]
    yield (
        "the steps come in the order flip, rotation, crop, normalisation",
        order == sorted(order, key=["RandomHorizontalFlip", "RandomRotation", "RandomCrop", "Normalize"].index),
        f"Found {', '.join(order)}.",
    )


# ---- the three networks ---------------------------------------------------------------------------------------------

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


@exercise("01", "CNN", finished=lambda: models.CNN, causes=CAUSES, ladder=CNN_LADDER)
def cnn(answer):
    """cls(num_classes=100): the CNN of notebook 01, 599,684 parameters."""
    yield from network(answer, list(_cases("CNN", models.CNN)), CNN_CLAIMS, chain_mistakes("crp"), CNN_ADVICE)


@exercise(
    "01",
    "epoch",
    raw=True,
    causes=[("", "It is called as epoch(model, loader, criterion, optimizer), and without the optimizer to evaluate.")],
)
def epoch(function):
    """function(model, loader, criterion, optimizer=None) -> (mean loss per image, share of correct predictions)."""

    class Probe(nn.Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    def reference(zero_grad):
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        losses, hits = [], 0
        for images, labels in batches:
            logits = nn.Linear.forward(model, images)
            loss = criterion(logits, labels)
            if zero_grad:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += (logits.argmax(1) == labels).sum().item()
        return model.weight, losses, hits / 10

    def close(a, b):
        return abs(a - b) < 1e-4

    modes, criterion, start = [], nn.CrossEntropyLoss(), Probe(6, 3)
    x, y = torch.randn(10, 6), torch.arange(10) % 3
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]
    model = copy.deepcopy(start).eval()
    result = function(model, batches, criterion, torch.optim.SGD(model.parameters(), 0.5))
    pair = isinstance(result, (tuple, list)) and len(result) == 2
    yield "returns two numbers, loss and accuracy", pair, f"Found {type(result).__name__}.\nEnd with: return loss, accuracy"
    if not pair:
        return
    loss, accuracy = map(float, result)
    weight, losses, hits = reference(zero_grad=True)
    yield (
        "training switches to training mode",
        bool(modes) and all(training for training, _ in modes),
        "Call model.train() when there is an optimizer: else dropout is off and batch norm does not learn its statistics.",
    )
    unchanged = torch.equal(model.weight, start.weight)
    piled_up = torch.allclose(model.weight, reference(zero_grad=False)[0], atol=1e-5)
    yield (
        "training makes one step down the gradient for each batch",
        torch.allclose(model.weight, weight, atol=1e-5),
        "The weights did not change: loss.backward(), then optimizer.step()."
        if unchanged
        else "The gradients of all batches pile up: call optimizer.zero_grad() before each backward()."
        if piled_up
        else "The weights differ from those of zero_grad(), forward, loss, backward(), step() in this order.",
    )
    mean = sum(part * len(labels) for part, (_, labels) in zip(losses, batches, strict=True)) / 10
    yield (
        "the loss is the mean over images",
        close(loss, mean),
        f"Expected {mean:.4f}, found {loss:.4f}.\n"
        + (
            "This is a sum of batch means divided by the number of images: multiply each by its batch size first."
            if close(loss, sum(losses) / 10)
            else "This is the mean over batches: the last batch is smaller and must count less."
            if close(loss, sum(losses) / 3)
            else "This is a sum: divide by the number of images."
            if close(loss, sum(losses)) or close(loss, mean * 10)
            else "Add loss.item() * len(labels) for each batch, and divide by the number of images at the end."
        ),
    )
    yield (
        "the accuracy is the share of correct predictions, from 0 to 1",
        close(accuracy, hits),
        f"Expected {hits:.4f}, found {accuracy:.4f}.\n"
        + (
            "Leave it a share: no percent."
            if close(accuracy, 100 * hits)
            else "Count (logits.argmax(1) == labels), divide by the number of images."
        ),
    )
    modes.clear()
    model.load_state_dict(start.state_dict())
    model.train()
    model.zero_grad()
    loss, accuracy = map(float, function(model, batches, criterion))
    yield (
        "evaluation leaves the weights alone",
        torch.equal(model.weight, start.weight),
        "Without an optimizer there must be no step.",
    )
    yield (
        "evaluation switches to evaluation mode",
        bool(modes) and not any(training for training, _ in modes),
        "Call model.eval() when there is no optimizer: else dropout and batch norm go on as in training.",
    )
    yield (
        "evaluation keeps no gradients",
        not any(grad for _, grad in modes),
        "Put the loop under torch.set_grad_enabled(training): without gradients it takes half the time and memory.",
    )
    logits = nn.Linear.forward(start, x)
    expected = criterion(logits, y).item(), (logits.argmax(1) == y).float().mean().item()
    yield (
        "evaluation returns loss and accuracy of all images",
        close(loss, expected[0]) and close(accuracy, expected[1]),
        f"Expected {expected[0]:.4f} and {expected[1]:.4f}, found {loss:.4f} and {accuracy:.4f}.",
    )
    modes.clear()
    function(model.eval(), batches, criterion, torch.optim.SGD(model.parameters(), 0.5))
    yield "a second training pass is in training mode again", all(t and g for t, g in modes), "Set the mode in every call."


@exercise(
    "01",
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
    "01",
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
    # A last layer that hands its input on shows what it reads: its weight is the identity, and its bias tells a drop before it from one after.
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
