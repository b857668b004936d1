"""Case 2."""

import torch.nn.functional as F
from torch import nn


class Network(nn.Module):
    def __init__(self, classes, widths, blocks, stem, make_stage):
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
        return F.softmax(self.head(x.mean((2, 3))), dim=1)
