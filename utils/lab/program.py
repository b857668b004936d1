"""The right program. Every case of the lab is this program with something changed.

A small residual network learns ten classes from 1,000 images of 16×16 pixels. The parts, in the order in which they are used:
Loader, Block, make_stage, Network, make_optimizer, epoch, fit.
"""

import torch
import torch.nn.functional as F
from torch import nn


def augment(images):
    """Flip half of the images, and shift each batch by up to one pixel; (N, C, H, W) -> (N, C, H, W)."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    down, right = torch.randint(0, 3, (2,)).tolist()
    height, width = images.shape[2:]
    return F.pad(flipped, (1, 1, 1, 1))[:, :, down : down + height, right : right + width]


class Loader:
    """Batches of (images, labels): images (N, H, W, 3) uint8, as files have them -> (batch, 3, H, W) float from -1 to 1.

    training: a new order in each pass, and augmentation.
    """

    def __init__(self, images, labels, batch_size, training=False):
        self.images = images.permute(0, 3, 1, 2).contiguous().float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels)) if self.training else torch.arange(len(self.labels))
        for rows in order.split(self.batch_size):
            images = (self.images[rows] - 0.5) / 0.5
            yield augment(images) if self.training else images, self.labels[rows]


class Block(nn.Module):
    """relu(F(x) + shortcut(x)); (N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x):
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu2(residual + self.shortcut(x))


def make_stage(in_channels, channels, blocks, stride, block=Block):
    """`blocks` blocks in a row, of which the first may change the shape."""
    layers = [block(in_channels, channels, stride)]
    for _ in range(blocks - 1):
        layers.append(block(channels, channels))
    return nn.Sequential(*layers)


class Network(nn.Module):
    """A stem, stages of blocks, global average pooling and a linear layer; (N, 3, H, W) -> logits (N, classes).

    widths, blocks: channels of each stage, and its number of blocks. stem: kernel size and stride of the first convolution.
    """

    def __init__(self, classes, widths=(8, 16, 32), blocks=(1, 1, 1), stem=(3, 1), make_stage=make_stage):
        super().__init__()
        kernel, stride = stem
        conv = nn.Conv2d(3, widths[0], kernel, stride=stride, padding=kernel // 2, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.stages = nn.Sequential()
        channels = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            self.stages.append(make_stage(channels, width, count, 1 if number == 0 else 2))
            channels = width
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.stages(self.stem(x))
        return self.head(x.mean((2, 3)))


def make_optimizer(model, steps):
    """SGD with one cycle of the learning rate over `steps` steps: up to 0.01, then down to 0; returns (optimizer, scheduler)."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)


def epoch(model, loader, optimizer=None, scheduler=None):
    """One pass: training with an optimizer, evaluation without. Returns (mean loss per image, share of right predictions)."""
    training = optimizer is not None
    model.train(training)
    loss_sum, correct, seen = 0.0, 0, 0
    with torch.set_grad_enabled(training):
        for images, labels in loader:
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if scheduler:
                    scheduler.step()
            loss_sum += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
    return loss_sum / seen, correct / seen


def fit(model, train_loader, val_loader, test_loader, optimizer, scheduler, epochs, epoch=epoch):
    """Train for some epochs; returns a row (training loss, accuracy, validation loss, accuracy) for each, and the accuracy to report."""
    rows = []
    for _ in range(epochs):
        rows.append((*epoch(model, train_loader, optimizer, scheduler), *epoch(model, val_loader)))
    return rows, epoch(model, test_loader)[1]
