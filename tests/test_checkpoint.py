"""Training that was stopped goes on as if nothing had happened, and nothing wrong is believed."""

import errno
import functools
import hashlib
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from utils import checkpoint, data, models, train

HERE = Path(__file__).parents[1]
sys.path.append(str(HERE / "benchmarks"))
import kill  # noqa: E402

EPOCHS = 4


class Stop(Exception):
    pass


class StopsAt:
    """A loader that raises at a given batch of a given epoch."""

    def __init__(self, loader, epoch, batch):
        self.loader, self.at = loader, (epoch, batch)

    def __len__(self):
        return len(self.loader)

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __setattr__(self, name, value):
        if name == "epoch":
            self.loader.epoch = value
        else:
            super().__setattr__(name, value)

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            if (self.loader.epoch, number) == self.at:
                raise Stop
            yield batch


def run(
    path, stop=None, *, epochs=EPOCHS, lr=0.05, batch_size=32, seed=0, model=None, images=200, nesterov=False, augment=None, weights=0,
    make_optimizer=None, schedule=None, criterion=None,
):  # fmt: skip
    torch.manual_seed(weights)
    np.random.seed(0)
    dataset = data.synthetic("cifar10", train=images, test=50)
    loader = data.BatchLoader(dataset.train, batch_size, augment or data.Augment(), shuffle=True, seed=seed)
    model = model or models.CNN(10, batch_norm="after", dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=nesterov)
    if make_optimizer:
        optimizer = make_optimizer(model.parameters())
    schedule = schedule or (lambda optimizer, steps: OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False))
    scheduler = schedule(optimizer, len(loader) * epochs)
    history = train.fit(
        model, StopsAt(loader, *stop) if stop else loader, data.BatchLoader(dataset.test, 50), epochs=epochs, optimizer=optimizer,
        scheduler=scheduler, checkpoint=path, criterion=criterion,
    )  # fmt: skip
    return model, history, torch.rand(1), np.random.rand()


def same(one, two):
    (a, ha, *da), (b, hb, *db) = one, two
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    numbers = [[s for name, s in vars(h).items() if name != "seconds"] for h in (ha, hb)]
    assert numbers[0] == numbers[1] and da == db


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


@pytest.mark.parametrize("stops", [[(1, 3)], [(2, 0)], [(4, 6)], [(1, 0), (2, 2), (3, 5), (4, 1)]])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(path, stops, capsys):
    def lines():
        return [line.rsplit("\r")[-1] for line in capsys.readouterr().out.strip().split("\n")]

    whole = run(None)
    of_whole = lines()
    for stop in stops:
        with pytest.raises(Stop):
            run(path, stop)
    capsys.readouterr()
    same(whole, run(path))
    of_stopped, done = lines(), stops[-1][0] - 1
    assert not done or f"goes on after epoch {done}, from its checkpoint" in of_stopped[0]
    assert of_stopped[bool(done) :] == of_whole and len(of_whole) >= EPOCHS


def interrupted(epoch, batch, **options):
    """A run without a file that is interrupted there, as by the stop button of a notebook."""
    with pytest.raises(KeyboardInterrupt) as stop, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Stop", KeyboardInterrupt)
        run(None, (epoch, batch), **options)
    return stop.value


def test_an_interrupted_run_says_so_in_one_line_and_goes_on_when_it_is_run_again(capsys):
    whole = run(None)
    for epoch, batch in ((2, 3), (4, 0)):
        stop = interrupted(epoch, batch)
        line = f"{epoch - 1} of 4 epochs are done and kept: run the same again, and it goes on from there"
        assert str(stop) == line and stop._render_traceback_() == [f"KeyboardInterrupt: {line}"]
    capsys.readouterr()
    same(whole, run(None))
    assert "goes on after epoch 3" in capsys.readouterr().out
    same(whole, run(None))  # and only once
    assert "goes on" not in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"lr": 0.1}, {"weights": 1}, {"images": 201}, {"model": models.CNN(10)}])
def test_an_interrupted_run_is_not_taken_up_by_another(change, capsys):
    interrupted(3, 0)
    capsys.readouterr()
    run(None, **change)
    assert "goes on" not in capsys.readouterr().out


def test_a_run_interrupted_in_its_first_epoch_starts_over(capsys):
    whole = run(None)
    interrupted(1, 2)
    same(whole, run(None))


