"""How fast the curriculum trains, next to what learners would use instead; `make bench`.

Four ways to train the same network on the same images with the same augmentation:

    shared     utils: BatchLoader and train.epoch
    textbook   Compose + DataLoader, no workers, fp32, loss.item() after every step
    workers    the same with worker processes
    tuned      the usual tricks: workers, pinned memory, cudnn.benchmark, channels_last, AMP (on CUDA), no .item()

They run in turn, so a machine whose speed drifts spoils no ratio; the table gives medians, and ratios are taken round by round. The
share of the peak compares the multiplications of a training step with those of a large matrix product in the same number format,
timed in the same run, and the share of the bandwidth compares what its operations read and write with the copying of a large tensor.
Made-up images: their content makes no difference to the time.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms import v2

from runner import run_all
from utils import data, models, train

DEVICE = train.device()
CUDA = DEVICE.type == "cuda"
RESULTS = Path(__file__).parent / "results"
ROUNDS, LOADER_IMAGES, GROWTH = 7, 5_120, (1_000, 10_000, 50_000)
WORKERS = 2 if not CUDA else min(8, os.cpu_count())
# name: (network, side of the images, batch size, images a round on a CPU, and on CUDA)
WORKLOADS = {
    "CNN": (lambda: models.CNN(100), 32, 256, 5_120, 40_960),
    "ResNet-25": (lambda: models.resnet25(100), 32, 128, 512, 40_960),
    "ResNet-18-CIFAR-stem": (lambda: models.resnet18(100, stem="cifar"), 32, 128, 256, 20_480),
    "ResNet-18-at-96": (lambda: models.resnet18(100), 96, 64, 192, 20_480),
    "ResNet-50-at-224": (lambda: models.resnet50(100), 224, 16 if not CUDA else 128, 32, 5_120),
}


class Pictures(torch.utils.data.Dataset):
    """What torchvision.datasets.CIFAR100 does with one image."""

    def __init__(self, split, side):
        self.images, self.labels = split.images.permute(0, 2, 3, 1).contiguous().numpy(), split.labels.tolist()
        resize = [] if side == 32 else [v2.Resize(side, antialias=True)]
        augment = [v2.RandomHorizontalFlip(), v2.RandomRotation(15), v2.RandomCrop(side, padding=4)]
        normalise = [v2.Normalize([0.5] * 3, [0.5] * 3)]
        self.transform = v2.Compose([v2.ToImage(), *resize, v2.ToDtype(torch.float32, scale=True), *augment, *normalise])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def loader_of(side, split, size, batch_size):
    """The loader of one of the four ways."""
    if side == "shared":
        return data.BatchLoader(split, batch_size, data.Augment(), shuffle=True, device=DEVICE, size=None if size == 32 else size)
    workers = {"num_workers": WORKERS, "persistent_workers": True} if side != "textbook" else {}
    return torch.utils.data.DataLoader(Pictures(split, size), batch_size, shuffle=True, pin_memory=CUDA and side == "tuned", **workers)


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


def tuned_epoch(model, loader, criterion, optimizer):
    """The loop of the popular CIFAR repositories."""
    model.train()
    for images, labels in loader:
        images = images.to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(DEVICE, non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
            loss = criterion(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


LOOPS = {"shared": train.epoch, "textbook": textbook_epoch, "workers": textbook_epoch, "tuned": tuned_epoch}


def trainer(side, make, split, size, batch_size):
    """A function that trains one pass in one of the four ways."""
    torch.manual_seed(0)
    layout = {} if side in ("textbook", "workers") else {"memory_format": torch.channels_last}
    model, loader = make().to(DEVICE, **layout), loader_of(side, split, size, batch_size)
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), nn.CrossEntropyLoss()

    def one_pass():
        torch.backends.cudnn.benchmark = side == "tuned"
        LOOPS[side](model, loader, criterion, optimizer)

    return one_pass


def seconds(work):
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # the progress bars
        work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(dtype=torch.bfloat16 if CUDA else torch.float32, n=8192 if CUDA else 2048):
    """Multiplications and additions a second of a product of two large matrices."""
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(3))


def operations(model, size):
    """Multiplications and additions of a training step for one image: forward, and twice as many backward; but the gradient of the
    image itself is not computed."""
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    positions = (size // first.stride[0]) ** 2
    return 2 * (3 * models.macs(model, (3, size, size)) - first.weight.numel() * positions)


def bandwidth(size=2**30 if CUDA else 2**28):
    """Bytes a second of a copy of a large tensor, read and written."""
    a, b = (torch.ones(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    return 2 * size / min(seconds(lambda: b.copy_(a)) for _ in range(4))


class Traffic(TorchDispatchMode):
    """Counts the bytes of all operations, each of which reads its inputs and writes its output once."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        output = function(*arguments, **(options or {}))
        if not function.is_view:
            self.bytes += sum(x.nbytes for x in tree_leaves((arguments, options, output)) if isinstance(x, torch.Tensor))
        return output


