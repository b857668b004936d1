"""Case 11."""

import torch
import torch.nn.functional as F

from .. import program


class Loader:
    def __init__(self, images, labels, batch_size, training=False):
        self.images = images.permute(0, 3, 1, 2).contiguous().float() / 255
        self.labels, self.batch_size, self.training = labels, batch_size, training

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels)) if self.training else torch.arange(len(self.labels))
        for rows in order.split(self.batch_size):
            images = self.images[rows]
            if self.training:
                images = program.augment((images - 0.5) / 0.5)
            yield images, self.labels[rows]


def epoch(model, loader, optimizer=None, scheduler=None):
    training = optimizer is not None
    model.train(training)
    loss_sum, correct, seen = 0.0, 0, 0
    with torch.set_grad_enabled(training):
        for images, labels in loader:
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if training:
                loss.backward()
                optimizer.step()
                if scheduler:
                    scheduler.step()
            loss_sum += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
    return loss_sum / seen, correct / seen
