import io
import re
import sys
import time

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from utils import checks, data, models, train


def loaders(n=200):
    dataset = data.synthetic("cifar10", train=n, test=50)
    return data.BatchLoader(dataset.train, 32, data.Augment(), shuffle=True), data.BatchLoader(dataset.test, 50)


def fit(epochs=2):
    torch.manual_seed(0)
    model = models.CNN(10, dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=7 * epochs)
    return model, train.fit(model, *loaders(), epochs=epochs, optimizer=optimizer, scheduler=scheduler, label="plain")


class Waits(TorchFunctionMode):
    """Counts the calls that let the CPU wait for a GPU: numbers that are sent to it or read from it."""

    count = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        self.count += name in ("tensor", "as_tensor", "item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__")
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("training", [True, False])
def test_the_cpu_waits_for_the_gpu_once_an_epoch_not_once_a_batch(training, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # the progress bar, too, reads numbers: twice a second
    model, counts = models.CNN(10), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9) if training else None
    for images in (64, 64, 640):
        loader = data.BatchLoader(data.synthetic("cifar10", images, 10).train, 32, data.Augment() if training else None)
        with Waits() as waits:
            train.epoch(model, loader, nn.CrossEntropyLoss(), optimizer)
        counts.append(waits.count)
    assert 0 < counts[1] == counts[2] < 5, counts


def test_the_shared_loop_solves_its_own_exercise():
    assert checks.epoch(train.epoch)


def test_fit_keeps_one_number_an_epoch_and_prints_one_line(capsys):
    _, history = fit()
    assert len(history) == 2 and all(len(series) == 2 for series in vars(history).values())
    assert all(0 <= a <= 1 for a in history.train_accuracy + history.val_accuracy)
    lines = [line.rsplit("\r")[-1] for line in capsys.readouterr().out.strip().split("\n")]
    assert len(lines) == 2
    assert all(
        re.fullmatch(rf"plain {n}/2 \| T loss \d\.\d{{3}} accuracy +[\d.]+% \| V loss \d\.\d{{3}} accuracy +[\d.]+%", line)
        for n, line in enumerate(lines, 1)
    )


def test_the_progress_bar_shows_epoch_mode_loss_and_accuracy(monkeypatch):
    class Slow(list):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.6)
                yield batch

    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    train.epoch(nn.Linear(4, 3), Slow([(torch.randn(2, 4), torch.tensor([0, 1]))] * 3), nn.CrossEntropyLoss(), label="plain 1/9 ")
    assert re.search(r"plain 1/9 V \|.*\| .* left, loss \d\.\d{3}, accuracy \d+\.\d%, \d+ images/s", out.getvalue())
    assert out.getvalue().endswith("\r")  # and then it is gone


def test_the_same_seed_gives_the_same_weights():
    (one, history), (two, again) = fit(), fit()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert history.val_loss == again.val_loss


def test_training_learns():
    torch.manual_seed(0)
    dataset = data.synthetic("fashionmnist", train=2_000, test=500)
    model = nn.Sequential(nn.Conv2d(1, 16, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 6 * 6, 10))
    train_loader, test_loader = data.BatchLoader(dataset.train, 50, shuffle=True), data.BatchLoader(dataset.test, 100)
    history = train.fit(model, train_loader, test_loader, epochs=5, optimizer=torch.optim.AdamW(model.parameters(), 3e-3))
    assert history.val_accuracy[-1] > 0.5 and history.train_loss[-1] < history.train_loss[0] / 2


def test_works_with_a_plain_dataloader():
    dataset = torch.utils.data.TensorDataset(torch.randn(10, 4), torch.arange(10) % 3)
    loss, accuracy = train.epoch(nn.Linear(4, 3), torch.utils.data.DataLoader(dataset, 4), nn.CrossEntropyLoss())
    assert isinstance(loss, float) and 0 <= accuracy <= 1


def test_refuses_no_epochs_and_no_images():
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        train.fit(model, [], [], epochs=0, optimizer=None)
    with pytest.raises(ValueError, match="no images"):
        train.epoch(model, [], nn.CrossEntropyLoss())


