"""Case 10."""

import torch

from .. import program


class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        count, height, width, channels = images.shape
        self.images = images.reshape(-1).view(count, channels, height, width).float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels)) if self.training else torch.arange(len(self.labels))
        for rows in order.split(self.batch_size):
            images = (self.images[rows] - 0.5) / 0.5
            yield program.augment(images) if self.training else images, self.labels[rows]
