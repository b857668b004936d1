"""Right and wrong answers to the exercises of notebook 01."""

import functools
import random

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.transforms import v2

from utils import checks, models

START = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
MIDDLE = [v2.RandomHorizontalFlip(), v2.RandomRotation(15), v2.RandomCrop(32, padding=4)]
NORMALISE = v2.Normalize([0.5] * 3, [0.5] * 3)


def replaced(position, step):
    steps = [*START, *MIDDLE, NORMALISE]
    steps[position : position + 1] = [step] if step else []
    return v2.Compose(steps)


v1 = torchvision.transforms
RIGHT_TRANSFORMS = {
    "as taught": v2.Compose([*START, *MIDDLE, NORMALISE]),
    "first version of the API": v1.Compose(
        [
            v1.RandomHorizontalFlip(),
            v1.RandomRotation(15),
            v1.RandomCrop(32, padding=4),
            v1.ToTensor(),
            v1.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    ),
    "nn.Sequential behind a function": lambda image: nn.Sequential(*START[1:], *MIDDLE, NORMALISE)(v2.functional.to_image(image)),
    "affine instead of rotation": replaced(3, v2.RandomAffine(degrees=15)),
    "arithmetic instead of Normalize": replaced(5, v2.Lambda(lambda x: x * 2 - 1)),
}
WRONG_TRANSFORMS = {
    "nothing": (v2.Compose([v2.Identity()]), "Start with v2.ToImage()"),
    "no ToDtype": (v2.Compose([v2.ToImage(), *MIDDLE]), "v2.ToDtype(torch.float32, scale=True) makes floats"),
    "no scale": (replaced(1, v2.ToDtype(torch.float32)), "scale=True"),
    "no normalisation": (replaced(5, None), "mean 0.5 and std 0.5"),
    "no flip": (replaced(2, None), "RandomHorizontalFlip(p=0.5)"),
    "vertical flip": (replaced(2, v2.RandomVerticalFlip()), "never upside down"),
    "always flipped": (replaced(2, v2.RandomHorizontalFlip(1)), "Found: 100% of 300"),
    "no rotation": (replaced(3, None), "RandomRotation(15)"),
    "rotation by 45": (replaced(3, v2.RandomRotation(45)), "RandomRotation(15)"),
    "rotation one way": (replaced(3, v2.RandomRotation((0, 15))), "RandomRotation(15)"),
    "no padding": (replaced(4, v2.RandomCrop(32)), "RandomCrop(32, padding=4)"),
    "padding 2": (replaced(4, v2.RandomCrop(32, padding=2)), "-2 to +2 pixels sideways"),
    "center crop": (replaced(4, v2.CenterCrop(32)), "RandomCrop(32, padding=4)"),
    "crop of 28": (replaced(4, v2.RandomCrop(28)), "Found: torch.float32 (3, 28, 28)"),
    "normalised first": (v2.Compose([*START, NORMALISE, *MIDDLE]), "Normalize comes last"),
    "white filling": (replaced(4, v2.RandomCrop(32, padding=4, fill=1)), "fill"),
    "crop before rotation": (v2.Compose([*START, MIDDLE[0], MIDDLE[2], MIDDLE[1], NORMALISE]), "Rotation comes before the crop"),
    "wrong type": ([*START, NORMALISE], "v2.Compose([...]) makes one transform of it"),
}


def cnn(widths=(16, 32, 64), kernel=3, hidden=512, relus=True, last_relu=True, tail=(), pool=nn.MaxPool2d, norm=None, drop=None, bias=True):
    """A class like the CNN, with one thing or another done differently."""

    class Answer(nn.Sequential):
        def __init__(self, num_classes=100):
            layers, before = [], 3
            for width in widths:
                block = [nn.Conv2d(before, width, kernel, padding="same", bias=bias), *[nn.ReLU()] * relus]
                layers += (norm(block, width) if norm else block) + [pool(2)]
                before = width
            layers += [nn.Flatten(), nn.LazyLinear(hidden), *[nn.ReLU()] * last_relu, nn.LazyLinear(num_classes), *tail]
            super().__init__(*(drop(layers) if drop else layers))

    return Answer


class Functional(nn.Module):
    def __init__(self, num_classes=100, norm=False):
        super().__init__()
        widths = (3, 16, 32, 64)
        self.c = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        self.n = nn.ModuleList(nn.BatchNorm2d(b) if norm else nn.Identity() for b in widths[1:])
        self.hidden, self.out = nn.Linear(1024, 512), nn.Linear(512, num_classes)

    def forward(self, x, drop=0.0):
        for conv, norm in zip(self.c, self.n, strict=True):
            x = F.max_pool2d(norm(F.relu(conv(x))), 2)
        x = F.dropout(torch.relu(self.hidden(x.flatten(1))), drop, self.training)
        return self.out(x)


class FixedClasses(Functional):
    def __init__(self, num_classes=100):
        super().__init__(100)


class PoolFirst(Functional):
    def forward(self, x):
        for conv in self.c:
            x = F.max_pool2d(conv(x), 2).clamp(min=0)
        return self.out(F.relu(self.hidden(x.view(-1, 1024))))


class NotWritten(nn.Module):
    def __init__(self, num_classes=100):
        super().__init__()
        raise NotImplementedError


RIGHT_CNNS = {"the shared one": models.CNN, "sequential, lazy": cnn(), "functional": Functional, "pooling before the ReLU": PoolFirst}
WRONG_CNNS = {
    "no pooling": (cnn(pool=nn.Identity), "each 2×2 max-pooling halves height and width"),
    "widths": (cnn(widths=(32, 64, 128)), "a 3×3 convolution 3 → 32, padding same, with bias; expected 3×3 convolution 3 → 16"),
    "two convolutions": (cnn(widths=(16, 32)), "expected 3×3 convolution 32 → 64"),
    "kernel": (cnn(kernel=5), "All kernels are 3×3"),
    "no ReLU after convolutions": (cnn(relus=False), "The ReLUs after the convolutions are missing"),
    "no ReLU between the linear layers": (cnn(last_relu=False), "two linear layers are no more than one"),
    "hidden width": (cnn(hidden=256), "linear layer 1024 → 256; expected linear layer 1024 → 512"),
    "softmax": (cnn(tail=(nn.Softmax(1),)), "A softmax follows at the end"),
    "log-softmax": (cnn(tail=(nn.LogSoftmax(1),)), "A log-softmax follows at the end"),
    "ReLU on the logits": (cnn(tail=(nn.ReLU(),)), "A ReLU follows the last layer"),
    "no bias": (cnn(bias=False), "Leave `bias` at its default"),
    "num_classes ignored": (FixedClasses, "the last layer must take it from the argument"),
    "no argument": (lambda: Functional(), "TypeError"),
    "an instance": (Functional(), "Hand over the class itself"),
}


def norm_after(block, width):
    return [*block, nn.BatchNorm2d(width)]


RIGHT_NORMS = {
    "the shared one": functools.partial(models.CNN, batch_norm="after"),
    "sequential": cnn(norm=norm_after),
    "functional": functools.partial(Functional, norm=True),
    "after the pooling": cnn(norm=lambda block, width: [*block, nn.MaxPool2d(2), nn.BatchNorm2d(width)], pool=nn.Identity),
}
shared = nn.BatchNorm2d(16)
WRONG_NORMS = {
    "none": (models.CNN, "No BN reads what `conv[0]`"),
    "before the ReLU": (functools.partial(models.CNN, batch_norm="before"), "The BNs stand before the ReLUs"),
    "before the convolution": (
        cnn(norm=lambda block, width: [nn.BatchNorm2d(block[0].in_channels), *block]),
        "A BN has as many channels as the convolution before it gives",
    ),
    "group norm": (cnn(norm=lambda block, width: [*block, nn.GroupNorm(4, width)]), "has a group norm layer"),
    "only one": (
        cnn(norm=lambda block, width: [*block, *[nn.BatchNorm2d(width)] * (width == 16)]),
        "there is no BatchNorm2d(32); BatchNorm2d(64)",
    ),
    "one for all": (cnn(norm=lambda block, width: [*block, shared], widths=(16, 16, 16)), "exist once for all"),
    "no running means": (
        cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(width, track_running_stats=False)]),
        "depends on the other images of its batch",
    ),
    "no scale": (cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(width, affine=False)]), "Leave `affine` at its default"),
    "wrong width": (cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(32)]), "made for 32 channels gets 16"),
}


