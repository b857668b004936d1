# ruff: noqa: E501
"""Mends of the cases of notebook 07: right ones in other styles than the program's own, and wrong ones that look well."""

import inspect

from utils.lab import bench

HEAD = """
import copy, math
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from utils.lab import program
"""


def build(source):
    """The functions and classes that a cell with this source defines, if they are parts of a program."""
    scope = {}
    exec(HEAD + source, scope)
    return [scope[name] for name in bench.PARTS if name in scope]


def changed(number, *replacements):
    """The opened code of a case with some texts replaced, as source."""
    source = "\n\n".join(inspect.getsource(part) for part in bench.parts_of(number).values())
    for old, new in replacements:
        assert old in source, (number, old)
        source = source.replace(old, new)
    return source


ANOTHER_LOADER = """
class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        self.mine = (images.numpy().transpose(0, 3, 1, 2).astype("float32") - 127.5) / 127.5
        self.labels, self.size, self.training = labels, batch_size, training
        self.rng = torch.Generator().manual_seed(5)
    def __len__(self):
        return math.ceil(len(self.labels) / self.size)
    def __iter__(self):
        n = len(self.labels)
        order = torch.randperm(n, generator=self.rng).tolist() if self.training else list(range(n))
        for k in range(len(self)):
            rows = order[k * self.size : (k + 1) * self.size]
            x = torch.tensor(self.mine[rows])
            if self.training:
                x = program.augment(x)
            yield x, self.labels[torch.tensor(rows)]
"""

TORCH_LOADER = """
def collate(training):
    def make(rows):
        images = torch.stack([image for image, _ in rows])
        return program.augment(images) if training else images, torch.tensor([int(label) for _, label in rows])
    return make

def Loader(images, labels, batch_size, training=False):
    pixels = (images.movedim(3, 1) / 255 - 0.5) / 0.5
    return DataLoader(TensorDataset(pixels, labels), batch_size, shuffle=training, collate_fn=collate(training))
"""

ANOTHER_NETWORK = """
class Network(nn.Module):
    def __init__(self, classes, widths=(8, 16, 32), blocks=(1, 1, 1), stem=(3, 1), make_stage=program.make_stage):
        super().__init__()
        k, s = stem
        layers = [nn.Conv2d(3, widths[0], (k, k), (s, s), (k // 2, k // 2), bias=False), nn.BatchNorm2d(widths[0])]
        self.first = nn.ModuleList(layers)
        ins = (widths[0], *widths[:-1])
        self.rest = nn.ModuleList(make_stage(i, o, n, 1 + (j > 0)) for j, (i, o, n) in enumerate(zip(ins, widths, blocks)))
        self.classify = nn.Linear(widths[-1], classes)
    def forward(self, x):
        for layer in self.first:
            x = layer(x)
        x = torch.relu(x)
        for stage in self.rest:
            x = stage(x)
        return self.classify(F.adaptive_avg_pool2d(x, 1).flatten(1))
"""

ANOTHER_BLOCK = """
class Block(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
            nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
        )
        self.g = None if (i, stride) == (o, 1) else nn.Conv2d(i, o, 1, stride, bias=False)
    def forward(self, x):
        way = x if self.g is None else self.g(x)
        return F.relu(way + self.f(x))
"""

ANOTHER_STAGE = """
def make_stage(in_channels, channels, blocks, stride, block=program.Block):
    return nn.Sequential(*(block(channels if k else in_channels, channels, 1 if k else stride) for k in range(blocks)))
"""

ANOTHER_EPOCH = """
def epoch(model, loader, optimizer=None, scheduler=None):
    if optimizer is None:
        model.eval()
        with torch.no_grad():
            pairs = [(model(images), labels) for images, labels in loader]
        logits, labels = (torch.cat(part) for part in zip(*pairs))
        return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()
    model.train()
    losses, hits, count = [], 0, 0
    for images, labels in loader:
        for p in model.parameters():
            p.grad = None
        out = model(images)
        loss = F.cross_entropy(out, labels, reduction="sum")
        (loss / len(labels)).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
        hits += int((out.max(1).indices == labels).sum())
        count += len(labels)
    return sum(losses) / count, hits / count
"""

ZERO = ("                loss.backward()", "                optimizer.zero_grad()\n                loss.backward()")
NORMAL = ("            images = self.images[rows]\n", "            images = (self.images[rows] - 0.5) / 0.5\n")
ONCE = ("(images - 0.5) / 0.5)", "images)")
LATE = ("                optimizer.step()\n", "                optimizer.step()\n                optimizer.zero_grad()\n")

