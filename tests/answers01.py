"""Right and wrong answers to the exercises of notebook 01."""

import functools

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
    "no ToDtype": (v2.Compose([v2.ToImage(), *MIDDLE]), "Start with v2.ToImage()"),
    "no scale": (replaced(1, v2.ToDtype(torch.float32)), "scale=True"),
    "no normalisation": (replaced(5, None), "mean 0.5 and std 0.5"),
    "no flip": (replaced(2, None), "RandomHorizontalFlip(p=0.5)"),
    "vertical flip": (replaced(2, v2.RandomVerticalFlip()), "RandomHorizontalFlip(p=0.5)"),
    "always flipped": (replaced(2, v2.RandomHorizontalFlip(1)), "Found 100%"),
    "no rotation": (replaced(3, None), "RandomRotation(15)"),
    "rotation by 45": (replaced(3, v2.RandomRotation(45)), "RandomRotation(15)"),
    "rotation one way": (replaced(3, v2.RandomRotation((0, 15))), "RandomRotation(15)"),
    "no padding": (replaced(4, v2.RandomCrop(32)), "RandomCrop(32, padding=4)"),
    "padding 2": (replaced(4, v2.RandomCrop(32, padding=2)), "Found up to 2"),
    "center crop": (replaced(4, v2.CenterCrop(32)), "RandomCrop(32, padding=4)"),
    "crop of 28": (replaced(4, v2.RandomCrop(28)), "Found torch.float32 (3, 28, 28)"),
    "normalised first": (v2.Compose([*START, NORMALISE, *MIDDLE]), "Normalize comes last"),
    "white filling": (replaced(4, v2.RandomCrop(32, padding=4, fill=1)), "fill"),
    "crop before rotation": (v2.Compose([*START, MIDDLE[0], MIDDLE[2], MIDDLE[1], NORMALISE]), "Found RandomHorizontalFlip, RandomCrop"),
    "wrong type": ([*START, NORMALISE], "not callable"),
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
    "no pooling": (cnn(pool=nn.Identity), "each 2×2 max-pooling halves it"),
    "widths": (cnn(widths=(32, 64, 128)), "Found [(3, 32), (32, 64), (64, 128)]"),
    "two convolutions": (cnn(widths=(16, 32)), "Found [(3, 16), (16, 32)]"),
    "kernel": (cnn(kernel=5), "Found [(5, 5)"),
    "no ReLU after convolutions": (cnn(relus=False), "Found negative numbers after a convolution"),
    "no ReLU between the linear layers": (cnn(last_relu=False), "two linear layers are no more than one"),
    "hidden width": (cnn(hidden=256), "Found [(1024, 256), (256, 100)]"),
    "softmax": (cnn(tail=(nn.Softmax(1),)), "Leave ReLU and softmax off"),
    "log-softmax": (cnn(tail=(nn.LogSoftmax(1),)), "Leave ReLU and softmax off"),
    "ReLU on the logits": (cnn(tail=(nn.ReLU(),)), "Leave ReLU and softmax off"),
    "no bias": (cnn(bias=False), "Is a bias left out"),
    "num_classes ignored": (FixedClasses, "Use num_classes in the last layer"),
    "no argument": (lambda: Functional(), "TypeError"),
    "an instance": (Functional(), "Error"),
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
    "none": (models.CNN, "Found none"),
    "before the ReLU": (functools.partial(models.CNN, batch_norm="before"), "it stands before the ReLU"),
    "before the convolution": (cnn(norm=lambda block, width: [nn.BatchNorm2d(block[0].in_channels), *block]), "Found [3, 16, 32]"),
    "group norm": (cnn(norm=lambda block, width: [*block, nn.GroupNorm(4, width)]), "Found GroupNorm"),
    "only one": (cnn(norm=lambda block, width: [*block, *[nn.BatchNorm2d(width)] * (width == 16)]), "Found BatchNorm2d."),
    "one for all": (cnn(norm=lambda block, width: [*block, shared], widths=(16, 16, 16)), "used more than once"),
    "no running means": (cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(width, track_running_stats=False)]), "track_running_stats"),
    "no scale": (cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(width, affine=False)]), "track_running_stats and affine"),
    "wrong width": (cnn(norm=lambda block, width: [*block, nn.BatchNorm2d(32)]), "RuntimeError"),
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
    "none": (models.CNN, "Put nn.Dropout(0.5) before the last linear layer"),
    "p = 0.2": (drop_at(-1, nn.Dropout(0.2)), "Use p=0.5"),
    "twice": (cnn(drop=lambda layers: [*layers[:-2], nn.Dropout(), layers[-2], nn.Dropout(), layers[-1]]), "Found 75%"),
    "on in evaluation": (AlwaysOn, "Dropout stays on in evaluation"),
    "before the first linear layer": (drop_at(-3, nn.Dropout()), "dropout belongs behind the first linear layer"),
    "after the first convolution": (drop_at(2, nn.Dropout2d()), "dropout belongs behind the first linear layer"),
    "on the logits": (cnn(tail=(nn.Dropout(),)), "Put nn.Dropout(0.5) before the last linear layer"),
    "alpha dropout": (drop_at(-1, nn.AlphaDropout(0.5)), "Found 0%"),
    "batch norm kept": (cnn(norm=norm_after, drop=lambda layers: [*layers[:-1], nn.Dropout(), layers[-1]]), "599,908"),
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
    "no step": (loop(step=False), "The weights did not change"),
    "step before backward": (loop(order="step first"), "in this order"),
    "no mode": (loop(mode=None), "Call model.train()"),
    "always training mode": (loop(mode="train"), "Call model.eval()"),
    "always evaluation mode": (loop(mode="eval"), "Call model.train()"),
    "gradients in evaluation": (loop(grad=False), "set_grad_enabled"),
    "weights changed in evaluation": (loop(eval_step=True), "there must be no step"),
    "percent": (loop(share=100), "no percent"),
    "only the loss": (lambda *args: loop()(*args)[0], "return loss, accuracy"),
    "nothing returned": (lambda *args: None, "return loss, accuracy"),
    "no default for the optimizer": (lambda m, loader, c, o: loop()(m, loader, c, o), "TypeError"),
}

EXERCISES = {
    checks.train_transform: (RIGHT_TRANSFORMS, WRONG_TRANSFORMS),
    checks.cnn: (RIGHT_CNNS, WRONG_CNNS),
    checks.batch_norm: (RIGHT_NORMS, WRONG_NORMS),
    checks.dropout: (RIGHT_DROPOUTS, WRONG_DROPOUTS),
    checks.epoch: (RIGHT_EPOCHS, WRONG_EPOCHS),
}
