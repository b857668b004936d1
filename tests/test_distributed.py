"""Training with several processes: the same numbers as with one, and an end without a hang, whatever happens to one of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from utils import command, data, distributed, stream

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_hang():
    """A test that waits for ever is one that fails."""

    def too_late(number, frame):
        raise TimeoutError("no end after two minutes")

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(120)
    yield
    signal.alarm(0)


def launch(folder, program, count=2, **options):
    """Run a program, given as text, with two processes; returns (whether it ended well, its lines)."""
    file = Path(folder, "program.py")
    file.write_text(program)
    return collect(distributed.torchrun(count, file, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options))


def collect(lines):
    found = []
    try:
        for line in lines:
            found.append(line)
    except subprocess.CalledProcessError:
        return False, found
    return True, found


# ---- which images a process takes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (3, 8), (64, 16), (65, 16)])
def test_every_image_is_taken_once(n, batch_size, processes):
    images = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    split = data.Split(images, torch.arange(n))
    loaders = [data.BatchLoader(split, batch_size, shuffle=True, share=(rank, processes)) for rank in range(processes)]
    taken = [labels for loader in loaders for _, labels in loader]
    assert torch.cat(taken).sort()[0].tolist() == list(range(n))
    assert max(map(len, taken)) <= -(-batch_size // processes)


def test_the_parts_of_a_batch_are_that_batch():
    rng = np.random.default_rng(0)
    split = data.Split(torch.from_numpy(rng.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)), torch.arange(40))
    options = {"shuffle": True, "seed": 3, "drop_last": True}
    whole = data.BatchLoader(split, 12, data.Augment(flip="alternating"), ahead=2, **options)
    parts = [data.BatchLoader(split, 12, data.Augment(flip="alternating"), share=(rank, 3), **options) for rank in range(3)]
    for _ in range(2):  # epochs
        for (images, labels), *shares in zip(whole, *parts, strict=True):
            assert torch.equal(labels, torch.cat([share[1] for share in shares]))
            assert torch.equal(images, torch.cat([share[0] for share in shares]))


def test_training_steps_must_have_equal_parts():
    split = data.synthetic("cifar10", train=30, test=2).train
    for batch_size in (9, 32):
        with pytest.raises(ValueError, match="equal parts"):
            data.BatchLoader(split, batch_size, drop_last=True, share=(0, 2))


# ---- the same numbers -----------------------------------------------------------------------------------------------

EXACT = """
import json
import torch
from torch import nn
from utils import data, distributed, models, train

distributed.start(torch.device("cpu"))
share, result = distributed.share(), {}
dataset = data.synthetic("cifar10", train=100, test=37)
criterion = nn.CrossEntropyLoss()

def steps(share, halves):
    torch.manual_seed(distributed.rank())  # DistributedDataParallel takes the first one's weights
    model = models.cifar_resnet(20)
    loader = data.BatchLoader(dataset.train, 32, data.Augment(), shuffle=True, drop_last=True, share=share)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if not halves:
        model = distributed.wrap(model)
        loss = train.epoch(model, loader, criterion, optimizer)
        test = train.epoch(model, data.BatchLoader(dataset.test, 8, share=share), criterion)
        return distributed.unwrapped(model), loss, test
    for images, labels in loader:
        optimizer.zero_grad()
        for part in zip(images.chunk(2), labels.chunk(2)):
            (criterion(model(part[0]), part[1]) / 2).backward()
        optimizer.step()
    return model

together, learnt, found = steps(share, False)
plain = models.cifar_resnet(20)
plain.load_state_dict(together.state_dict())
result["weights of all"] = len(set(distributed.from_all(str([t.sum().item() for t in together.state_dict().values()]))))
if distributed.rank() == 0:
    distributed.end()  # what follows is for one process
    expected = train.epoch(plain, data.BatchLoader(dataset.test, 37), criterion)
    alone = steps((0, 1), True)
    pairs = list(zip(together.parameters(), alone.parameters()))
    result["difference"] = max((a - b).abs().max().item() for a, b in pairs)
    result["gradients"] = max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in pairs)
    result["test"] = [found, expected]
    print("RESULT", json.dumps(result))
"""


def test_two_processes_make_the_steps_of_one_with_half_batches_and_evaluate_exactly(tmp_path):
    well, lines = launch(tmp_path, EXACT)
    assert well, lines
    result = json.loads(next(line for line in lines if line.startswith("RESULT"))[7:])
    assert result["weights of all"] == 1
    assert result["difference"] < 1e-4 and result["gradients"] < 1e-3, result
    (loss, accuracy), (loss_alone, accuracy_alone) = result["test"]
    assert accuracy == accuracy_alone and loss == pytest.approx(loss_alone, rel=1e-5)


# ---- what goes wrong ------------------------------------------------------------------------------------------------

FAILS = """
import sys
import torch
from torch import nn
from utils import command, data, distributed, train

