"""The finished networks that later notebooks build on; each is built by hand in its own notebook first."""

from torch import nn


class CNN(nn.Sequential):
    """Three convolutions and two linear layers for 32×32 images; notebook 01.

    Input (N, in_channels, 32, 32), logits (N, num_classes). 599,684 parameters for 3 channels and 100 classes.
    batch_norm: None, "after" the ReLU (599,908 parameters) or "before" it; dropout: probability after the first linear layer.
    """

    def __init__(self, num_classes=100, in_channels=3, batch_norm=None, dropout=0.0):
        if batch_norm not in (None, "after", "before"):
            raise ValueError(f'batch_norm must be None, "after" or "before", got {batch_norm!r}')
        widths = [in_channels, 16, 32, 64]
        layers = []
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers.append(nn.Conv2d(width_in, width_out, 3, padding="same"))
            if batch_norm == "before":
                layers.append(nn.BatchNorm2d(width_out))
            layers.append(nn.ReLU())
            if batch_norm == "after":
                layers.append(nn.BatchNorm2d(width_out))
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(64 * 4 * 4, 512), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(512, num_classes))
