"""Train a network of the curriculum from the command line, with one process or many; see distributed.py.

    python -m utils.train --network resnet20 --data cifar10 --epochs 12
    torchrun --nproc-per-node=2 --local-addr=127.0.0.1 -m utils.train --network resnet20 --data cifar10 --epochs 12

Each process takes its part of every batch. The batch size is that of all together, so that the training is the same for any number of
processes, but for rounding and batch norm, whose statistics are of a process's own part. What is printed comes from the first process.

With a checkpoint file, a training that was stopped goes on after its last whole epoch. With as many processes as before, and on CPUs, it
ends with the very same weights as one that was never stopped. With more or fewer, the images of each step and the learning rates are the
same; the weights differ by rounding, and by what each process draws or measures on its own part: dropout and batch norm.
"""

import argparse
import functools
import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from . import data, distributed, models, stream, train
from .checkpoint import digest
from .files import atomic_write


def _narrow(depth, kind, classes, channels, pixels):
    return models.he_normal_(models.cifar_resnet(depth, kind, classes, channels))


def _resnet(depth, preactivated, classes, channels, pixels):
    return models.resnet(depth, classes, channels, "cifar" if pixels <= 64 else "imagenet", preactivated)


def _cnn(classes, channels, pixels):
    if pixels != 32:
        raise ValueError(f"the network cnn takes images of 32×32 pixels, not {pixels}×{pixels}")
    return models.CNN(classes, channels, batch_norm="after")


NETWORKS = {"cnn": _cnn, "resnet25": lambda classes, channels, pixels: models.resnet25(classes, channels)}
for _depth in (20, 32, 44, 56, 110):
    for _prefix, _kind in (("plain", "plain"), ("resnet", "v1"), ("preact_resnet", "v2")):
        NETWORKS[f"{_prefix}{_depth}"] = functools.partial(_narrow, _depth, _kind)
for _depth in (18, 34, 50, 101, 152):
    for _prefix, _preactivated in (("resnet", False), ("preact_resnet", True)):
        NETWORKS[f"{_prefix}{_depth}"] = functools.partial(_resnet, _depth, _preactivated)


class Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, from one process
        if os.environ.get("RANK", "0") == "0":
            print(f"utils.train: {message} (--help explains all options)", file=sys.stderr)
        sys.exit(2)


