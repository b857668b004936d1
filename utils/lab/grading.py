"""What a mended program must do, whatever its style: the hidden check of the lab. It looks at behaviour alone."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from .bench import Images, Program

CLASSES = 4


def contract(mended):
    """Yields (claim, whether the program keeps it) for the Program `mended`; an error in its code goes through."""
    mended = Program(mended.design, _images(), 0, mended.parts)
    yield from _loader(mended)
    other = replace(mended.design, stem=(7, 2), blocks=tuple(n + 1 for n in mended.design.blocks))
    for design in (mended.design, other):
        yield from _network(replace(mended, design=design), Program(design, mended.images))
    yield from _blocks(mended)
    yield from _epoch(mended)
    yield from _optimizer(mended)
    yield from _fit(mended)


def _images():
    """Each image has a colour of its own, so that it can be told whatever was done to it; sorted by class."""

    def split(n, seed):
        colours = 20 + torch.rand(n, 1, 1, 3, generator=torch.Generator().manual_seed(seed)) * 200
        return colours.byte().expand(n, 16, 16, 3).contiguous(), torch.arange(n) * CLASSES // n

    return Images(split(70, 0), split(30, 1), split(30, 2), [str(number) for number in range(CLASSES)], "colours")


# ---- images ---------------------------------------------------------------------------------------------------------


def _loader(mended):
    pictures = (torch.rand(10, 16, 12, 3, generator=torch.Generator().manual_seed(3)) * 255).byte()
    labels, kept = torch.arange(10), pictures.clone()
    expected = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    make = mended.parts["Loader"]
    loader = make(pictures, labels, 4, False)
    passes = [[torch.cat(part) for part in zip(*loader, strict=True)] for _ in range(3)]
    same = all(images.shape == expected.shape and torch.allclose(images, expected, atol=1e-4) for images, _ in passes)
    yield "evaluation gives every image, from -1 to 1, in every pass", same and torch.equal(pictures, kept)
    yield "evaluation gives every label, in the same order", all(torch.equal(found, labels) for _, found in passes)

    loader = mended.loader("train")
    colours, labels = mended.images.train[0][:, 8, 8].float() / 127.5 - 1, mended.images.train[1]
    orders, fits = [], True
    for _ in range(2):
        images, found = (torch.cat(part) for part in zip(*loader, strict=True))
        distance = torch.cdist(images[:, :, 8, 8], colours)
        order = distance.argmin(1)
        fits = fits and len(images) == len(labels) and distance.amin(1).max() < 1e-3 and torch.equal(found, labels[order])
        orders.append(order)
    everything = all(len(order.unique()) == len(labels) for order in orders)
    yield "training gives every image once a pass, normalised as in evaluation, with its own label", fits and everything
    yield "training has a new order in each pass", not torch.equal(*orders)
    yield "the loader has as many batches as len() says", len(list(loader)) == len(loader)
    pictures = torch.zeros(40, 16, 16, 3, dtype=torch.uint8)
    pictures[:, :, 8:] = 255
    images = next(iter(make(pictures, torch.zeros(40, dtype=torch.int64), 40, True)))[0]
    bright = (images[:, :, 8, 13] > 0).float().mean().item()
    yield "training flips about half of the images", 0.1 < bright < 0.9


# ---- the network ----------------------------------------------------------------------------------------------------


def _called(model, x):
    """The layers with weights in the order of their use, and the output."""
    seen, kinds = [], (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m) if isinstance(m, kinds) else None)
    try:
        with torch.no_grad():
            return seen, model(x)
    finally:
        handle.remove()


def _shape(module):
    return type(module).__name__, *(tuple(p.shape) for p in module.parameters()), getattr(module, "stride", None)


def _network(mended, right):
    x = torch.randn(6, 3, 16, 16)
    mine, reference = mended.network(), right.network()
    ours, _ = _called(mine, x)
    theirs, _ = _called(reference, x)
    same = sorted(map(str, map(_shape, ours))) == sorted(map(str, map(_shape, theirs)))
    yield "the network has the layers of its description", same
    if not same:
        return
    registered = set(mine.modules())
    yield "every layer is registered", all(layer in registered for layer in ours)
    yield "every weight can be trained", all(p.requires_grad for layer in ours for p in layer.parameters())
    pairs = [(a, [b for b in theirs if _shape(b) == _shape(a)][[c for c in ours if _shape(c) == _shape(a)].index(a)]) for a in ours]
    with torch.no_grad():
        for a, b in pairs:
            for tensor in (*b.parameters(), *(buffer for buffer in b.buffers() if buffer.is_floating_point())):
                tensor.mul_(0.5 + torch.rand_like(tensor)).add_(0.05 * torch.rand_like(tensor))
            a.load_state_dict(b.state_dict())
        for mode in (False, True):
            y, kept = mine.train(mode)(x), x.clone()
            same = torch.allclose(y, reference.train(mode)(x), rtol=1e-3, atol=1e-4) and torch.equal(x, kept)
            yield f"the network computes what it should in {'training' if mode else 'evaluation'} mode", same


def _blocks(mended):
    for channels, stride, side in ((8, 2, 8), (8, 1, 16), (4, 2, 8), (4, 1, 16)):
        out = mended.parts["Block"](4, channels, stride).eval()(torch.randn(6, 4, 16, 16))
        yield f"a block from 4 to {channels} channels with stride {stride} has the right shape", out.shape == (6, channels, side, side)


# ---- training and evaluation ----------------------------------------------------------------------------------------


class _Steps:
    """A scheduler that counts its steps."""

    count = 0

    def step(self):
        self.count += 1


def _small_model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES))


def _epoch(mended):
    run = mended.parts["epoch"]
    model = _small_model()
    batches = [(torch.randn(n, 3, 8, 8), torch.randint(0, CLASSES, (n,))) for n in (8, 8, 3)]
    twin, counter = copy.deepcopy(model), _Steps()
    optimizer, other = (torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (model, twin))
    found = run(model, batches, optimizer, counter)
    twin.train()
    expected = [0.0, 0, 0]
    for images, labels in batches:
        logits = twin(images)
        loss = F.cross_entropy(logits, labels)
        other.zero_grad()
        loss.backward()
        other.step()
        expected = [a + b for a, b in zip(expected, (loss.item() * len(labels), (logits.argmax(1) == labels).sum().item(), len(labels)))]  # noqa: B905
    close = lambda a, b: abs(float(a) - float(b)) < 1e-3  # noqa: E731
    same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    yield "training makes one step down the gradient of each batch", same
    yield "the scheduler makes one step a batch", counter.count == len(batches)
    yield (
        "training reports the mean loss per image, and the accuracy",
        close(found[0], expected[0] / 19) and close(found[1], expected[1] / 19),
    )
    state = copy.deepcopy(model.state_dict())
    found = run(model, batches)
    kept = all(torch.equal(a, state[name]) for name, a in model.state_dict().items())
    yield "evaluation changes nothing in the network", kept
    model.load_state_dict(state)
    with torch.no_grad():
        logits = model.eval()(torch.cat([images for images, _ in batches]))
    labels = torch.cat([labels for _, labels in batches])
    right = close(found[0], F.cross_entropy(logits, labels)) and close(found[1], (logits.argmax(1) == labels).float().mean())
    yield "evaluation reports the mean loss per image, and the accuracy, in evaluation mode", right
    run(model, batches, torch.optim.SGD(model.parameters(), lr=0.0), None)
    yield "training is in training mode again after an evaluation", model.training


def _optimizer(mended):
    model = _small_model()
    optimizer, scheduler = mended.parts["make_optimizer"](model, 40)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    yield "the optimizer holds every parameter", held == {id(p) for p in model.parameters()}
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    yield "the learning rate rises to about 0.01, and ends near 0", 0.003 <= max(rates) <= 0.03 and rates[-1] < 0.1 * max(rates)


def _fit(mended):
    """With an epoch() that only notes what it is asked for; the test accuracy of the k-th evaluation is known."""
    train, val, test = [[(None, None)] * n for n in (5, 2, 3)]
    calls, state = [], {"test": iter((0.5, 0.9, 0.1, 0.7))}

    def noted(model, loader, optimizer=None, scheduler=None):
        name = "train" if loader is train else "val" if loader is val else "test" if loader is test else "other"
        calls.append((name, optimizer is not None, scheduler is not None))
        if name == "train" and scheduler:
            for _ in loader:
                scheduler.step()
        return (2.0, next(state["test"])) if name == "test" else (1.0, 0.4)

    counter = _Steps()
    rows, reported = mended.parts["fit"](_small_model(), train, val, test, object(), counter, 3, epoch=noted)
    used = [name for name, *_ in calls]
    yield "the test images are used once, at the end", used.count("test") == 1 and used[-1] == "test" and reported == 0.5
    in_order = [call for call in calls if call[0] != "test"] == [("train", True, True), ("val", False, False)] * 3
    yield "each epoch trains on the training images, then evaluates on the validation images", in_order
    yield "the scheduler is stepped by the epoch alone", counter.count == 15
    yield "a row for each epoch", [tuple(row) for row in rows] == [(1.0, 0.4, 1.0, 0.4)] * 3