def drop_at(position, layer):
    return cnn(drop=lambda layers: [*layers[:position], layer, *layers[position:]])


class FunctionalDropout(Functional):
    def forward(self, x):
        return super().forward(x, 0.5)


class AlwaysOn(Functional):
    def forward(self, x):
        x = nn.Sequential(*(m for conv in self.c for m in (conv, nn.ReLU(), nn.MaxPool2d(2))), nn.Flatten(), self.hidden, nn.ReLU())(x)
        return self.out(F.dropout(x, 0.5))


RIGHT_DROPOUTS = {
    "the shared one": functools.partial(models.CNN, dropout=0.5),
    "sequential": drop_at(-1, nn.Dropout()),
    "before the ReLU": drop_at(-2, nn.Dropout(0.5)),
    "functional": FunctionalDropout,
}
WRONG_DROPOUTS = {
    "none": (models.CNN, "put nn.Dropout(0.5) before the last linear layer"),
    "p = 0.2": (drop_at(-1, nn.Dropout(0.2)), "Use nn.Dropout(0.5), once"),
    "twice": (cnn(drop=lambda layers: [*layers[:-2], nn.Dropout(), layers[-2], nn.Dropout(), layers[-1]]), "That is dropout twice"),
    "on in evaluation": (AlwaysOn, "dropout still drops"),
    "before the first linear layer": (drop_at(-3, nn.Dropout()), "of shape (40, 1024)"),
    "after the first convolution": (drop_at(2, nn.Dropout2d()), "dropout2d with p=0.5 reads relu("),
    "on the logits": (cnn(tail=(nn.Dropout(),)), "the logits are dropped"),
    "alpha dropout": (drop_at(-1, nn.AlphaDropout(0.5)), "not by dropping and doubling"),
    "batch norm kept": (
        cnn(norm=norm_after, drop=lambda layers: [*layers[:-1], nn.Dropout(), layers[-1]]),
        "BatchNorm2d(16); BatchNorm2d(32); BatchNorm2d(64) too many",
    ),
}