def run(what):
    distributed.start(torch.device("cpu"))
    dataset = data.synthetic("cifar10", train=64, test=2)
    seed = distributed.rank() if what == "data" else 0
    loader = data.BatchLoader(dataset.train, 32, shuffle=True, seed=seed, drop_last=True, share=distributed.share())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    def criterion(logits, labels):
        if what == "exception" and distributed.rank() == 1:
            logits.nothing
        return nn.functional.cross_entropy(logits, labels) * (float("nan") if what == "NaN" and distributed.rank() == 1 else 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train.fit(distributed.wrap(model), loader, None, epochs=2, optimizer=optimizer, criterion=criterion)

try:
    run(open("what").read())
except BaseException as error:
    distributed.fail(error)
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("NaN", "the loss is NaN or infinite from batch 1 of 2 on"),
        ("exception", "process 1: AttributeError: 'Tensor' object has no attribute 'nothing' (program.py, line 16)"),
        ("data", "process 1 differs from process 0: training seed is 1 there and 0 here"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_in_one_line(what, words, tmp_path):
    (tmp_path / "what").write_text(what)
    start = time.monotonic()
    well, lines = launch(tmp_path, FAILS)
    assert not well and len(lines) == 1 and words in lines[0], lines
    assert time.monotonic() - start < 60


def test_a_mistyped_option_is_one_line(capsys, monkeypatch):
    for arguments, words in [(["--netwrk", "cnn"], "--network"), (["--network", "resnet21"], "no network 'resnet21'"),
                             (["--network", "cnn", "--epochs", "0"], "--epochs")]:  # fmt: skip
        with pytest.raises(SystemExit):
            command.main(arguments)
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        command.main(["--network", "resnet21"])
    assert capsys.readouterr().err == ""


def test_every_network_of_the_command_can_be_made():
    with torch.device("meta"):
        for make in command.NETWORKS.values():
            make(10, 3, 32)


# ---- killed, interrupted, taken up again ----------------------------------------------------------------------------

TRAIN = ["-m", "utils.train", "--network", "cnn", "--data", "synthetic", "--images", "600", "--epochs", "8", "--batch-size", "64"]
OPTIONS = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}}


def workers(file):
    """The numbers of all processes that are given this file as an argument."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if str(file) in (process.info["cmdline"] or [])]


def end(file):
    record = json.loads(file.read_text())
    return record["weights"], record["test_accuracy"], [record["history"][name] for name in ("train_loss", "val_accuracy")]


def test_a_killed_process_is_replaced_and_the_training_goes_on_to_the_same_end(tmp_path):
    """And a checkpoint of two processes is taken up by one."""

    def arguments(name):
        return [*TRAIN, "--device", "cpu", "--result", tmp_path / f"{name}.json", "--checkpoint", tmp_path / f"{name}.pt"]

    lines, killed = [], False
    for line in distributed.torchrun(2, *arguments("killed"), max_restarts=1, **OPTIONS):
        lines.append(line)
        if line.startswith("2/8") and not killed:
            os.kill(max(workers(tmp_path / "killed.json")), signal.SIGKILL)
            killed = True
    assert killed and any("goes on after epoch" in line for line in lines), lines
    assert collect(distributed.torchrun(2, *arguments("usual"), **OPTIONS))[0]
    assert end(tmp_path / "killed.json") == end(tmp_path / "usual.json")

    (tmp_path / "usual.pt").rename(tmp_path / "one.pt")  # all its epochs are done: what is left is the evaluation
    subprocess.run([sys.executable, *map(str, arguments("one"))], check=True, capture_output=True, **OPTIONS)
    assert end(tmp_path / "one.json") == end(tmp_path / "usual.json")


def test_an_interrupt_leaves_no_process(tmp_path):
    arguments = [*TRAIN[:-4], "--epochs", "400", "--result", tmp_path / "a.json"]
    lines = distributed.torchrun(2, *arguments, **OPTIONS)
    for line in lines:
        if line.startswith("1/400"):
            break
    assert len(workers(tmp_path / "a.json")) == 3
    lines.close()  # what Python does when the caller is interrupted
    deadline = time.monotonic() + 20
    while workers(tmp_path / "a.json") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers(tmp_path / "a.json")


# ---- pictures from the disk -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 5)):
        for label in ("cat", "dog"):
            (place / part / label).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(picture).save(place / part / label / f"{number}.png")
    return place


def test_streamed_pictures_are_the_same_for_any_number_of_workers_and_processes(folder):
    training, validation, test = stream.folders(folder)
    assert [len(training), len(validation), len(test)] == [36, 4, 10] and training.classes == ("cat", "dog")
    options = {"size": 16, "crop": True, "shuffle": True, "drop_last": True}
    whole = list(stream.FolderLoader(training, 8, workers=0, **options))
    with_workers = stream.FolderLoader(training, 8, workers=2, **options)
    for (images, labels), (others, other_labels) in zip(whole, with_workers, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, other_labels) and images.shape == (8, 3, 16, 16)
    parts = [list(stream.FolderLoader(training, 8, workers=0, share=(rank, 2), **options)) for rank in (0, 1)]
    for (images, _), *halves in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([half[0] for half in halves]))
    again = stream.FolderLoader(training, 8, workers=0, **options)
    again.epoch = 1
    assert not torch.equal(next(iter(again))[0], whole[0][0])


def test_the_command_streams_a_folder(folder, tmp_path, capsys):
    arguments = ["--network", "resnet18", "--data", str(folder), "--stream", "--workers", "0", "--size", "32", "--epochs", "1"]
    with contextlib.chdir(tmp_path):
        command.main([*arguments, "--batch-size", "8", "--device", "cpu", "--result", "end.json"])
    out = capsys.readouterr().out
    assert "4 steps an epoch of 8 images" in out and "test images: loss" in out
    assert json.loads((tmp_path / "end.json").read_text())["processes"] == 1


def test_an_unreadable_picture_is_named(folder, tmp_path):
    training, _, _ = stream.folders(folder)
    broken = stream.Pictures(str(tmp_path), training.names, training.labels, training.classes)
    with pytest.raises(ValueError, match="can't be read"):
        next(iter(stream.FolderLoader(broken, 8, size=16, workers=0)))


def test_the_settings_of_a_stream_depend_on_its_names(folder):
    training, validation, _ = stream.folders(folder)
    one, other = (stream.FolderLoader(part, 2).settings() for part in (training, validation))
    assert one["pictures"] != other["pictures"]