RIGHT = {
    0: [ANOTHER_NETWORK, changed(0, ("parameter.requires_grad = False", "parameter.requires_grad = True"))],
    1: [ANOTHER_LOADER, TORCH_LOADER],
    2: [ANOTHER_NETWORK, changed(2, ("F.softmax(self.head(x.mean((2, 3))), dim=1)", "self.head(x.mean((2, 3)))"))],
    3: [ANOTHER_NETWORK, changed(3, ("self.stages = []", "self.stages = nn.ModuleList()"))],
    5: [ANOTHER_LOADER, TORCH_LOADER, changed(5, ("images.sub_(0.5).div_(0.5)", "images = images.sub(0.5).div(0.5)"))],
    6: [ANOTHER_EPOCH, changed(6, ("model.train()", "model.train(training)"), ("loss.item()", "loss.item() * labels.numel()"))],
    7: [
        ANOTHER_BLOCK,
        changed(
            7,
            ("self.relu2(self.bn2(self.conv2(residual)))", "self.bn2(self.conv2(residual))"),
            ("return residual + self.shortcut(x)", "return self.relu2(self.shortcut(x) + residual)"),
        ),
    ],
    8: [
        changed(8, ("rate = 1.0", "rate = 0.01")),
        """
def make_optimizer(model, steps):
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": 1e-4}, {"params": others}], lr=0.02, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min((k + 1) / 5, max(0, 1 - k / (steps - 1))))
""",
    ],
    9: [
        """
def fit(model, train_loader, val_loader, test_loader, optimizer, scheduler, epochs, epoch=program.epoch):
    history, best, kept = [], -1, None
    for _ in range(epochs):
        training = epoch(model, train_loader, optimizer, scheduler)
        validation = epoch(model, val_loader)
        history.append([*training, *validation])
        if validation[1] > best:
            best, kept = validation[1], copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    loss, accuracy = epoch(model, test_loader)
    return history, accuracy
""",
        changed(
            9, ("        best = max(best, epoch(model, test_loader)[1])\n", ""), ("rows, best\n", "rows, epoch(model, test_loader)[1]\n")
        ),
    ],
    10: [ANOTHER_LOADER, TORCH_LOADER],
    11: [ANOTHER_LOADER + ANOTHER_EPOCH, TORCH_LOADER + ANOTHER_EPOCH, changed(11, NORMAL, ONCE, LATE)],
    12: [ANOTHER_STAGE, changed(12, ("range(1, blocks - 1)", "range(1, blocks)"))],
    13: [ANOTHER_LOADER, TORCH_LOADER],
    14: [
        ANOTHER_EPOCH,
        changed(
            14,
            ("                optimizer.step()\n", "                optimizer.step()\n                scheduler and scheduler.step()\n"),
            ("    if training and scheduler:\n        scheduler.step()\n", ""),
        ),
    ],
    15: [
        ANOTHER_BLOCK,
        changed(
            15, ("nn.Conv2d(in_channels, channels, 1, bias=False)", "nn.Conv2d(in_channels, channels, 1, (stride, stride), bias=False)")
        ),
    ],
    16: [ANOTHER_NETWORK, changed(16, ("widths[0], 3, padding=1,", "widths[0], stem[0], stride=stem[1], padding=stem[0] // 2,"))],
}