def loop(
    mode=True, zero=True, step=True, grad=True, weight=True, share=1, divide="samples", eval_step=False, order="after", result=tuple
):  # every argument is one thing done differently
    def epoch(model, loader, criterion, optimizer=None):
        if mode:
            model.train(optimizer is not None if mode is True else mode == "train")
        total = hits = samples = batches = 0
        with torch.set_grad_enabled(optimizer is not None or not grad):
            for x, y in loader:
                logits = model(x)
                loss = criterion(logits, y)
                if optimizer and step:
                    if order == "step first":
                        optimizer.step()
                    if zero:
                        optimizer.zero_grad()
                    loss.backward()
                    if order == "after":
                        optimizer.step()
                if optimizer is None and eval_step:
                    with torch.no_grad():
                        next(model.parameters()).mul_(0.9)
                total += loss.item() * (len(y) if weight else 1)
                hits += (logits.argmax(1) == y).sum().item()
                samples, batches = samples + len(y), batches + 1
        return result((total / {"samples": samples, "batches": batches, "nothing": 1}[divide], share * hits / samples))

    return epoch


def with_no_grad(model, loader, criterion, optimizer=None):
    """Two branches, tensors as results, gradients cleared after the step."""
    (model.eval if optimizer is None else model.train)()
    losses, hits = [], []
    for x, y in loader:
        if optimizer:
            logits = model(x)
            criterion(logits, y).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        else:
            with torch.inference_mode():
                logits = model(x)
        losses.append(criterion(logits.detach(), y) * len(y))
        hits.append(logits.argmax(-1).eq(y))
    return sum(losses) / len(torch.cat(hits)), torch.cat(hits).double().mean()


RIGHT_EPOCHS = {
    "as taught": loop(),
    "tensors, no_grad": with_no_grad,
    "a list": loop(result=list),
    "losses of sums": lambda m, loader, c, o=None: (
        loop(weight=False, divide="samples")(m, loader, lambda a, b: c(a, b) * len(b), o) if o is None else loop()(m, loader, c, o)
    ),
}
WRONG_EPOCHS = {
    "sum of batch means over samples": (loop(weight=False), "sum of batch means divided by the number of images"),
    "mean over batches": (loop(weight=False, divide="batches"), "the last batch is smaller"),
    "a sum": (loop(divide="nothing"), "This is a sum"),
    "no zero_grad": (loop(zero=False), "call optimizer.zero_grad()"),
    "no step": (loop(step=False), "loss.backward() and optimizer.step() are missing"),
    "step before backward": (loop(order="step first"), "loss.backward() still needs"),
    "no mode": (loop(mode=None), "Call model.train()"),
    "always training mode": (loop(mode="train"), "Call model.eval()"),
    "always evaluation mode": (loop(mode="eval"), "Call model.train()"),
    "gradients in evaluation": (loop(grad=False), "set_grad_enabled"),
    "weights changed in evaluation": (loop(eval_step=True), "there must be no step"),
    "percent": (loop(share=100), "no percent"),
    "only the loss": (lambda *args: loop()(*args)[0], "return loss, accuracy"),
    "nothing returned": (lambda *args: None, "return loss, accuracy"),
    "no default for the optimizer": (lambda m, loader, c, o: loop()(m, loader, c, o), "and as epoch(model, loader, criterion) to evaluate"),
}

