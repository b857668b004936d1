"""Training with several processes: the same numbers as with one, and an end without a hang, whatever happens to one of them.

torchrun itself takes part in one test only, since each of its processes imports torch, which takes seconds. In the others, `together` forks
the processes from one that has done so already; they meet in the same way.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from utils import checkpoint, command, data, distributed, models, stream, train

ROOT, CPU = Path(__file__).parents[1], torch.device("cpu")
QUIET = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__])


@pytest.fixture(autouse=True)
def no_hang():
    """A test that waits for ever is one that fails."""

    def too_late(number, frame):
        raise TimeoutError("no end after two minutes")

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(120)
    yield
    signal.alarm(0)


def together(folder, function, *arguments, count=2):
    """Run a function of this file in `count` processes; returns (their exit codes, the lines that they have printed)."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun has one as well
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    output = folder / "output.txt"
    output.write_text("")
    members = []
    for rank in range(count):
        numbers = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        members.append(FORK.Process(target=member, args=(numbers | place, output, function, arguments)))
    with pytest.MonkeyPatch.context() as patch:  # what the process from which they are forked starts with
        for name, value in (QUIET | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}).items():
            patch.setenv(name, value)
        for process in members:
            process.start()
    try:
        for process in members:
            process.join(60)
        return [process.exitcode for process in members], output.read_text().splitlines()
    finally:
        for process in members:
            process.kill()


def member(environment, output, function, arguments):
    os.environ.update(environment)
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        function(*arguments)
        distributed.end()
    except BaseException as error:
        distributed.fail(error)


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


def some_steps(model):
    """(loader, optimizer) of three training steps, each process with its share of every batch."""
    train_set = data.synthetic("cifar10", train=100, test=2).train
    loader = data.BatchLoader(train_set, 32, data.Augment(), shuffle=True, drop_last=True, share=distributed.share())
    return loader, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def learn_and_evaluate(file):
    distributed.start(CPU)
    torch.manual_seed(distributed.rank())  # DistributedDataParallel takes the first one's weights
    model = models.cifar_resnet(8)
    loader, optimizer = some_steps(model)
    wrapped = distributed.wrap(model)
    train.fit(wrapped, loader, None, epochs=1, optimizer=optimizer)
    test = data.BatchLoader(data.synthetic("cifar10", train=2, test=37).test, 8, share=distributed.share())
    found = train.epoch(wrapped, test, nn.CrossEntropyLoss())
    states = distributed.from_all(model.state_dict())
    if distributed.rank() == 0:
        torch.save({"states": states, "gradients": [p.grad for p in model.parameters()], "found": found}, file)


