"""Case 5."""

import torch

from .. import program


class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        self.images = images.permute(0, 3, 1, 2).contiguous().float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels))
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            if self.training:
                rows = order[rows]
            images = self.images[rows]
            images.sub_(0.5).div_(0.5)
            if self.training:
                images = program.augment(images)
            yield images, self.labels[rows]