def test_gradients_are_cleared_before_the_forward_pass():
    """A criterion or a hook may look at the gradients that this step makes, and finds none of the step before."""
    model, seen = nn.Linear(4, 3), []

    def criterion(logits, labels):
        seen.append([p.grad for p in model.parameters()])
        return nn.functional.cross_entropy(logits, labels)

    loader = [(torch.randn(8, 4), torch.arange(8) % 3)] * 2
    train.epoch(model, loader, criterion, torch.optim.SGD(model.parameters(), 0.1))
    assert seen == [[None, None]] * 2


def test_a_loader_without_a_length():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.full((4,), float("nan")) if number == 5 else torch.randn(4), number % 3) for number in range(8)])

    model = nn.Linear(4, 3)
    with pytest.raises(FloatingPointError, match=r"NaN or infinite from batch 3 on$"):
        train.epoch(model, torch.utils.data.DataLoader(Stream(), 2), nn.CrossEntropyLoss())
    loss, _ = train.epoch(model, iter([(torch.randn(8, 4), torch.arange(8) % 3)]), nn.CrossEntropyLoss())
    assert loss > 0


def test_running_out_of_memory_inside_the_loader_says_what_to_do():
    class Full(list):
        batch_size = 64

        def __iter__(self):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(MemoryError, match="out of memory with a batch of 64 images: try a batch size of 32"):
        train.epoch(nn.Linear(4, 3), Full(), nn.CrossEntropyLoss())


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "order"),
    [
        ("cpu", None, torch.float32, torch.channels_last),
        ("cuda", (7, 5), torch.float32, torch.channels_last),  # a T4 says that it has bfloat16, and emulates it
        ("cuda", (8, 0), torch.bfloat16, torch.channels_last),
        ("cuda", (9, 0), torch.bfloat16, torch.channels_last),
        ("mps", None, torch.float32, torch.contiguous_format),
    ],
)
def test_number_format_and_memory_order_come_from_the_device(kind, capability, dtype, order, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.delenv("RESNET_PRECISION", raising=False)
    assert train.precision(torch.device(kind)) == train.Precision(dtype, order)
    monkeypatch.setenv("RESNET_PRECISION", "float32")
    assert train.precision(torch.device(kind)) == train.Precision() and str(train.Precision()) == "float32, channels first"
    monkeypatch.setenv("RESNET_PRECISION", "half")
    with pytest.raises(ValueError, match="RESNET_PRECISION must be auto, float32 or bfloat16, got 'half'"):
        train.precision(torch.device(kind))


def test_the_recipe_keeps_its_momentum():
    model = nn.Linear(4, 3)
    optimizer, scheduler = train.sgd_one_cycle(model, lr=0.1, steps=10)
    rates, momenta = [], set()
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.add(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    assert momenta == {0.9} and max(rates) == pytest.approx(0.1) and rates[0] == pytest.approx(0.004) and rates[-1] < 1e-5


def test_the_rates_of_the_paper():
    model = nn.Linear(4, 3)
    optimizer, scheduler = train.sgd_three_rates(model, lr=0.1, steps=40, warmup=4)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.01] * 4 + [0.1] * 16 + [0.01] * 10 + [0.001] * 10)
    optimizer, _ = train.sgd_three_rates(model, lr=0.1, steps=40)
    assert optimizer.param_groups[0]["lr"] == 0.1 and not optimizer.param_groups[0]["nesterov"]


def test_train_and_test_with_a_last_batch_of_one_image(capsys, tmp_path):
    """60 images, of which 6 are held out: 54 are 53 + 1, and batch norm cannot learn from one image."""
    dataset = data.synthetic("cifar10", train=60, test=20)
    torch.manual_seed(0)
    given = {"images": 60, "test_images": 20, "epochs": 2, "seed": 0, "device": torch.device("cpu"), "tensorboard": tmp_path}
    model = models.cifar_resnet(8)
    found = train.train_and_test(model, dataset, batch_size=53, recipe=lambda *what: train.sgd_three_rates(what[0], 0.01, what[1]), **given)
    train_set, _ = dataset.train.sample(60, seed=0).hold_out(6, seed=0)
    _, accuracy = train.epoch(model, data.BatchLoader(train_set, 7), nn.CrossEntropyLoss())
    assert len(found.history) == 2 and 0 <= found.test_accuracy <= 1 and found.train_accuracy == pytest.approx(accuracy)
    shown = re.sub(r"[^\n]*\r", "", capsys.readouterr().out)  # without the progress bars
    assert shown.startswith("2/2 | T loss ") and len(shown.splitlines()) == 1, "one line a run"
    assert list(tmp_path.iterdir()), "nothing was written for TensorBoard"


