"""How fast the shared loader and loop are, next to what every tutorial writes; `make bench`.

Both sides do the same work (same images, transformations, network, batch size) in turn, A B A B …; the table gives medians, and
the ratios are taken pair by pair, so a machine whose speed drifts does not spoil them. Made-up images: their content makes no
difference to the time.
"""

import contextlib
import io
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from utils import data, models, train

PAIRS, IMAGES, BATCH = 7, 5_000, 256
DEVICE = train.device()


class Pictures(torch.utils.data.Dataset):
    """What torchvision.datasets.CIFAR100 does with one image."""

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
            v2.RandomCrop(32, padding=4),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def __init__(self, split):
        self.images, self.labels = split.images.permute(0, 2, 3, 1).contiguous().numpy(), split.labels.tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def textbook_epoch(model, loader, criterion, optimizer):
    """The training loop of most tutorials."""
    model.train()
    for images, labels in loader:
        images, labels = images.to(DEVICE), labels.to(DEVICE)
        optimizer.zero_grad()
        logits = model(images)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        loss.item()
        (logits.argmax(1) == labels).sum().item()


def seconds(work):
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name, textbook, shared, repeat):
    """Time both in turn; the shared side runs `repeat` times in each turn, so that it is long enough to time."""

    def several():
        with contextlib.redirect_stdout(io.StringIO()):  # the progress bars
            for _ in range(repeat):
                shared()

    several()  # warm up
    pairs = [(IMAGES / seconds(textbook), repeat * IMAGES / seconds(several)) for _ in range(PAIRS)]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(ours / theirs for theirs, ours in pairs)
    ratio = statistics.median(ratios)
    print(f"{name:22} {a:9,.0f} images/s  {b:9,.0f} images/s  {ratio:5.1f} times  ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    return {"textbook": round(a), "shared": round(b), "ratio": round(ratio, 2), "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)]}


def main():
    split = data.synthetic("cifar100", train=IMAGES, test=100).train
    textbook = torch.utils.data.DataLoader(Pictures(split), BATCH, shuffle=True)
    shared = data.BatchLoader(split, BATCH, data.Augment(), shuffle=True, device=DEVICE)
    criterion = nn.CrossEntropyLoss()
    theirs, ours = models.CNN().to(DEVICE), models.CNN().to(DEVICE, memory_format=torch.channels_last)
    their_optimizer, our_optimizer = (torch.optim.AdamW(model.parameters()) for model in (theirs, ours))

    name = train.device_name(DEVICE)
    print(f"{name}; torch {torch.__version__}; {IMAGES:,} images of 3×32×32, batches of {BATCH}, medians of {PAIRS} pairs\n")
    print(f"{'':22} {'textbook':>18}  {'shared':>18}  ratio")
    results = {
        "loader": compare("loader alone", lambda: list(map(len, textbook)), lambda: list(map(len, shared)), repeat=10),
        "cnn_epoch": compare(
            "training epoch, CNN",
            lambda: textbook_epoch(theirs, textbook, criterion, their_optimizer),
            lambda: train.epoch(ours, shared, criterion, our_optimizer),
            repeat=2,
        ),
    }
    record = {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "images": IMAGES,
        "batch_size": BATCH,
        "pairs": PAIRS,
    }
    path = Path(__file__).parent / "results" / f"{DEVICE.type}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
