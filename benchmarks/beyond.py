"""What a second process brings and costs, and what pictures cost that are read from the disk; `make bench` runs it after bench.py.

Processes: images a second that ResNet-20 trains in batches of 100, alone with one thread, alone with all threads, and in two processes
that share the cores. The two also go through the steps without the exchange of gradients: by how much that is faster is the share of the
time that the exchange takes. On a machine with several GPUs it is ResNet-50 at 224×224, and a process for each GPU.

Pictures: two folders of JPEG files, one four times as large as the other, are read once by FolderLoader; the most memory that the
process and its two readers have held at every tenth batch. Then ResNet-50 trains at 224×224 on such a folder.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from utils import distributed, models, stream, train

RESULTS = Path(__file__).parent / "results"
GPUS = torch.cuda.device_count()
DEVICE, COUNT = torch.device("cuda" if GPUS > 1 else "cpu"), max(2, GPUS)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MAKE, SIDE, BATCH = (models.resnet50, 224, 64 * COUNT) if GPUS > 1 else (lambda: models.cifar_resnet(20), 32, 100)
ROUNDS, STEPS = 5, 8
PICTURES, PICTURE_SIDE, READERS = (8_000, 32_000), 96, 2


# ---- processes ------------------------------------------------------------------------------------------------------


def steps(model, images, device, context):
    """Seconds of some training steps."""
    batch = torch.randn(images, 3, SIDE, SIDE, device=device)
    labels = torch.randint(10, (images,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    dtype = train.precision(device).dtype
    start = time.perf_counter()
    with context():
        for _ in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = nn.functional.cross_entropy(model(batch), labels)
            loss.backward()
            optimizer.step()
    loss.item()  # waits for a GPU
    return time.perf_counter() - start


def measure_speeds():
    """In each process: all ways in turn. The first prints {way: images a second in each round}."""
    device = distributed.start(DEVICE)
    memory_format = train.precision(device).memory_format
    alone, together = MAKE().to(device, memory_format=memory_format), distributed.wrap(MAKE().to(device))
    threads = max(1, CORES // COUNT)
    ways = {
        "one_thread": (alone, BATCH, 1, contextlib.nullcontext), "one_process": (alone, BATCH, CORES, contextlib.nullcontext),
        "processes": (together, BATCH // COUNT, threads, contextlib.nullcontext),
        "without_exchange": (together, BATCH // COUNT, threads, together.no_sync),
    }  # fmt: skip
    if DEVICE.type == "cuda":
        del ways["one_thread"]
    found = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (model, images, threads, context) in ways.items():
            dist.barrier()
            if model is together or distributed.rank() == 0:
                torch.set_num_threads(threads)
                seconds = steps(model, images, device, context)
                if number:  # the first round is the warm-up
                    found[way].append(STEPS * BATCH / seconds)
    print(json.dumps(found), flush=True)
    distributed.end()


def speeds():
    *_, line = distributed.torchrun(COUNT, __file__, "--speeds")
    found = json.loads(line)
    shares = [1 - together / free for together, free in zip(found["processes"], found["without_exchange"], strict=True)]
    rates = {way: statistics.median(rounds) for way, rounds in found.items()}
    return {
        "processes": COUNT, "batch": BATCH, "images_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "factor": round(rates["processes"] / rates["one_process"], 3), "exchange": round(statistics.median(shares), 3),
        "exchange_range": [round(min(shares), 3), round(max(shares), 3)],
    }  # fmt: skip


# ---- pictures -------------------------------------------------------------------------------------------------------


def make_folder(place, count, side):
    """Write so many JPEG files of soft colours, in four classes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = Path(place, f"class{number % 4}", f"{number}.jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC).save(file)


def held():
    """Bytes of this process and those that it has started: without libraries, and what they share is counted once."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        parts = Path(f"/proc/{process.pid}/smaps_rollup")
        if parts.exists():  # Linux, which says of memory that n processes share an n-th
            total += 1024 * sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", parts.read_text(), re.MULTILINE)))
        else:
            total += process.memory_full_info().uss
    return total


def measure_memory(place):
    torch.set_num_threads(1)
    loader = stream.FolderLoader(stream.pictures(place), 64, size=64, crop=True, shuffle=True, workers=READERS)
    read = most = 0
    for number, (_, labels) in enumerate(loader):
        read += len(labels)
        if number % 10 == 0:
            most = max(most, held())
    print(json.dumps({"read": read, "bytes": most}))


def memory(folder):
    """Peak memory by the number of pictures, each in a process of its own."""
    peaks = []
    for count in PICTURES:
        make_folder(Path(folder, str(count)), count, PICTURE_SIDE)
        command = [sys.executable, __file__, "--memory", Path(folder, str(count))]
        row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        assert row["read"] == count
        peaks.append(row["bytes"])
    return {
        "pictures": PICTURES, "side": PICTURE_SIDE, "readers": READERS, "peak_megabytes": [round(peak / 1e6, 1) for peak in peaks],
        "grown_megabytes": round((peaks[1] - peaks[0]) / 1e6, 1),
        "decoded_megabytes": [round(count * 3 * PICTURE_SIDE**2 / 1e6, 1) for count in PICTURES],
    }  # fmt: skip


def resnet50(folder):
    """ResNet-50 at 224×224 on a folder, without the first batch; and how many pictures the readers alone deliver."""
    device = train.device()
    batch, batches = (128, 40) if device.type == "cuda" else (16, 10)
    make_folder(folder, batch * batches, 300)
    loader = stream.FolderLoader(stream.pictures(folder), batch, crop=True, shuffle=True, workers=READERS, device=device, drop_last=True)

    def rate(use):
        marks = [time.perf_counter() for _ in use()]
        return round(batch * (len(marks) - 1) / (marks[-1] - marks[0]), 1)

    def training():
        model = models.resnet50(4).to(device, memory_format=train.precision(device).memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for images, labels in itertools.islice(loader, batches // 2):
            train.epoch(model, [(images, labels)], nn.CrossEntropyLoss(), optimizer)
            yield

    return {"batch": batch, "side": 224, "images_per_second": rate(training), "read_per_second": rate(lambda: iter(loader))}


# ---- all of it ------------------------------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure what several processes and pictures on the disk cost.")
    parser.add_argument("--speeds", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.speeds:
        return measure_speeds()
    if options.memory:
        return measure_memory(options.memory)
    record = {
        "device": f"{GPUS} × {torch.cuda.get_device_name()}" if GPUS > 1 else f"cpu, {CORES} cores", "torch": torch.__version__,
        "python": platform.python_version(), "rounds": ROUNDS, "network": "ResNet-50" if GPUS > 1 else "ResNet-20",
    }  # fmt: skip
    record["speed"] = found = speeds()
    rates = ", ".join(f"{way.replace('_', ' ')} {rate:,.0f}" for way, rate in found["images_per_second"].items())
    print(f"{record['network']}, {record['device']}, images a second: {rates}")
    print(
        f"{COUNT} processes: {found['factor']:.2f} times as fast as one; the exchange takes {found['exchange']:.0%} of the time", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        record["memory"] = found = memory(folder)
        for count, peak, decoded in zip(PICTURES, found["peak_megabytes"], found["decoded_megabytes"], strict=True):
            print(f"{count:,} pictures: {peak:,.0f} MB at most; decoded they would take {decoded:,.0f} MB", flush=True)
        record["resnet50_at_224"] = found = resnet50(Path(folder, "large"))
    print(f"ResNet-50 at 224×224 from the disk: {found['images_per_second']} images a second; reading alone: {found['read_per_second']}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"beyond_{DEVICE.type}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