def test_train_and_test_resizes_whatever_the_network_reads():
    shapes, model = set(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    model.register_forward_pre_hook(lambda module, given: shapes.add(tuple(given[0].shape[2:])))
    given = {"images": 60, "test_images": 20, "epochs": 1, "batch_size": 32, "seed": 0, "device": torch.device("cpu"), "size": 40}
    train.train_and_test(
        model, data.synthetic("cifar10", train=60, test=20), recipe=lambda m, steps: train.sgd_one_cycle(m, 0.1, steps), **given
    )
    assert shapes == {(40, 40)}


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "tpu", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"no device '{name}' here: use auto, cpu") as error:
        train.device(name)
    assert "\n" not in str(error.value)


def test_auto_device():
    assert train.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_scalars_are_written_for_tensorboard_when_asked(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = nn.Linear(4, 3)
    loader = [(torch.randn(8, 4), torch.arange(8) % 3)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    history = train.fit(model, loader, loader, epochs=3, optimizer=optimizer, tensorboard=tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert [round(event.value, 5) for event in events.Scalars(name)] == [round(value, 5) for value in getattr(history, name)]


def test_goes_on_without_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    model = nn.Linear(4, 3)
    loader = [(torch.randn(8, 4), torch.arange(8) % 3)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert len(train.fit(model, loader, loader, epochs=1, optimizer=optimizer, tensorboard=tmp_path)) == 1
    assert "TensorBoard is not installed" in capsys.readouterr().out and not list(tmp_path.iterdir())


# ---- several optimizers, and no validation --------------------------------------------------------------------------


def two_optimizers(model):
    kernels, rest = ([p for p in model.parameters() if (p.ndim == 4) == is_kernel] for is_kernel in (True, False))
    optimizers = torch.optim.SGD(kernels, 0.05, momentum=0.9), torch.optim.Adam(rest, 1e-3)
    together = train.Together(*optimizers)
    return together, torch.optim.lr_scheduler.LambdaLR(together, [lambda step: 1 - step / 28, lambda step: 1.0])


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # it does not see the steps of each
def test_optimizers_together_do_what_each_does_alone():
    results = []
    for alone in (True, False):
        torch.manual_seed(0)
        model = models.CNN(10)
        together, scheduler = two_optimizers(model)
        for images, labels in loaders()[0]:
            together.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            for optimizer in together.optimizers if alone else [together]:
                optimizer.step()
            scheduler.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert [group["lr"] for group in together.param_groups] == pytest.approx([0.05 * (1 - 7 / 28), 1e-3])
    assert torch.equal(*results)


def test_optimizers_together_go_on_from_a_checkpoint(tmp_path, monkeypatch, capsys):
    def run(path, stop=None):
        torch.manual_seed(0)
        model = models.CNN(10)
        optimizer, scheduler = two_optimizers(model)
        seen = []

        def stopping(*values):
            seen.append(values)
            if len(seen) == stop:
                raise RuntimeError("killed")

        monkeypatch.setattr(train.History, "append", lambda self, *values: (append(self, *values), stopping(*values)))
        return train.fit(model, *loaders(), epochs=4, optimizer=optimizer, scheduler=scheduler, checkpoint=path)

    append = train.History.append
    whole = run(None)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "run.pt", stop=3)
    resumed = run(tmp_path / "run.pt")
    assert "goes on after epoch 2" in capsys.readouterr().out
    assert resumed.train_loss == whole.train_loss and resumed.val_loss == whole.val_loss


def test_nothing_held_out(capsys, tmp_path):
    model = models.CNN(10)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    history = train.fit(model, loaders()[0], None, epochs=2, optimizer=optimizer, label="all", tensorboard=tmp_path)
    assert len(history) == 2 and history.val_loss == history.val_accuracy == [None, None]
    assert "V loss" not in capsys.readouterr().out


@pytest.mark.parametrize(("chosen", "dtype"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_on_a_cpu(chosen, dtype, monkeypatch):
    monkeypatch.setenv("RESNET_PRECISION", chosen)
    assert train.precision(torch.device("cpu")).dtype == dtype
