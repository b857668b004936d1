"""Case 1."""

from .. import program


class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        self.images = images.permute(0, 3, 1, 2).contiguous().float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            images = (self.images[rows] - 0.5) / 0.5
            if self.training:
                images = program.augment(images)
            yield images, self.labels[rows]
