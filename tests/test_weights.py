"""Stored weights: what is read is what was written, and a file that is anything else is refused in one line."""

import hashlib
import io
import json
import pickle

import numpy as np
import pytest
import torch

from utils import models, weights

NAME = "resnet20-cifar10"


def trained(kind="v1", depth=20, seed=0):
    """A network with other statistics than a new one."""
    torch.manual_seed(seed)
    model = models.cifar_resnet(depth, kind)
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    weights.save(trained(), NAME, tmp_path, test_accuracy=0.9, recipe="none")
    return tmp_path


def put(folder, content, name=NAME):
    """Another file, and a record that fits it."""
    (folder / f"{name}.npz").write_bytes(content)
    (folder / f"{name}.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))


def arrays(folder, name=NAME):
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def packed(**content):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return buffer.getvalue()


def refused(folder, name=NAME, kind=ValueError):
    with pytest.raises(kind) as error:
        models.load(name, folder)
    text = str(error.value)
    assert "\n" not in text and len(text) < 250 and str(folder) not in text
    return text


@pytest.mark.parametrize("name", models.TRAINED)
def test_what_is_loaded_computes_what_was_saved(name, tmp_path):
    depth, kind = models.TRAINED[name]
    model = trained(kind, depth)
    weights.save(model, name, tmp_path)
    loaded, images = models.load(name, tmp_path), torch.randn(16, 3, 32, 32)
    assert not loaded.training and all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(images), weights.rounded(model)(images))
        torch.testing.assert_close(loaded(images), model(images), rtol=0.05, atol=0.05 * model(images).std().item())
    assert (tmp_path / f"{name}.npz").stat().st_size < 2_000_000


def test_rounding_leaves_the_model_as_it_is_and_needs_no_second_time():
    model = trained()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    once = weights.rounded(model)
    twice = weights.rounded(once).state_dict()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(torch.equal(twice[key], tensor) for key, tensor in once.state_dict().items())


def test_running_statistics_outside_the_range_of_float16_survive(tmp_path):
    model = trained()
    model.stem[1].running_var.fill_(3e9)
    model.stages[0][0].bn1.running_var.fill_(1e-9)
    weights.save(model, NAME, tmp_path)
    loaded = models.load(NAME, tmp_path)
    assert loaded.stem[1].running_var.eq(3e9).all() and loaded.stages[0][0].bn1.running_var.eq(1e-9).all()


def test_a_kernel_outside_the_range_of_float16_is_refused(tmp_path):
    model = trained()
    with torch.no_grad():
        model.stem[0].weight[0] = 1e5
    with pytest.raises(ValueError, match="stem.0.weight .* too large for float16"):
        weights.save(model, NAME, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_record_says_how_it_was_made(folder):
    found = weights.record(NAME, folder)
    assert found["test_accuracy"] == 0.9 and found["recipe"] == "none" and found["parameters"] == 269_722
    assert found["sha256"] == hashlib.sha256((folder / f"{NAME}.npz").read_bytes()).hexdigest()


def test_the_same_numbers_give_the_same_file(folder, tmp_path):
    again, _ = weights.save(trained(), NAME, tmp_path / "again")
    assert again.read_bytes() == (folder / f"{NAME}.npz").read_bytes()


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    models.load(NAME, folder)
    assert torch.equal(before, torch.get_rng_state())


def test_a_failed_write_leaves_the_old_files(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path, content):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError):
        weights.save(trained(seed=1), NAME, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ---- files that are something else ----------------------------------------------------------------------------------


def test_an_unknown_name(tmp_path):
    assert "there are resnet20-cifar10, resnet56-cifar10, plain20-cifar10, plain56-cifar10" in refused(tmp_path, "resnet18-cifar10")


def test_no_files(tmp_path):
    assert "git checkout weights" in refused(tmp_path, kind=FileNotFoundError)


def test_no_record(folder):
    (folder / f"{NAME}.json").unlink()
    assert f"{NAME}.json is missing" in refused(folder, kind=FileNotFoundError)


def test_no_numbers(folder):
    (folder / f"{NAME}.npz").unlink()
    assert f"{NAME}.npz is missing" in refused(folder, kind=FileNotFoundError)


def test_a_truncated_file(folder):
    path = folder / f"{NAME}.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is damaged" in refused(folder)


def test_one_changed_bit(folder):
    path = folder / f"{NAME}.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged" in refused(folder)


def test_a_wrong_digest(folder):
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))
    assert "not the file that resnet20-cifar10.json describes" in refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 3}', "\x00"])
def test_a_damaged_record(folder, text):
    (folder / f"{NAME}.json").write_text(text)
    assert "no record of weights" in refused(folder)


@pytest.mark.parametrize(
    "content", [b"", b"hello", pickle.dumps({"stem.0.weight": 1}), packed(a=np.random.default_rng(0).random(999))[:2000]]
)
def test_a_foreign_file_whose_digest_fits(folder, content):
    put(folder, content)
    assert "holds no arrays" in refused(folder)


def test_what_torch_saves_is_not_read(folder):
    buffer = io.BytesIO()
    torch.save(trained().state_dict(), buffer)
    put(folder, buffer.getvalue())
    refused(folder)


class Trap:
    """Unpickling it would set `sprung`."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_nothing_is_unpickled(folder):
    put(folder, packed(**arrays(folder) | {"stem.0.weight": np.array([Trap()], dtype=object)}))
    assert "holds no arrays" in refused(folder)
    put(folder, pickle.dumps(Trap()))
    refused(folder)
    assert not Trap.sprung


def test_another_network(folder):
    weights.save(trained(depth=14), NAME, folder)
    assert "of another network: stages.0.2.conv1.weight is nothing there and (16, 16, 3, 3) here" in refused(folder)
    weights.save(models.cifar_resnet(20, num_classes=100), NAME, folder)
    assert "head.2.weight is (100, 64) there and (10, 64) here" in refused(folder)


def test_too_many_arrays(folder):
    put(folder, packed(**arrays(folder), more=np.zeros(3)))
    assert "more is (3,) there and nothing here" in refused(folder)


@pytest.mark.parametrize("value", [np.zeros(16, int), np.full(16, np.nan, np.float32), np.full(16, np.inf, np.float32), np.full(16, "a")])
def test_something_else_than_numbers(folder, value):
    put(folder, packed(**arrays(folder) | {"stem.1.bias": value}))
    refused(folder)


# ---- the files of the project ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in models.TRAINED if (weights.FOLDER / f"{name}.json").exists()])
def test_the_stored_networks_load_and_say_what_they_reach(name):
    models.load(name)
    found = weights.record(name)
    assert (weights.FOLDER / f"{name}.npz").stat().st_size <= 2_000_000
    assert 0.1 < found["test_accuracy"] < 1 and found["dataset"] == "cifar10" and found["epochs"] >= 1 and found["recipe"]
