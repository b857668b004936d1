"""What only a GPU can show. `pytest tests/test_cuda.py` where there is one; skipped elsewhere."""

import copy
import os
import time

import pytest
import torch
from test_checkpoint import Stop, StopsAt
from torch import nn
from torch.overrides import TorchFunctionMode

from utils import data, models, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def loader(device, images=256, batch_size=64, **options):
    split = data.synthetic("cifar10", train=images, test=10).train
    return data.BatchLoader(split, batch_size, data.Augment(), shuffle=True, device=device, drop_last=True, **options)


def one_epoch(model, device, lr=0.02):
    model = model.to(device, memory_format=train.precision(device).memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return train.epoch(model, loader(device), nn.CrossEntropyLoss(), optimizer)


@pytest.fixture
def exact(monkeypatch):
    """32-bit numbers without shortcuts, so that only the order of additions differs from the CPU's."""
    monkeypatch.setenv("RESNET_PRECISION", "float32")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_both_devices_get_the_same_batches():
    for (one, labels), (other, same) in zip(loader(CPU), loader(GPU), strict=True):
        assert torch.equal(labels, same.cpu())
        assert (one - other.cpu()).abs().gt(1e-5).float().mean() < 1e-3, "a rotated pixel may fall to the other side of a rounding"


def test_a_step_equals_that_of_the_cpu(exact):
    torch.manual_seed(0)
    start = models.cifar_resnet(20)
    images, labels = next(iter(loader(CPU)))
    ends = {}
    for device in (CPU, GPU):
        model = copy.deepcopy(start).to(device)
        optimizer, _ = train.sgd_one_cycle(model, lr=0.1, steps=10)
        result = train.epoch(model, [(images, labels)], nn.CrossEntropyLoss(), optimizer)
        ends[device] = [result[0], *(tensor.cpu() for tensor in model.state_dict().values())]
    assert ends[CPU][0] == pytest.approx(ends[GPU][0], rel=1e-4)
    for one, other in zip(ends[CPU][1:], ends[GPU][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_number_format_and_memory_order_are_the_ones_for_this_gpu():
    precision, seen = train.precision(GPU), []
    model = models.cifar_resnet(8).to(GPU, memory_format=precision.memory_format)
    model.stages.register_forward_hook(lambda module, given, out: seen.append(out))
    train.epoch(model, loader(GPU), nn.CrossEntropyLoss())
    assert seen[0].dtype == precision.dtype and seen[0].is_contiguous(memory_format=torch.channels_last)
    assert (precision.dtype == torch.bfloat16) == (torch.cuda.get_device_capability() >= (8, 0))


def test_sixteen_bits_learn_as_well_as_thirty_two(monkeypatch):
    losses = {}
    for name in ("auto", "float32"):
        monkeypatch.setenv("RESNET_PRECISION", name)
        torch.manual_seed(0)
        losses[name], _ = one_epoch(models.cifar_resnet(8), GPU)
    assert losses["auto"] == pytest.approx(losses["float32"], rel=0.05)


def test_a_stopped_run_goes_on_after_its_last_epoch(tmp_path, capsys):
    def fit(stop=None, path=None):
        torch.manual_seed(0)
        model = models.CNN(10, batch_norm="after", dropout=0.5).to(GPU)
        optimizer, scheduler = train.sgd_one_cycle(model, lr=0.05, steps=4 * 4)
        batches = StopsAt(loader(GPU), *stop) if stop else loader(GPU)
        return train.fit(model, batches, loader(GPU), epochs=4, optimizer=optimizer, scheduler=scheduler, checkpoint=path)

    whole = fit()
    with pytest.raises(Stop):
        fit((3, 1), tmp_path / "run.pt")
    again = fit(path=tmp_path / "run.pt")
    assert "goes on after epoch 2" in capsys.readouterr().out
    assert again.train_loss == pytest.approx(whole.train_loss, rel=0.05), "cuDNN adds in an order of its own: nearly the same"


def test_running_out_of_memory_says_which_batch_size_to_try():
    free, _ = torch.cuda.mem_get_info()

    class Large(nn.Linear):
        def forward(self, x):
            torch.empty(2 * free, dtype=torch.uint8, device=x.device)

    with pytest.raises(MemoryError, match="out of memory with a batch of 8 images: try a batch size of 4"):
        train.epoch(Large(4, 3).to(GPU), [(torch.randn(8, 4), torch.arange(8) % 3)], nn.CrossEntropyLoss())


class Waits(TorchFunctionMode):
    """Counts the calls that make the CPU wait for the GPU."""

    count = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        self.count += getattr(function, "__name__", "") in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__")
        return function(*arguments, **(options or {}))


def test_the_cpu_waits_for_the_gpu_once_an_epoch(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # the progress bar, too, reads numbers: twice a second
    model, counts = models.CNN(10).to(GPU), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for images in (64, 640):
        batches = loader(GPU, images, 32)
        with Waits() as waits:
            train.epoch(model, batches, nn.CrossEntropyLoss(), optimizer)
        counts.append(waits.count)
    assert counts[0] == counts[1] < 5, counts


def test_notebook_01_runs_on_the_gpu(capfd):
    pytest.importorskip("papermill")
    from runner import run_all

    environment = dict(os.environ)
    try:
        arguments = ["--only", "01", "--budget", "smoke", "--data", "synthetic", "--device", "cuda", "--fresh"]
        assert run_all.main(arguments) == 0, capfd.readouterr().out
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert torch.cuda.get_device_name() in capfd.readouterr().out
