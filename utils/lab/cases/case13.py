"""Case 13."""

import torch

from .. import program


class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        self.images = images.permute(0, 3, 1, 2).contiguous().float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training
        if training:
            self.images = self.images[torch.randperm(len(images))]
            self.labels = self.labels[torch.randperm(len(labels))]

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels)) if self.training else torch.arange(len(self.labels))
        for rows in order.split(self.batch_size):
            images = (self.images[rows] - 0.5) / 0.5
            yield program.augment(images) if self.training else images, self.labels[rows]