# ---- more of them, by what learners ask about -----------------------------------------------------------------------


def by_hand(image):
    """Without torchvision's random steps, and with three sources of random numbers."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    x = x.flip(2) if random.random() < 0.5 else x
    x = F.pad(v2.functional.rotate(x, random.uniform(-15, 15)), (4, 4, 4, 4))
    i, j = np.random.randint(0, 9, 2)
    return x[:, i : i + 32, j : j + 32] * 2 - 1


def seeded(image):
    torch.manual_seed(0)
    return RIGHT_TRANSFORMS["as taught"](image)


def taught(*more, at=6):
    steps = [*START, *MIDDLE, NORMALISE]
    return v2.Compose([*steps[:at], *more, *steps[at:]])


RIGHT_TRANSFORMS |= {
    "bilinear": replaced(3, v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR)),
    "floats last": v2.Compose([START[0], *MIDDLE, START[1], NORMALISE]),
    "padding as a step": replaced(4, v2.Compose([v2.Pad(4), v2.RandomCrop(32)])),
    "by hand": by_hand,
}
WRONG_TRANSFORMS |= {
    "ImageNet's mean and std": (replaced(5, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])), "another mean or std"),
    "normalised twice": (taught(NORMALISE), "Normalize once"),
    "std forgotten": (replaced(5, v2.Normalize([0.5] * 3, [1.0] * 3)), "not divided by the standard deviation"),
    "grayscale": (taught(v2.Grayscale(3), at=5), "averaged (grayscale)"),
    "jitter": (taught(v2.ColorJitter(0.5), at=5), "It changes from call to call"),
    "blur": (taught(v2.GaussianBlur(5, sigma=2.0), at=5), "something blurs the pictures"),
    "colours in another order": (taught(v2.Lambda(lambda x: x.flip(0)), at=5), "The colours are in another order"),
    "resized crop": (replaced(4, v2.RandomResizedCrop(32)), "RandomCrop only cuts a part out"),
    "mirrored edges": (replaced(4, v2.RandomCrop(32, padding=4, padding_mode="reflect")), "fill and padding_mode"),
    "sideways only": (replaced(4, v2.RandomCrop(32, padding=(4, 0))), "-4 to +4 pixels sideways, +0 down or up"),
    "rotated half of the time": (replaced(3, v2.RandomApply([v2.RandomRotation(15)])), "but not all alike often"),
    "flip after the rotation": (v2.Compose([*START, MIDDLE[1], MIDDLE[0], MIDDLE[2], NORMALISE]), "The text lists the order"),
    "flipped too rarely": (replaced(2, v2.RandomHorizontalFlip(0.25)), "RandomHorizontalFlip(p=0.5)"),
    "a seed inside": (seeded, "Is a seed set inside"),
    "nothing random": (v2.Compose([*START, NORMALISE]), "flip, rotation and crop are missing"),
    "a batch": (lambda image: RIGHT_TRANSFORMS["as taught"](image)[None], "called with one picture and returns one"),
    "no return": (lambda image: None, "A function needs `return`"),
    "dots left": (v2.Compose([*START, ..., NORMALISE]), "The ... is still there"),
    "no ToImage": (v2.Compose([*MIDDLE, NORMALISE]), "Start with v2.ToImage()"),
}


class Named(nn.Module):
    """The right network, with places for a mistake; norm, drop: as in the exercises."""

    norm = drop = False

    def __init__(self, num_classes=100):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 16), (16, 32), (32, 64)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) if self.norm else nn.Identity() for b in (16, 32, 64))
        self.fc1, self.fc2 = nn.Linear(1024, 512), nn.Linear(512, num_classes)
        self.dropout, self.pool = nn.Dropout(0.5 if self.drop else 0), nn.MaxPool2d(2)
        self.extra(num_classes)

    def extra(self, num_classes):
        pass

    def features(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.pool(norm(F.relu(conv(x))))
        return x.flatten(1)

    def hidden(self, x):
        return self.dropout(F.relu(self.fc1(self.features(x))))

    def forward(self, x):
        return self.fc2(self.hidden(x))


def net(forward=None, extra=None, norm=False, drop=False, **methods):
    """Named, with other methods."""
    given = {"forward": forward, "extra": extra, **methods}
    return type("Answer", (Named,), {"norm": norm, "drop": drop} | {name: method for name, method in given.items() if method})


def put(name, layer, index=None):
    """For `extra`: another layer in place of self.name."""

    def extra(self, num_classes):
        if index is None:
            setattr(self, name, layer() if callable(layer) and not isinstance(layer, nn.Module) else layer)
        else:
            getattr(self, name)[index] = layer()

    return extra


def in_a_list(self, num_classes):
    convs = list(self.convs)
    del self.convs
    self.convs = convs


def overlapping_features(self, x):
    for conv in self.convs:
        x = F.max_pool2d(F.relu(conv(x)), 3, 2, 1)
    return x.flatten(1)


def no_second_relu(self, x):
    for number, conv in enumerate(self.convs):
        x = self.pool(conv(x) if number == 1 else F.relu(conv(x)))
    return x.flatten(1)


class TenClasses(Named):
    def __init__(self, num_classes=10):
        super().__init__(num_classes)


class OtherName(Named):
    def __init__(self, classes=100):
        super().__init__(classes)


RIGHT_CNNS |= {
    "convolutions for linear layers": net(
        lambda self, x: self.fc2(F.relu(self.fc1(self.features(x).view(-1, 64, 4, 4)))).flatten(1),
        lambda self, n: (setattr(self, "fc1", nn.Conv2d(64, 512, 4)), setattr(self, "fc2", nn.Conv2d(512, n, 1))),
    ),
    "a matrix product": net(lambda self, x: self.hidden(x) @ self.fc2.weight.T + self.fc2.bias),
    "a function that makes it": lambda num_classes=100: Named(num_classes),
}
WRONG_CNNS |= {
    "no return": (net(lambda self, x: None), "Its last line needs `return`"),
    "mean pooling": (net(extra=put("pool", nn.AvgPool2d(2))), "The pooling takes the mean"),
    "overlapping pooling": (net(features=overlapping_features), "windows are 3×3 and overlap"),
    "stride instead of pooling": (
        net(extra=lambda self, n: (setattr(self, "pool", nn.Identity()), [setattr(c, "stride", (2, 2)) for c in self.convs])),
        "The convolutions have stride 1",
    ),
    "one ReLU forgotten": (net(features=no_second_relu), "The ReLU after the second convolution is missing"),
    "no padding": (net(extra=lambda self, n: setattr(self.convs[0], "padding", 0)), "64 channels of 3×3 pixels instead of 4×4"),
    "not flattened": (net(lambda self, x: self.fc2(self.fc1(self.features(x).view(-1, 64, 4, 4)))), "flatten the images before it"),
    "all images flattened": (net(lambda self, x: self.fc2(self.fc1(self.features(x).flatten()))), "x.flatten(1) keeps the first dimension"),
    "argmax": (net(lambda self, x: Named.forward(self, x).argmax(1)), "without argmax"),
    "ten classes by default": (TenClasses, "Without an argument there are 100 classes"),
    "another name": (OtherName, "with the same names, order and defaults"),
    "softmax over the batch": (net(lambda self, x: Named.forward(self, x).softmax(0)), "along dimension 0"),
    "dropout": (net(drop=True), "This network has no dropout"),
    "batch norm": (net(norm=True), "too many"),
    "layers in a list": (net(extra=in_a_list), "`self.convs` is a Python list"),
    "a layer made in forward": (
        net(lambda self, x: nn.Linear(512, self.n)(self.hidden(x)), lambda self, n: (delattr(self, "fc2"), setattr(self, "n", n))),
        "makes a layer anew",
    ),
    "features detached": (net(lambda self, x: self.fc2(F.relu(self.fc1(self.features(x).detach())))), ".detach() in `forward`"),
    "input scaled in place": (net(lambda self, x: Named.forward(self, x.div_(255))), "other numbers than before"),
    "third linear layer": (
        net(lambda self, x: self.fc3(F.relu(Named.forward(self, x))), lambda self, n: setattr(self, "fc3", nn.Linear(n, n))),
        "linear layer 100 → 100 too many",
    ),
    "two images only": (net(lambda self, x: self.fc2(self.hidden(x).view(2, 512))), "a fixed shape"),
}
RIGHT_NORMS |= {
    "lazy": net(extra=put("norms", nn.LazyBatchNorm2d, 1), norm=True),
    "one after the pooling": net(norm=True, features=lambda self, x: mixed_features(self, x)),
}


def mixed_features(self, x):
    (a, b, c), (k, m, n) = self.convs, self.norms
    x = self.pool(k(F.relu(a(x))))
    x = m(self.pool(F.relu(b(x))))
    return n(F.relu(self.pool(c(x)))).flatten(1)


def norms_eval(self, x):
    self.norms.eval()
    return Named.forward(self, x)


WRONG_NORMS |= {
    "momentum": (net(extra=put("norms", lambda: nn.BatchNorm2d(32, momentum=0.9), 1), norm=True), "Is `momentum` (0.1) changed"),
    "instance norm": (net(extra=put("norms", lambda: nn.InstanceNorm2d(32, True), 1), norm=True), "Found"),
    "in evaluation mode": (net(norms_eval, norm=True), "must not call .train() or .eval()"),
    "frozen": (net(extra=lambda self, n: self.norms.requires_grad_(False), norm=True), "requires_grad=False"),
    "another one for the hidden layer": (
        net(lambda self, x: self.fc2(self.bn(self.hidden(x))), put("bn", lambda: nn.BatchNorm1d(512)), norm=True),
        "BatchNorm1d(512) too many: `bn`",
    ),
    "softmax": (net(lambda self, x: Named.forward(self, x).softmax(1), norm=True), "A softmax follows at the end"),
}


def masked(mask, evaluation=1.0):
    """Dropout by hand: the hidden numbers times mask(batch size) in training."""
    return lambda self, x: self.fc2(self.hidden(x) * (mask(len(x)) if self.training else evaluation))


RIGHT_DROPOUTS |= {
    "by hand": net(masked(lambda n: 2 * (torch.rand(n, 512) > 0.5))),
    "in place": net(extra=put("dropout", nn.Dropout(inplace=True))),
}
WRONG_DROPOUTS |= {
    "not doubled": (net(masked(lambda n: torch.rand(n, 512) > 0.5)), "must be divided by 1 − p"),
    "halved in evaluation": (net(masked(lambda n: torch.rand(n, 512) > 0.5, 0.5)), "In evaluation the numbers are halved"),
    "the same for all images": (net(masked(lambda n: 2 * (torch.rand(512) > 0.5))), "the same numbers are dropped for all images"),
    "whole images": (net(masked(lambda n: 2 * (torch.rand(n, 1) > 0.5))), "all numbers of an image are dropped together"),
    "result thrown away": (net(lambda self, x: (self.dropout(self.fc2.weight), Named.forward(self, x))[1]), "hand on its result"),
    "in the wrong mode": (net(lambda self, x: self.fc2(F.dropout(self.hidden(x), 0.5, not self.training))), "dropout still drops"),
    "a seed inside": (
        net(lambda self, x: (torch.manual_seed(0), Named.forward(self, x))[1], drop=True),
        "your code calls torch.manual_seed",
    ),
}


def taught_loop(update=None, add=None, count=None, logits=lambda z: z, mode=None, result=None, gradients=torch.set_grad_enabled):
    """The loop as taught, with a place for each mistake."""

    def epoch(model, loader, criterion, optimizer=None):
        training, total, hits, n = optimizer is not None, 0, 0, 0
        (mode or (lambda model, training: model.train(training)))(model, training)
        with gradients(training):
            for x, y in loader:
                z = logits(model(x))
                loss = criterion(z, y)
                if training and update:
                    update(optimizer, loss, y, model)
                elif training:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                total += add(loss, y) if add else loss.item() * len(y)
                hits += count(z, y) if count else (z.argmax(1) == y).sum().item()
                n += len(y)
        return result(total, hits, n) if result else (total / n, hits / n)

    return epoch


def returns_early(model, loader, criterion, optimizer=None):
    model.train(optimizer is not None)
    for x, y in loader:
        z = model(x)
        return criterion(z, y).item(), (z.argmax(1) == y).float().mean().item()


def counts_by_dataset(model, loader, criterion, optimizer=None):
    return taught_loop(result=lambda total, hits, n: (total / len(loader.dataset), hits / n))(model, loader, criterion, optimizer)


def goes_on(model, loader, criterion, optimizer=None, kept=[0]):  # noqa: B006 – that is the mistake
    loss, accuracy = taught_loop()(model, loader, criterion, optimizer)
    kept[0] += loss
    return kept[0], accuracy


def with_bar(model, loader, criterion, optimizer=None):
    from tqdm import tqdm

    return taught_loop()(model, tqdm(loader), criterion, optimizer)


somebody = nn.Linear(6, 3)
RIGHT_EPOCHS |= {
    "a bar": with_bar,
    "model.zero_grad()": taught_loop(lambda o, loss, y, model: (model.zero_grad(), loss.backward(), o.step())),
    "an array": lambda *args: np.array(taught_loop()(*args)),
}
WRONG_EPOCHS |= {
    "softmax before the criterion": (taught_loop(logits=lambda z: z.softmax(1)), "A softmax stands before the criterion"),
    "labels first": (
        lambda m, loader, c, o=None: taught_loop()(m, loader, lambda z, y: c(y, z), o),
        "the logits first and then the labels",
    ),
    "swapped results": (taught_loop(result=lambda total, hits, n: (hits / n, total / n)), "The order is (loss, accuracy)"),
    "a count of hits": (taught_loop(result=lambda total, hits, n: (total / n, hits)), "divide by the number of images"),
    "mean of shares": (
        taught_loop(count=lambda z, y: (z.argmax(1) == y).float().mean().item(), result=lambda total, hits, n: (total / n, hits / 3)),
        "The shares of the batches are put together",
    ),
    "same size for all batches": (taught_loop(add=lambda loss, y: loss.item() * 4), "multiplied by the same size"),
    "return in the loop": (returns_early, "Does `return` (or `break`) stand inside the loop?"),
    "zero_grad after backward": (taught_loop(lambda o, loss, y, m: (loss.backward(), o.zero_grad(), o.step())), "it erases the gradients"),
    "no backward": (taught_loop(lambda o, loss, y, m: (o.zero_grad(), o.step())), "loss.backward() is missing"),
    "backward of the sum": (
        taught_loop(lambda o, loss, y, m: (o.zero_grad(), (loss * len(y)).backward(), o.step())),
        "times the batch size",
    ),
    "two steps": (taught_loop(lambda o, loss, y, m: (o.zero_grad(), loss.backward(), o.step(), o.step())), "is called twice a batch"),
    "an optimizer of its own": (
        lambda m, loader, c, o=None: taught_loop()(m, loader, c, o and torch.optim.Adam(m.parameters())),
        "use the argument `optimizer`",
    ),
    "a criterion of its own": (lambda m, loader, c, o=None: taught_loop()(m, loader, F.cross_entropy, o), "`criterion` isn't used"),
    "another model": (lambda m, loader, c, o=None: taught_loop()(somebody, loader, c, o), "Use the argument `model`"),
    "the loss with its graph": (taught_loop(add=lambda loss, y: loss * len(y)), "still has its gradient"),
    "no_grad in training": (taught_loop(gradients=lambda training: torch.no_grad()), "In training, gradients must be on"),
    "len(loader.dataset)": (counts_by_dataset, "Not every loader has a data set"),
    "a sum that goes on": (goes_on, "start every sum at 0"),
    "rounded": (lambda *args: tuple(round(value, 2) for value in taught_loop()(*args)), "It is rounded"),
    "on a GPU": (taught_loop(logits=lambda z: z.cuda()), "Not every computer has a GPU"),
    "last batch left out": (lambda m, loader, c, o=None: taught_loop()(m, list(loader)[:-1], c, o), "2 of 3 batches only"),
}


def norm_of(dims=(0, 2, 3), spread=None, end=None, centre=None):
    """normalise() as taught, with a place for each mistake."""

    def answer(x, gamma, beta, eps=1e-5):
        mean = centre(x) if centre else x.mean(dims, keepdim=True)
        deviation = spread(x, eps) if spread else (x.var(dims, correction=0, keepdim=True) + eps).sqrt()
        x = (x - mean) / deviation
        return end(x, gamma, beta) if end else x * gamma.view(-1, 1, 1) + beta.view(-1, 1, 1)

    return answer


def norm_channel_by_channel(x, gamma, beta, eps=1e-5):
    channels = []
    for c in range(x.shape[1]):
        numbers = x[:, c]
        variance = ((numbers - numbers.mean()) ** 2).mean()
        channels.append((numbers - numbers.mean()) / torch.sqrt(variance + eps) * gamma[c] + beta[c])
    return torch.stack(channels, dim=1)


def norm_flat(x, gamma, beta, eps=1e-5):
    flat = x.transpose(0, 1).reshape(x.shape[1], -1)
    flat = (flat - flat.mean(1, keepdim=True)) * torch.rsqrt(flat.var(1, unbiased=False, keepdim=True) + eps)
    flat = gamma[:, None] * flat + beta[:, None]
    return flat.view(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)


def norm_last(x, gamma, beta, eps=1e-5):
    x = x.permute(0, 2, 3, 1)
    variance, mean = torch.var_mean(x, dim=(0, 1, 2), correction=0)
    return ((x - mean) / (variance + eps) ** 0.5 * gamma + beta).permute(0, 3, 1, 2)


def norm_moments(x, gamma, beta, eps=1e-5):
    x64 = x.double()
    mean, square = x64.mean((0, 2, 3), keepdim=True), (x64**2).mean((0, 2, 3), keepdim=True)
    return (gamma[None, :, None, None] * (x64 - mean) / (square - mean**2 + eps).sqrt() + beta[None, :, None, None]).to(x.dtype)


def norm_in_place(x, gamma, beta, eps=1e-5):
    x -= x.mean((0, 2, 3), keepdim=True)
    return norm_of()(x, gamma, beta, eps)


RIGHT_BY_HAND = {
    "as taught": norm_of(),
    "channel by channel": norm_channel_by_channel,
    "flattened": norm_flat,
    "channels last": norm_last,
    "mean of squares minus square of mean": norm_moments,
    "PyTorch's own": lambda x, gamma, beta, eps=1e-5: F.batch_norm(x, None, None, gamma, beta, True, eps=eps),
}
WRONG_BY_HAND = {
    "nothing returned": (lambda x, gamma, beta, eps=1e-5: None, "Its last line needs `return`"),
    "two results": (lambda x, gamma, beta, eps=1e-5: (x, gamma), "it returns a tuple"),
    "in place": (norm_in_place, "x itself has other numbers"),
    "over the images only": (norm_of((0,)), "over the images only"),
    "instance": (norm_of((2, 3)), "instance normalisation"),
    "layer": (norm_of((1, 2, 3)), "layer normalisation"),
    "all channels together": (norm_of((0, 1, 2, 3)), "all channels together"),
    "n - 1": (norm_of(spread=lambda x, e: (x.var((0, 2, 3), keepdim=True) + e).sqrt()), "correction=0 divides by n"),
    "eps outside": (norm_of(spread=lambda x, e: x.std((0, 2, 3), correction=0, keepdim=True) + e), "it belongs under the root"),
    "std": (norm_of(spread=lambda x, e: x.std((0, 2, 3), keepdim=True) + e), "that is divided by n − 1"),
    "no eps": (norm_of(spread=lambda x, e: x.std((0, 2, 3), correction=0, keepdim=True)), "eps is missing"),
    "a fixed eps": (lambda x, gamma, beta, eps=1e-5: norm_of()(x, gamma, beta), "use the argument"),
    "no root": (norm_of(spread=lambda x, e: x.var((0, 2, 3), correction=0, keepdim=True) + e), "take its root"),
    "not divided": (norm_of(spread=lambda x, e: 1.0), "nothing is divided"),
    "no mean": (norm_of(centre=lambda x: 0.0), "The mean isn't subtracted"),
    "no gamma": (norm_of(end=lambda x, g, b: x + b.view(-1, 1, 1)), "gamma isn't used"),
    "no beta": (norm_of(end=lambda x, g, b: x * g.view(-1, 1, 1)), "beta isn't used"),
    "swapped": (norm_of(end=lambda x, g, b: x * b.view(-1, 1, 1) + g.view(-1, 1, 1)), "have changed places"),
    "beta first": (norm_of(end=lambda x, g, b: (x + b.view(-1, 1, 1)) * g.view(-1, 1, 1)), "add it after the multiplication"),
    "gamma meets the width": (norm_of(end=lambda x, g, b: x * g + b), "as many pixels here as there are channels"),
    "no keepdim": (norm_of(centre=lambda x: x.mean((0, 2, 3))), "The mean has shape (C)"),
    "no keepdim at all": (
        norm_of(centre=lambda x: x.mean((0, 2, 3)), spread=lambda x, e: (x.var((0, 2, 3), correction=0) + e).sqrt()),
        "The variance has shape (C)",
    ),
    "two mistakes": (norm_of((2, 3), end=lambda x, g, b: x), "gamma and beta aren't used"),
    "detached": (norm_of(centre=lambda x: x.mean((0, 2, 3), keepdim=True).detach()), "a wrong gradient"),
}

EXERCISES = {
    checks.train_transform: (RIGHT_TRANSFORMS, WRONG_TRANSFORMS),
    checks.cnn: (RIGHT_CNNS, WRONG_CNNS),
    checks.normalise: (RIGHT_BY_HAND, WRONG_BY_HAND),
    checks.batch_norm: (RIGHT_NORMS, WRONG_NORMS),
    checks.dropout: (RIGHT_DROPOUTS, WRONG_DROPOUTS),
    checks.epoch: (RIGHT_EPOCHS, WRONG_EPOCHS),
}