def traffic(model, size):
    """Bytes that the operations of a training step read and write for one image, without those for the weights alone."""
    model, found = model.to("meta").train(), []  # a device that knows shapes and computes nothing
    for images in (2, 4):
        batch, labels = torch.empty(images, 3, size, size, device="meta"), torch.empty(images, dtype=torch.int64, device="meta")
        model.zero_grad()
        with Traffic() as counted:
            nn.functional.cross_entropy(model(batch), labels).backward()
        found.append(counted.bytes)
    return (found[1] - found[0]) // (2 * (2 if CUDA else 1))  # two images more; half the bytes with 16-bit numbers


def rounds(works, images, gauges=None):
    """Time all works in turn, {name: images a second in each round}; gauges: {name: function}, each read once a round."""
    gauges = gauges or {}
    for work in works.values():  # warm up
        seconds(work)
    speeds = {name: [] for name in (*works, *gauges)}
    for number in range(ROUNDS):
        for name, gauge in gauges.items():
            speeds[name].append(gauge())
        for name in list(works)[:: 1 if number % 2 else -1]:
            speeds[name].append(images / seconds(works[name]))
    return speeds


def ratio(speeds, other):
    found = sorted(a / b for a, b in zip(speeds["shared"], speeds[other], strict=True))
    return {"median": round(statistics.median(found), 2), "range": [round(found[0], 2), round(found[-1], 2)]}


def first_batch(side, split, size, batch_size):
    """Seconds from nothing to the first batch."""
    return seconds(lambda: next(iter(loader_of(side, split, size, batch_size))))


def memory(workload, side):
    """Peak memory in bytes of some steps, in a process of its own: of the GPU, or of the process beyond its imports."""
    command = [sys.executable, __file__, "--memory", workload, side]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(out.split()[-1])


def measure_memory(workload, side):
    make, size, batch_size, *_ = WORKLOADS[workload]
    split = data.synthetic("cifar100", train=2 * batch_size, test=10).train
    before = peak_memory()
    one_pass = trainer(side, make, split, size, batch_size)
    for _ in range(2):
        seconds(one_pass)
    print(torch.cuda.max_memory_allocated() if CUDA else peak_memory() - before)


def measure(workload):
    make, size, batch_size, *images = WORKLOADS[workload]
    split = data.synthetic("cifar100", train=images[CUDA], test=10).train
    works = {side: trainer(side, make, split, size, batch_size) for side in LOOPS}
    speeds = rounds(works, len(split), {"peak": peak, "bandwidth": bandwidth})
    most_operations, most_bytes = (statistics.median(speeds.pop(gauge)) for gauge in ("peak", "bandwidth"))
    speed = statistics.median(speeds["shared"])
    found = {
        "images_per_second": {side: round(statistics.median(speed), 1) for side, speed in speeds.items()},
        "ratio": {side: ratio(speeds, side) for side in LOOPS if side != "shared"},
        "share_of_peak": round(speed * operations(make(), size) / most_operations, 3), "peak_gflops": round(most_operations / 1e9, 1),
        "share_of_bandwidth": round(speed * traffic(make(), size) / most_bytes, 3), "gigabytes_per_second": round(most_bytes / 1e9, 1),
        "first_batch_seconds": {side: round(first_batch(side, split, size, batch_size), 4) for side in ("shared", "textbook", "workers")},
    }  # fmt: skip
    del works
    gc.collect()  # ends the worker processes
    found["peak_memory_bytes"] = {side: memory(workload, side) for side in ("shared", "textbook")}
    return found


def growth():
    """The shared loader with few and with many images: seconds an image, and memory in bytes beyond the images themselves."""
    found = {}
    for images in GROWTH:
        split = data.synthetic("cifar100", train=images, test=10).train
        loader = loader_of("shared", split, 32, 256)
        passes = GROWTH[-1] // images
        once = [seconds(lambda loader=loader, passes=passes: [len(y) for _ in range(passes) for _, y in loader]) for _ in range(4)]
        found[str(images)] = {"seconds_per_image": statistics.median(once[1:]) / passes / images}
        if not CUDA:
            out = subprocess.run(
                [sys.executable, __file__, "--loader-memory", str(images)], capture_output=True, text=True, check=True
            ).stdout
            found[str(images)]["extra_bytes"] = int(out.split()[-1])
    return found


def measure_loader_memory(images):
    # Made of random bytes: what it takes to draw real shapes must not hide what the loader takes.
    split = data.Split(torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8), torch.zeros(images, dtype=torch.int64))
    for _ in loader_of("shared", split[:512], 32, 256):  # what PyTorch itself needs for a first batch
        pass
    before = peak_memory()
    for _ in loader_of("shared", split, 32, 256):
        pass
    print(peak_memory() - before)


def runner_overhead():
    """Seconds that the runner, papermill and the kernel's start add to a notebook's own work, here one import."""
    cells = [nbformat.v4.new_code_cell("DEVICE = 'auto'", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("import time\nstart = time.perf_counter()\nimport torch\nprint(time.perf_counter() - start)"))
    language = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        run_all.ROOT = Path(folder)
        path = Path(folder, "notebooks", "00_empty.ipynb")
        path.parent.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=language), path)
        for _ in range(4):
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                _, problem = run_all.run(path, {"DEVICE": "cpu"}, "overhead", fresh=False)
            spent.append(time.perf_counter() - start)
            if problem:
                raise RuntimeError(problem)
            executed = nbformat.read(Path(folder, "figures", path.stem, path.name), as_version=4)
            spent[-1] -= float(executed.cells[-1].outputs[0].text)
    return round(statistics.median(spent[1:]), 2)