def test_a_whole_run_is_not_trained_again(path):
    whole = run(path)
    same(whole, run(path, stop=(EPOCHS + 1, 0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 5}, "epochs is 4 there and 5 here"),
        ({"lr": 0.1}, "optimizer lr is 0.002"),
        ({"nesterov": True}, "optimizer nesterov is False there and True here"),
        ({"batch_size": 50}, "training batch size is 32 there and 50 here"),
        ({"seed": 1}, "training seed is 0 there and 1 here"),
        ({"images": 201}, "training data is "),
        ({"augment": data.Augment(rotate=5)}, "training augmentation is "),
        ({"model": models.CNN(10, dropout=0.4, batch_norm="after")}, "model is 'CNN with "),
        ({"model": models.CNN(10)}, "model is 'CNN with "),
        ({"weights": 1}, "initial weights is "),
        ({"criterion": nn.CrossEntropyLoss(label_smoothing=0.1)}, "label_smoothing"),
        ({"criterion": F.cross_entropy}, "criterion"),
        ({"schedule": lambda o, n: OneCycleLR(o, 0.05, total_steps=n, cycle_momentum=False, pct_start=0.5)}, "schedule "),
        ({"schedule": lambda o, n: OneCycleLR(o, 0.05, total_steps=n, cycle_momentum=False, anneal_strategy="linear")}, " is "),
        ({"schedule": lambda o, n: OneCycleLR(o, 0.05, total_steps=n)}, "momentum"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_in_one_line(path, options, message):
    with pytest.raises(Stop):
        run(path, (3, 0))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt is of another run: ") as error:
        run(path, **options)
    assert message in str(error.value) and "\n" not in str(error.value) and "Delete it" in str(error.value)
    assert path.read_bytes() == before


ADAM = {
    "betas": lambda parameters: torch.optim.Adam(parameters, 0.01, betas=(0.8, 0.999)),
    "weight_decay": lambda parameters: torch.optim.Adam(parameters, 0.01, weight_decay=1e-4),
    "lr": lambda parameters: torch.optim.Adam(parameters, 0.02),
}


@pytest.mark.parametrize("changed", ADAM)
def test_every_setting_of_the_optimizer_counts(path, changed):
    def none(optimizer, steps):
        return LambdaLR(optimizer, lambda step: 1)

    with pytest.raises(Stop):
        run(path, (3, 0), make_optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01), schedule=none)
    with pytest.raises(ValueError, match=f"optimizer {changed}.* is "):
        run(path, make_optimizer=ADAM[changed], schedule=none)


def test_the_function_of_a_schedule_counts(path):
    def decay(base):
        return lambda optimizer, steps: LambdaLR(optimizer, lambda step: base**step)

    with pytest.raises(Stop):
        run(path, (3, 0), schedule=decay(0.9))
    with pytest.raises(ValueError, match="schedule functions"):
        run(path, schedule=decay(0.8))
    run(path, schedule=decay(0.9))


@pytest.mark.parametrize(
    "criterion", [F.cross_entropy, functools.partial(F.cross_entropy, label_smoothing=0.1), lambda x, y: F.cross_entropy(x, y)]
)
def test_a_function_as_criterion_resumes(path, criterion, capsys):
    with pytest.raises(Stop):
        run(path, (3, 0), criterion=criterion)
    run(path, criterion=criterion)
    assert "goes on after epoch 2" in capsys.readouterr().out


@pytest.mark.slow
def test_what_describes_a_function_is_the_same_in_every_process():
    code = "import torch.nn.functional as F; from utils.checkpoint import describe as d; print(d(F.cross_entropy), d(lambda x: x + 1))"
    ends = {subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(ends) == 1 and "0x" not in ends.pop()


def test_numpy_scalars_and_tensors_as_settings_resume(path, capsys):
    with pytest.raises(Stop):
        run(path, (3, 0), lr=np.float64(0.05))
    run(path, lr=np.float64(0.05))
    assert "goes on after epoch 2" in capsys.readouterr().out


def test_fewer_gpus_than_the_checkpoint_has_seen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    state = checkpoint._random_state() | {"cuda": [torch.get_rng_state()] * 2}
    checkpoint._restore_random_state(state)


def sealed(content):
    """A file whose checksum fits, whatever is in it."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def saved(what):
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


FOREIGN = {
    "empty": b"", "text": b"not a checkpoint", "another dict": saved({"weights": torch.ones(3)}), "a tensor": saved(torch.ones(3)),
    "settings of another kind": saved({"settings": 3, "state": {}}), "a class": pickle.dumps(Path("a")),
}  # fmt: skip


@pytest.mark.parametrize("content", FOREIGN)
def test_what_is_no_checkpoint_is_set_aside_in_one_line(path, content, capsys):
    path.write_bytes(sealed(FOREIGN[content]))
    assert checkpoint.load(path, {}) is None
    out = capsys.readouterr().out
    assert out.startswith("WARNING: the checkpoint run.pt is damaged (") and out.count("\n") == 1
    assert path.with_name("run.pt.damaged").read_bytes() == sealed(FOREIGN[content])


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "something else": lambda content: b"PK\x03\x04 not a checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(path, damage, capsys):
    whole = run(None)
    with pytest.raises(Stop):
        run(path, (4, 0))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    capsys.readouterr()
    same(whole, run(path))
    out = capsys.readouterr().out
    assert "WARNING: the checkpoint run.pt is damaged" in out and "goes on after epoch 2" in out
    assert path.with_name("run.pt.damaged").exists()


def test_with_both_damaged_training_starts_over(path):
    whole = run(None)
    with pytest.raises(Stop):
        run(path, (4, 0))
    for file in (path, path.with_name("run.pt.previous")):
        file.write_bytes(b"nothing")
    same(whole, run(path))


def test_nothing_unverified_is_unpickled(path, monkeypatch):
    with pytest.raises(Stop):
        run(path, (2, 0))
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("read before it was verified"))
    assert checkpoint.load(path, {}) is None


def test_only_weights_are_unpickled(path, capsys):
    checkpoint.save(path, {}, {"evil": Stop})  # any class of its own
    assert checkpoint.load(path, {}) is None and "torch cannot load it" in capsys.readouterr().out


def test_a_full_disk_stops_nothing_and_keeps_what_is_whole(path, monkeypatch, capsys):
    whole = run(None)
    with pytest.raises(Stop):
        run(path, (3, 0))
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    same(whole, run(path))
    assert "WARNING: no checkpoint written (No space left on device); the training goes on" in capsys.readouterr().out
    assert path.read_bytes() == before and not list(path.parent.glob(".*partial*"))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(path, capsys):
    torch.manual_seed(0)
    images, spoilt = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(5)], torch.full((8, 4), float("inf"))

    class Spoilt(list):
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            for number, (x, labels) in enumerate(super().__iter__()):
                yield (spoilt if (self.epoch, number) == (3, 3) else x), labels

    def fit(loader):
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        return train.fit(
            model, loader, images, epochs=4, optimizer=torch.optim.SGD(model.parameters(), 0.25), label="wild", checkpoint=path
        )

    with pytest.raises(FloatingPointError) as error:
        fit(Spoilt(images))
    assert str(error.value) == "wild 3/4: the loss is NaN or infinite from batch 4 of 5 on, at learning rate 0.25: lower it"
    sound = Spoilt(images)
    sound.epoch = 10
    capsys.readouterr()
    spoilt.zero_()
    assert len(fit(sound)) == 4 and "wild goes on after epoch 2" in capsys.readouterr().out


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_out_of_memory_says_which_batch_size_to_try(message):
    class Large(nn.Linear):
        def forward(self, x):
            raise RuntimeError(message)

    with pytest.raises(MemoryError, match="out of memory with a batch of 8 images: try a batch size of 4"):
        train.epoch(Large(4, 3), [(torch.randn(8, 4), torch.arange(8) % 3)], nn.CrossEntropyLoss())


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train.epoch(nn.Linear(5, 3), [(torch.randn(8, 4), torch.arange(8) % 3)], nn.CrossEntropyLoss())


@pytest.mark.slow
def test_killed_for_real(capsys):
    """The short version of benchmarks/kill.py."""
    assert kill.main(["--training", "1", "--run-all", "0"]) == 0
    assert "killed 1 times" in capsys.readouterr().out


def test_digest_names_content():
    a = torch.arange(6).view(2, 3)
    assert checkpoint.digest(a) == checkpoint.digest(a.clone()) != checkpoint.digest(a.view(3, 2))
    assert checkpoint.digest(a) != checkpoint.digest(a.int())


def test_without_a_scheduler_and_with_any_loader(path):
    loader = [(torch.randn(8, 4), torch.arange(8) % 3)]
    histories = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.Adam(model.parameters())
        histories.append(vars(train.fit(model, loader, loader, epochs=2, optimizer=optimizer, checkpoint=path)))
    assert histories[0] == histories[1]
