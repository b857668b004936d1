"""Checks of notebook 01: the pipeline, the CNN, the epoch, batch normalisation, dropout."""

import copy
import math

import torch
from PIL import Image
from torch import nn

from .framework import count_parameters, exercise, inputs


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


def _cnn_claims(cls, parameters):
    """What all variants of the CNN share; parameters: how many this one has."""
    model, x = cls().eval(), torch.randn(4, 3, 32, 32)
    logits, layers = inputs(model, (nn.Conv2d, nn.Linear), x)
    yield "four images give logits of shape (4, 100)", tuple(logits.shape) == (4, 100), f"Found {tuple(logits.shape)}."
    convs = [(module, x) for module, x in layers if isinstance(module, nn.Conv2d)]
    linears = [(module, x) for module, x in layers if isinstance(module, nn.Linear)]
    widths = [(conv.in_channels, conv.out_channels) for conv, _ in convs]
    yield "three convolutions: 3 → 16 → 32 → 64 channels", widths == [(3, 16), (16, 32), (32, 64)], f"Found {widths}."
    kernels = [conv.kernel_size for conv, _ in convs]
    yield "every kernel is 3×3", set(kernels) == {(3, 3)}, f"Found {kernels}."
    sizes = [x.shape[-1] for _, x in convs]
    yield (
        "the convolutions see 32, 16 and 8 pixels",
        sizes == [32, 16, 8],
        f'Found {sizes}. padding="same" keeps the size, and each 2×2 max-pooling halves it.',
    )
    yield (
        "a ReLU stands between each convolution and the next layer",
        all((x >= 0).all() for _, x in convs[1:] + linears[:1]),
        "Found negative numbers after a convolution.\nPut nn.ReLU() behind it.",
    )
    features = [(linear.in_features, linear.out_features) for linear, _ in linears]
    yield "two linear layers: 1024 → 512 → 100", features == [(1024, 512), (512, 100)], f"Found {features}."
    yield (
        "a ReLU stands between the two linear layers",
        len(linears) > 1 and bool((linears[-1][1] >= 0).all()),
        "Found negative numbers before the last layer.\nWithout a ReLU, two linear layers are no more than one.",
    )
    yield (
        "the output is logits: any numbers, positive or negative",
        bool((logits < 0).any()) and not torch.allclose(logits.exp().sum(1), torch.ones(4), atol=1e-3),
        "Leave ReLU and softmax off the last layer: nn.CrossEntropyLoss applies log-softmax itself.",
    )
    found = count_parameters(model)
    yield (
        f"{parameters:,} parameters",
        found == parameters,
        f"Found {found:,}, {found - parameters:+,}.\nIs a bias left out, or a layer too many?",
    )
    fewer = tuple(cls(num_classes=10)(x).shape)
    yield "num_classes=10 gives logits of shape (4, 10)", fewer == (4, 10), f"Found {fewer}.\nUse num_classes in the last layer."


CNN_CAUSE = "Follow the shape: 3×32×32 → 16×16×16 → 32×8×8 → 64×4×4 → 1024 → 512 → num_classes."


@exercise("01", "CNN", raw=True, causes=[("", CNN_CAUSE)])
def cnn(cls):
    """cls(num_classes=100): the CNN of notebook 01, 599,684 parameters."""
    yield from _cnn_claims(cls, 599_684)


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


@exercise("01", "CNNWithBatchNorm", raw=True, causes=[("", CNN_CAUSE)])
def batch_norm(cls):
    """cls(num_classes=100): the CNN with a BatchNorm2d after each convolution's ReLU, 599,908 parameters."""
    model = cls().eval()
    _, seen = inputs(model, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm), torch.randn(4, 3, 32, 32))
    kinds = [type(module).__name__ for module, _ in seen]
    yield (
        "three BatchNorm2d layers",
        kinds == ["BatchNorm2d"] * 3,
        f"Found {', '.join(kinds) or 'none'}.\nOne after each convolution's ReLU.",
    )
    widths = [x.shape[1] for _, x in seen]
    yield "for 16, 32 and 64 channels", widths == [16, 32, 64], f"Found {widths}."
    yield "each with statistics of its own", len({id(m) for m, _ in seen}) == len(seen), "The same layer is used more than once."
    yield (
        "each after the ReLU",
        all((x >= 0).all() for _, x in seen),
        "A batch norm sees negative numbers: it stands before the ReLU. That works too, and is tried further down.",
    )
    yield (
        "each keeps running means for evaluation, and learns scale and shift",
        all(getattr(m, "track_running_stats", False) and m.affine for m, _ in seen),
        "Leave track_running_stats and affine at their defaults.",
    )
    yield from _cnn_claims(cls, 599_908)


@exercise("01", "CNNWithDropout", raw=True, causes=[("", CNN_CAUSE)])
def dropout(cls):
    """cls(num_classes=100): the CNN with dropout of probability 0.5 after the first linear layer, 599,684 parameters."""
    model, x = cls(), torch.randn(64, 3, 32, 32)
    model.eval()
    calm, before = inputs(model, nn.Linear, x)
    again, _ = inputs(model, nn.Linear, x)
    yield (
        "evaluation is the same every time",
        torch.equal(calm, again),
        "Dropout stays on in evaluation: use nn.Dropout, or pass training=self.training.",
    )
    model.train()
    _, after = inputs(model, nn.Linear, x)
    yield (
        "nothing is dropped before the first linear layer",
        torch.allclose(before[0][1], after[0][1]),
        "Its input changes from run to run: dropout belongs behind the first linear layer.",
    )
    kept, dropped = before[-1][1], after[-1][1]
    alive = kept > 1e-3
    share = (dropped[alive] == 0).float().mean().item()
    yield (
        "half of the 512 numbers after the first linear layer are dropped in training",
        0.47 < share < 0.53,
        f"Found {share:.0%}.\n" + ("Put nn.Dropout(0.5) before the last linear layer." if share < 0.01 else "Use p=0.5, once."),
    )
    rest = alive & (dropped != 0)
    yield (
        "the others are doubled, so that the sum stays the same on average",
        bool(rest.any()) and torch.allclose(dropped[rest], 2 * kept[rest], rtol=1e-3),
        "nn.Dropout does that by itself.",
    )
    single = dropped[:, alive.all(0)] == 0
    yield (
        "each image has its own draw, and each number",
        single.shape[1] == 0 or 0.2 < single.float().mean(1).mean().item() < 0.8 and not (single == single[0]).all(),
        "Use nn.Dropout, not Dropout1d or Dropout2d.",
    )
    yield from _cnn_claims(cls, 599_684)