def test_two_processes_make_the_steps_of_one_with_half_batches_and_evaluate_exactly(tmp_path):
    """With the gradients, too: `fit` must not lay out the weights anew, or DistributedDataParallel would average them wrongly."""
    codes, lines = together(tmp_path, learn_and_evaluate, tmp_path / "end.pt")
    assert codes == [0, 0], lines
    end = torch.load(tmp_path / "end.pt")
    first, second = end["states"]
    assert all(torch.equal(first[name], second[name]) for name in first)  # running statistics as well

    torch.manual_seed(0)
    alone, criterion = models.cifar_resnet(8), nn.CrossEntropyLoss()
    loader, optimizer = some_steps(alone)
    for images, labels in loader:
        optimizer.zero_grad()
        for part in zip(images.chunk(2), labels.chunk(2), strict=True):
            (criterion(alone(part[0]), part[1]) / 2).backward()
        optimizer.step()
    for (name, weight), gradient in zip(alone.named_parameters(), end["gradients"], strict=True):
        assert (weight - first[name]).abs().max() < 1e-4, name
        assert (gradient - weight.grad).norm() < 1e-3 * weight.grad.norm(), name

    alone.load_state_dict(first)
    loss, accuracy = train.epoch(alone, data.BatchLoader(data.synthetic("cifar10", train=2, test=37).test, 37), criterion)
    assert accuracy == end["found"][1] and loss == pytest.approx(end["found"][0], rel=1e-5)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def fails(what):
    distributed.start(CPU)
    if what == "code" and distributed.rank() == 1:
        distributed.digest = lambda content: "another"
    dataset = data.synthetic("cifar10", train=64, test=2)
    seed = distributed.rank() if what == "data" else 0
    loader = data.BatchLoader(dataset.train, 32, shuffle=True, seed=seed, drop_last=True, share=distributed.share())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))

    def criterion(logits, labels):
        if what == "exception" and distributed.rank() == 1:
            logits.nothing  # noqa: B018
        return nn.functional.cross_entropy(logits, labels) * (float("nan") if what == "NaN" and distributed.rank() == 1 else 1)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train.fit(distributed.wrap(model), loader, None, epochs=2, optimizer=optimizer, criterion=criterion)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("NaN", "the loss is NaN or infinite from batch 1 of 2 on"),
        ("exception", "process 1: AttributeError: 'Tensor' object has no attribute 'nothing' (test_distributed.py, line "),
        ("data", "process 1 differs from process 0: training seed is 1 there and 0 here"),
        ("code", "process 1 differs from process 0: code in utils is 'another' there"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_in_one_line(what, words, tmp_path):
    codes, lines = together(tmp_path, fails, what)
    assert codes == [1, 1] and len(lines) == 1 and words in lines[0], (codes, lines)


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


def workers(file):
    """The numbers of all processes that are given this file as an argument."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if str(file) in (process.info["cmdline"] or [])]


def end(file):
    record = json.loads(file.read_text())
    return record["weights"], record["test_accuracy"], [record["history"][name] for name in ("train_loss", "val_accuracy")]


@pytest.mark.slow
def test_a_run_that_was_killed_and_interrupted_comes_to_the_same_end(folder, tmp_path):
    """One process is killed, torchrun starts all again, they go on; an interrupt then ends them all; the next start takes it up."""

    def arguments(name):
        network = ["--network", "cnn", "--data", folder, "--stream", "--size", "32", "--workers", "0", "--device", "cpu"]
        files = ["--result", tmp_path / f"{name}.json", "--checkpoint", tmp_path / f"{name}.pt"]
        return [str(part) for part in (*network, "--epochs", 20, "--batch-size", 12, *files)]

    lines, killed, taken_up = [], False, False
    file = tmp_path / "stopped.json"
    run = distributed.torchrun(2, "-m", "utils.train", *arguments("stopped"), max_restarts=1, cwd=ROOT, env=os.environ | QUIET)
    for line in run:
        lines.append(line)
        if line.startswith("2/20") and not killed:
            killed = workers(file)
            os.kill(max(killed), signal.SIGKILL)
        taken_up = taken_up or "goes on after epoch" in line
        if taken_up and line.startswith("3/20"):
            break
    assert taken_up and len(killed) == 3, lines  # torchrun's own process, and two
    run.close()  # what Python does when the caller is interrupted
    deadline = time.monotonic() + 20
    while workers(file) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers(file)

    for name in ("stopped", "usual"):
        codes, lines = together(tmp_path, command.main, arguments(name))
        assert codes == [0, 0] and lines[-1].startswith("test images"), lines
    assert end(tmp_path / "stopped.json") == end(tmp_path / "usual.json")


def save_and_leave(save, last, path, settings, state):
    save(path, settings, state)
    if state["epochs"][0] == last:
        os._exit(9)


def learn(name, dropout, leave_after=None):
    """Train for four epochs with a checkpoint, or until the first process dies, having written that of the epoch `leave_after`."""
    distributed.start(CPU)
    if leave_after:
        checkpoint.save = functools.partial(save_and_leave, checkpoint.save, leave_after)
    train_set = data.synthetic("cifar10", train=48, test=2).train
    loader = data.BatchLoader(train_set, 12, data.Augment(), shuffle=True, drop_last=True, share=distributed.share())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = train.fit(distributed.wrap(model), loader, None, epochs=4, optimizer=optimizer, checkpoint=f"{name}.pt")
    drawn = distributed.from_all(torch.rand(3).tolist())
    if distributed.rank() == 0:
        torch.save({"weights": model.state_dict(), "losses": history.train_loss, "drawn": drawn}, f"{name}.end")


def trained(folder, name, dropout, count=2, leave_after=None):
    """What `learn` has come to, if it came to an end."""
    codes, lines = together(folder, learn, folder / name, dropout, leave_after, count=count)
    if leave_after:
        assert codes == [9] + [1] * (count - 1), lines
        return None
    assert codes == [0] * count, lines
    return torch.load(folder / f"{name}.end")


@pytest.mark.slow
def test_each_process_goes_on_with_its_own_random_numbers(tmp_path):
    """Dropout draws differently in each; stopped and taken up, they come to the very same weights."""
    whole = trained(tmp_path, "whole", 0.5)
    trained(tmp_path, "stopped", 0.5, leave_after=2)
    taken_up = trained(tmp_path, "stopped", 0.5)
    assert whole["drawn"][0] != whole["drawn"][1]
    assert taken_up["drawn"] == whole["drawn"] and taken_up["losses"] == whole["losses"]
    assert all(torch.equal(taken_up["weights"][name], weight) for name, weight in whole["weights"].items())


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_taken_up_by_one_and_by_four(tmp_path):
    """The steps are the same; without dropout and batch norm, the weights are then equal but for rounding."""
    whole = trained(tmp_path, "whole", 0.0)
    trained(tmp_path, "two", 0.0, leave_after=2)
    for name, count in (("one", 1), ("four", 4)):
        shutil.copy(tmp_path / "two.pt", tmp_path / f"{name}.pt")
        other = trained(tmp_path, name, 0.0, count=count)
        assert other["losses"][:2] == whole["losses"][:2] and other["losses"][2:] == pytest.approx(whole["losses"][2:], rel=1e-5)
        for key, weight in whole["weights"].items():
            assert torch.allclose(other["weights"][key], weight, rtol=0, atol=1e-5), (name, key)


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
    arguments = ["--network", "resnet20", "--data", str(folder), "--stream", "--workers", "0", "--size", "32", "--epochs", "1"]
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