def peak_memory():
    """The most bytes that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage would go on from the peak of the process that started this one
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def print_row(name, *cells):
    print(f"{name:21}", *[f"{cell:>10}" for cell in cells], flush=True)


TITLES = {
    "loader": "loader alone", "CNN": "CNN of notebook 01", "ResNet-25": "ResNet-25 of notebook 03",
    "ResNet-18-CIFAR-stem": "ResNet-18, CIFAR stem", "ResNet-18-at-96": "ResNet-18 at 96×96", "ResNet-50-at-224": "ResNet-50 at 224×224",
}  # fmt: skip


def table(record):
    """The figures as a table in Markdown, which `make report` puts into docs/speed.md."""
    lines = [f"{record['device']}, torch {record['torch']}, medians of {record['rounds']} rounds, images a second:", ""]
    columns = ["", "`utils`", "textbook", "with workers", "tuned", "`utils` / textbook", "`utils` / tuned"]
    columns += ["of the matrix peak", "of the memory bandwidth"]
    lines += ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for name, title in TITLES.items():
        if name in record:
            row = record[name]
            speeds = [row["images_per_second"].get(side) for side in ("shared", "textbook", "workers", "tuned")]
            cells = [f"{value:,.{0 if value > 1000 else 1}f}" if value else "" for value in speeds]
            shares = [f"{100 * row[share]:.0f} %" if share in row else "" for share in ("share_of_peak", "share_of_bandwidth")]
            ratios = [f"{row['ratio'][side]['median']:.2f}" if side in row["ratio"] else "" for side in ("textbook", "tuned")]
            lines.append("| " + " | ".join([title, *cells, *ratios, *shares]) + " |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure training speed.")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--loader-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.loader_memory:
        return measure_loader_memory(options.loader_memory)
    if options.memory:
        return measure_memory(*options.memory)
    name = train.device_name(DEVICE)
    print(f"{name}; torch {torch.__version__}; medians of {ROUNDS} rounds, {WORKERS} workers")
    print("peak, bandwidth: the share of them that `shared` reaches; start: its time to the first batch; memory: its peak\n")
    split = data.synthetic("cifar100", train=LOADER_IMAGES, test=10).train
    loaders = {side: loader_of(side, split, 32, 256) for side in ("shared", "textbook", "workers")}
    works = {side: lambda loader=loader: [len(labels) for _, labels in loader] for side, loader in loaders.items()}
    works["shared"] = lambda: [len(labels) for _ in range(10) for _, labels in loaders["shared"]]  # long enough to time
    speeds = rounds(works, len(split))
    speeds["shared"] = [10 * speed for speed in speeds["shared"]]
    results = {
        "loader": {
            "images_per_second": {side: round(statistics.median(speed)) for side, speed in speeds.items()},
            "ratio": {side: ratio(speeds, side) for side in ("textbook", "workers")},
        }
    }
    row = results["loader"]
    print_row("images a second", "shared", "textbook", "workers", "tuned", "/ textbook", "/ tuned", "peak", "bandwidth", "start", "memory")
    speeds = [f"{v:,.0f}" for v in row["images_per_second"].values()]
    print_row("loader alone", *speeds, "", f"{row['ratio']['textbook']['median']:.1f}")
    record = {"device": name, "torch": torch.__version__, "python": platform.python_version(), "rounds": ROUNDS, "workers": WORKERS}
    record |= {"growth": growth(), "runner_overhead_seconds": runner_overhead()}
    RESULTS.mkdir(exist_ok=True)
    for workload in options.only:
        results[workload] = row = measure(workload)
        print_row(
            workload,
            *[f"{v:,.1f}" for v in row["images_per_second"].values()],
            *[f"{row['ratio'][side]['median']:.2f}" for side in ("textbook", "tuned")],
            *[f"{row[share]:.0%}" for share in ("share_of_peak", "share_of_bandwidth")],
            f"{1000 * row['first_batch_seconds']['shared']:.0f} ms",
            f"{row['peak_memory_bytes']['shared'] / 1e6:,.0f} MB",
        )
        (RESULTS / f"{DEVICE.type}.json").write_text(json.dumps(record | results, indent=1) + "\n")  # after each, should it be stopped
        (RESULTS / f"{DEVICE.type}.md").write_text(table(record | results))
    few, many = (record["growth"][str(images)]["seconds_per_image"] for images in (GROWTH[0], GROWTH[-1]))
    print(f"loader: an image of {GROWTH[-1]:,} takes {many / few:.2f} times as long as one of {GROWTH[0]:,}")
    print(f"runner: a notebook takes {record['runner_overhead_seconds']} s beside its own work")


if __name__ == "__main__":
    main()