def parse(arguments):
    first, _, rest = __doc__.partition("\n\n")
    parser = Parser("python -m utils.train", description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", required=True, metavar="NAME", help=", ".join(NETWORKS))
    add("--data", default="cifar10", help=f"{', '.join(data.KNOWN)}, synthetic, or a folder of class folders (default: cifar10)")
    add("--epochs", type=_positive(int), default=12, help="passes over the training images (default: %(default)s)")
    add("--batch-size", type=_positive(int), default=128, help="images in a step, of all processes together (default: %(default)s)")
    add("--lr", type=_positive(float), default=0.1, help="the highest learning rate of the one cycle (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the weights, the order and the augmentation (default: %(default)s)")
    add("--images", type=_positive(int), help="take only so many of the training images, a tenth of them for validation")
    add("--device", default="auto", help="auto, cpu or cuda (default: a GPU for each process where there is one)")
    add("--size", type=_positive(int), help="pixels to which the pictures of a folder are scaled (default: 32, or 224 with --stream)")
    add("--stream", action="store_true", help="read the pictures from the disk batch by batch; --data is a folder with train/ and val/")
    add("--workers", type=int, default=2, help="with --stream: how many processes read for each that trains (default: %(default)s)")
    add("--sync-batch-norm", action="store_true", help="batch norm over the whole batch of all processes; on GPUs only")
    add("--checkpoint", metavar="FILE", help="keep the training here after each epoch, and go on from it if it is there")
    add("--result", metavar="FILE", help="write history, accuracy and a digest of the weights as JSON")
    options = parser.parse_args(arguments)
    if options.network not in NETWORKS:
        parser.error(f"no network {options.network!r}: use one of {', '.join(NETWORKS)}")
    if options.seed < 0 or options.workers < 0:
        parser.error("--seed and --workers must be at least 0")
    return options


def _positive(kind):
    def convert(text):
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError
        return value

    convert.__name__ = "number above 0"  # argparse puts it into its message
    return convert


def main(arguments=None):
    options = parse(arguments)
    try:
        run(options)
        together = distributed.processes() > 1
        distributed.end()
    except (Exception, KeyboardInterrupt) as error:
        distributed.fail(error)
    if together:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # at once: Python would take itself apart first, and a thread of gloo that wakes up meanwhile aborts the process


def run(options):
    device = distributed.start(train.device(options.device))
    title, classes, shape, loader, val_loader, test_loader = loaders(options, device)
    torch.manual_seed(options.seed)
    model = NETWORKS[options.network](classes, shape[0], shape[-1]).to(device)
    if options.sync_batch_norm:
        if device.type != "cuda":
            raise ValueError("--sync-batch-norm needs GPUs: PyTorch has no such layer for CPUs")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    count = distributed.processes()
    size = sum(parameter.numel() for parameter in model.parameters())
    steps = f"{len(loader):,} steps an epoch of {options.batch_size} images"
    shares = f", {options.batch_size // count} in each of {count} processes" if count > 1 else ""
    print(f"{options.network}, {size:,} parameters, on {title}: {steps}{shares}, {train.device_name(device)}", flush=True)
    optimizer, scheduler = train.sgd_one_cycle(model, options.lr, options.epochs * len(loader))
    model = distributed.wrap(model)
    history = train.fit(
        model, loader, val_loader, epochs=options.epochs, optimizer=optimizer, scheduler=scheduler, checkpoint=options.checkpoint,
    )  # fmt: skip
    loss, accuracy = train.epoch(model, test_loader, nn.CrossEntropyLoss(), label="test ")
    print(f"test images: loss {loss:.3f}, accuracy {accuracy:.2%}", flush=True)
    if options.result and distributed.rank() == 0:
        weights = digest(*distributed.unwrapped(model).state_dict().values())
        record = {"history": vars(history), "test_loss": loss, "test_accuracy": accuracy, "weights": weights, "processes": count}
        with atomic_write(options.result) as partial:
            Path(partial).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def loaders(options, device):
    """(name of the data, number of classes, shape of an image, loaders of the training, validation and test images)."""
    share = distributed.share()
    learn = {"shuffle": True, "seed": options.seed, "drop_last": True}
    if options.stream:
        size, train_set, val_set, test_set = options.size or 224, *stream.folders(options.data)
        if options.images:
            every = max(1, len(train_set) // options.images)
            train_set, val_set = train_set[::every], val_set[::every]
        common = {"size": size, "workers": options.workers, "device": device, "share": share}
        training = stream.FolderLoader(train_set, options.batch_size, crop=True, **learn, **common)
        others = (stream.FolderLoader(part, options.batch_size, **common) for part in (val_set, test_set))
        return Path(options.data).name, len(train_set.classes), (3, size, size), training, *others
    dataset = data.load(options.data, size=options.size or 32)
    sample = dataset.train.sample(options.images or len(dataset.train), seed=0)
    train_set, val_set = sample.hold_out(max(1, len(sample) // 10), seed=0)
    augment = data.Augment(rotate=0, flip=0.5 if dataset.name != "fashionmnist" else 0)
    training = data.BatchLoader(train_set, options.batch_size, augment, device=device, share=share, **learn)
    others = (data.BatchLoader(part, 512, device=device, share=share) for part in (val_set, dataset.test))
    title = "made-up images" if dataset.synthetic else dataset.name
    return title, len(dataset.classes), tuple(dataset.test.images.shape[1:]), training, *others