WRONG = {
    0: [
        changed(0, ("for parameter in self.parameters():", "for parameter in self.stem.parameters():")),
        changed(0, ("for parameter in self.parameters():\n            parameter.requires_grad = False", "self.requires_grad_(False)")),
        changed(0, ("parameter.requires_grad = False", "parameter.requires_grad = parameter.ndim == 1")),
    ],
    1: [
        changed(1, ("range(0, len(self.labels), self.batch_size)", "torch.randperm(len(self.labels)).tolist()[:: self.batch_size]")),
        changed(
            1,
            ("yield images, self.labels[rows]", "mix = torch.randperm(len(images))\n            yield images[mix], self.labels[rows][mix]"),
        ),
        changed(1, ("        for start", "        self.labels = self.labels[torch.randperm(len(self.labels))]\n        for start")),
        changed(
            1,
            (
                "= labels, batch_size, training",
                "= labels, batch_size, training\n        order = torch.randperm(len(labels)) if training else slice(None)\n"
                "        self.images, self.labels = self.images[order], labels[order]",
            ),
        ),
    ],
    2: [
        changed(2, ("F.softmax(", "F.log_softmax(")),
        changed(2, ("F.softmax(self.head(x.mean((2, 3))), dim=1)", "torch.sigmoid(self.head(x.mean((2, 3))))")),
        changed(2, ("F.softmax(self.head(x.mean((2, 3))), dim=1)", "F.relu(self.head(x.mean((2, 3))))")),
    ],
    3: [
        changed(3, ("self.head = nn", "self.stages = tuple(self.stages)\n        self.head = nn")),
        changed(3, ("self.head = nn", "self.last = self.stages[-1]\n        self.head = nn")),
        changed(
            3,
            ("self.stages = []", "self.stages = nn.ModuleList()"),
            ("x = stage(x)", "x = stage(x).detach()"),
            ("x = self.stem(x)", "x = self.stem(x.detach() * 1.1)"),
        ),
    ],
    5: [
        changed(5, ("images.sub_(0.5).div_(0.5)", "images = images.sub_(0.5).div(0.5)")),
        changed(5, ("images = self.images[rows]\n            images.sub_(0.5).div_(0.5)", "images = self.images[rows]")),
        changed(
            5,
            (
                "            images.sub_(0.5).div_(0.5)\n            if self.training:\n",
                "            if self.training:\n                images.sub_(0.5).div_(0.5)\n",
            ),
        ),
    ],
    6: [
        changed(6, ("model.train()", "model.train(training)")),
        changed(6, ("loss.item()", "loss.item() * len(labels)")),
        changed(6, ("model.train()", "model.train(training)"), ("return loss_sum / seen", "return loss_sum / len(loader)")),
        changed(6, ("model.train()", "model.eval()"), ("loss.item()", "loss.item() * len(labels)")),
    ],
    7: [
        changed(7, ("return residual + self.shortcut(x)", "return self.relu2(residual + self.shortcut(x))")),
        changed(7, ("self.relu2(self.bn2(self.conv2(residual)))", "self.bn2(self.conv2(residual))")),
        changed(
            7,
            ("self.relu2(self.bn2(self.conv2(residual)))", "self.bn2(self.conv2(residual))"),
            ("residual + self.shortcut(x)", "residual + self.relu2(self.shortcut(x))"),
        ),
    ],
    8: [changed(8, ("1.0", "0.1")), changed(8, ("1.0", "0.0001")), changed(8, ("max_lr=rate", "max_lr=0.5"), ("lr=rate", "lr=0.01"))],
    9: [
        changed(9, ("return rows, best", "return rows, epoch(model, test_loader)[1]")),
        changed(9, ("max(best, epoch(model, test_loader)[1])", "epoch(model, test_loader)[1]")),
        changed(9, ("test_loader)[1])", "val_loader)[1])")),
    ],
    10: [
        changed(10, ("images.reshape(-1).view(count, channels, height, width)", "images.permute(0, 3, 2, 1)")),
        changed(10, ("images.reshape(-1).view(count, channels, height, width)", "images.transpose(1, 3).transpose(2, 3).flip(1)")),
        changed(10, ("images.reshape(-1).view", "images.contiguous().reshape")),
    ],
    11: [
        changed(11, ZERO),
        changed(11, NORMAL, ONCE),
        changed(11, ZERO, NORMAL),
        changed(11, NORMAL, ONCE, ("    return loss_sum", "    if training:\n        optimizer.zero_grad()\n    return loss_sum")),
    ],
    12: [
        changed(12, ("range(1, blocks - 1)", "range(1, blocks + 1)")),
        changed(12, ("range(1, blocks - 1)", "range(1, max(2, blocks - 1))")),
        changed(12, ("range(1, blocks - 1)", "range(1, blocks)"), ("block(channels, channels)", "block(channels, channels, stride)")),
    ],
    13: [
        changed(13, ("            self.labels = self.labels[torch.randperm(len(labels))]\n", "")),
        changed(13, ("            self.images = self.images[torch.randperm(len(images))]\n", "")),
        changed(
            13,
            ("            self.images = self.images[torch.randperm(len(images))]\n", "            order = torch.randperm(len(images))\n"),
            (
                "self.labels = self.labels[torch.randperm(len(labels))]",
                "self.images, self.labels = self.images[order], self.labels[order.flip(0)]",
            ),
        ),
    ],
    14: [
        changed(14, ("    if training and scheduler:\n        scheduler.step()\n", "")),
        changed(
            14,
            (
                "                optimizer.step()\n",
                "                optimizer.step()\n                if scheduler:\n                    scheduler.step()\n",
            ),
        ),
        changed(
            14,
            ("    if training and scheduler:\n        scheduler.step()\n", ""),
            (
                "            loss_sum +=",
                "            if scheduler and seen % 2:\n                scheduler.step()\n            loss_sum +=",
            ),
        ),
    ],
    15: [
        changed(15, ("3, stride=stride, padding=1", "3, padding=1")),
        changed(15, ("channels, 1, bias=False)", "channels, 1, stride=2, bias=False)")),
        changed(15, ("channels, 1, bias=False)", "channels, stride, stride=stride, bias=False)")),
    ],
    16: [
        changed(16, ("widths[0], 3, padding=1,", "widths[0], 5, padding=2,")),
        changed(16, ("widths[0], 3, padding=1,", "widths[0], stem[0], padding=stem[0] // 2,")),
        changed(16, ("widths[0], 3, padding=1,", "widths[0], 3, stride=stem[1], padding=1,")),
    ],
}
