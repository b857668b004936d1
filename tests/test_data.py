"""The loader does what torchvision does, image for image; bad data is answered with one line."""

import errno
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from utils import data, stream


def split(n=40, classes=10, shape=(3, 32, 32)):
    return data.Split(torch.randint(0, 256, (n, *shape), dtype=torch.uint8), torch.arange(n) % classes)


# ---- augmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 24, 40)])
def test_augmentation_equals_torchvision_on_the_same_draws(shape):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (400, *shape), dtype=torch.uint8)
    augment = data.Augment()
    draws = augment.draw(len(images), np.random.default_rng(0))
    expected = []
    for image, (flip, angle, down, right) in zip(images, draws.tolist(), strict=True):
        image = tv.to_dtype(image, torch.float32, scale=True)
        image = tv.horizontal_flip(image) if flip else image
        image = tv.rotate(image, angle)
        image = tv.crop(tv.pad(image, [4] * 4), 4 - int(down), 4 - int(right), *shape[1:])
        expected.append(tv.normalize(image, [0.5], [0.5]))
    same = ((augment(images, draws) - torch.stack(expected)).abs() < 1e-5).float().mean().item()
    assert same > 0.9999  # a source coordinate may lie half-way between two pixels and be rounded either way


def test_draws_are_spread_as_torchvision_spreads_them():
    flip, angle, down, right = data.Augment().draw(20_000, np.random.default_rng(0)).T
    assert 0.48 < flip.mean() < 0.52 and set(flip.tolist()) == {0, 1}
    assert -15 <= angle.min() < -14.9 and 14.9 < angle.max() <= 15
    for shift in (down, right):
        values, counts = shift.unique(return_counts=True)
        assert values.tolist() == list(range(-4, 5)) and counts.min() > 2000


def test_switched_off_augmentation_only_normalises():
    images = split().images
    off = data.Augment(flip=0, rotate=0, crop_padding=0, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    expected = tv.normalize(images / 255, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    torch.testing.assert_close(off(images, off.draw(len(images), np.random.default_rng(0))), expected, check_stride=False)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 9, 12)])
def test_reflected_borders_are_those_of_torchvision(shape):
    images = torch.randint(0, 256, (50, *shape), dtype=torch.uint8)
    augment = data.Augment(rotate=0, crop_padding=3, padding_mode="reflect", mean=0, std=1)
    draws = augment.draw(len(images), np.random.default_rng(0))
    expected = []
    for image, (flip, _, down, right) in zip(images / 255, draws.tolist(), strict=True):
        image = tv.horizontal_flip(image) if flip else image
        expected.append(tv.crop(tv.pad(image, [3] * 4, padding_mode="reflect"), 3 - int(down), 3 - int(right), *shape[1:]))
    torch.testing.assert_close(augment(images, draws), torch.stack(expected), check_stride=False)


def test_an_unknown_border_is_refused():
    with pytest.raises(ValueError, match="padding_mode must be"):
        data.Augment(padding_mode="mirror")


# ---- the loader -----------------------------------------------------------------------------------------------------


def numbered(n):
    """Images that can be told apart by the value of their pixels."""
    return data.Split(torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8), torch.arange(n))


def order(loader):
    return torch.cat([labels for _, labels in loader]).tolist()


def test_every_image_comes_once_an_epoch_with_its_own_label():
    loader = data.BatchLoader(numbered(100), 32, shuffle=True)
    assert len(loader) == 4
    for _ in range(2):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [32, 32, 32, 4]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert sorted(labels.tolist()) == list(range(100))
        assert torch.equal(((images[:, 0, 0, 0] + 1) * 127.5).round().long(), labels)


def test_the_same_seed_gives_the_same_epochs_and_each_epoch_is_new():
    def loader(seed):
        return data.BatchLoader(numbered(100), 32, data.Augment(), shuffle=True, seed=seed)

    one, two, other = loader(1), loader(1), loader(2)
    first, second = list(one), list(one)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, two, strict=True))
    assert not torch.equal(first[0][1], second[0][1])
    assert not torch.equal(first[0][1], next(iter(other))[1])


def test_without_shuffling_the_order_stays():
    assert order(data.BatchLoader(numbered(10), 4)) == list(range(10))


def test_size_resizes_on_the_way():
    loader = data.BatchLoader(split(10), 4, data.Augment(), size=96)
    assert next(iter(loader))[0].shape == (4, 3, 96, 96)


def test_resizing_equals_torchvision():
    images = split(5).images
    ours = next(iter(data.BatchLoader(data.Split(images, torch.arange(5)), 5, size=48)))[0]
    torch.testing.assert_close(
        ours, tv.normalize(tv.resize(images / 255, [48, 48]), [0.5], [0.5]), check_stride=False, rtol=1e-4, atol=1e-4
    )


def test_flips_by_turns_show_each_image_and_its_mirror_image_in_turn():
    pictures = torch.zeros(30, 1, 4, 4, dtype=torch.uint8)
    pictures[:, :, :, 0] = 255  # a line on the left, which a flip brings to the right
    split = data.Split(pictures, torch.arange(30))
    loader = data.BatchLoader(split, 8, data.Augment(flip="alternating", rotate=0, crop_padding=0), shuffle=True, seed=3)
    epochs = []
    for _ in range(4):
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        epochs.append((images[:, 0, 0, 0] < 0)[labels.argsort()])
    first, second, third, fourth = epochs
    assert torch.equal(first, ~second) and torch.equal(first, third) and torch.equal(second, fourth)
    assert 5 < first.sum() < 25


def test_each_epoch_has_its_size_and_the_last_one_stays():
    loader = data.BatchLoader(split(10), 4, data.Augment(), size=(8, 12, None))
    assert [next(iter(loader))[0].shape[2:] for _ in range(4)] == [(8, 8), (12, 12), (32, 32), (32, 32)]


def test_short_epochs_are_drawn_anew_from_all_images():
    loader = data.BatchLoader(numbered(64), 8, shuffle=True, max_batches=2)
    taken = [order(loader) for _ in range(12)]
    assert len(loader) == 2 and all(len(set(labels)) == 16 for labels in taken)
    assert len(set().union(*taken)) > 32
    assert len(data.BatchLoader(numbered(64), 8, max_batches=20)) == 8
    assert loader.settings() != data.BatchLoader(numbered(64), 8, shuffle=True, max_batches=3).settings()
    with pytest.raises(ValueError, match="max_batches"):
        data.BatchLoader(numbered(64), 8, max_batches=0)


@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_are_the_same_however_many_are_augmented_at_once(drop_last):
    def loader(ahead):
        return data.BatchLoader(numbered(50), 8, data.Augment(), shuffle=True, size=10, drop_last=drop_last, ahead=ahead)

    single = list(loader(1))
    for ahead in (2, 4, 100):
        several = list(loader(ahead))
        assert len(single) == len(several) == len(loader(ahead))
        assert all(torch.equal(a, b) for one, two in zip(single, several, strict=True) for a, b in zip(one, two, strict=True))


def test_ahead_must_be_a_batch():
    with pytest.raises(ValueError, match="at least 1 batch, got 0"):
        data.BatchLoader(split(4), 2, ahead=0)


@pytest.mark.parametrize(
    ("images", "batch_size", "size", "message"),
    [
        (split(0), 4, None, "0 images"),
        (split(4), 0, None, "batch size 0"),
        (split(4), 2, 0, "at least 1 pixel, got 0"),
        (split(4), 2, (8, 0), "at least 1 pixel"),
    ],
)
def test_loader_refuses(images, batch_size, size, message):
    with pytest.raises(ValueError, match=message):
        data.BatchLoader(images, batch_size, size=size)


BYTES, NUMBERS = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (BYTES.float(), NUMBERS, "images must be uint8 N×C×H×W, got torch.float32"),
        (BYTES[0], NUMBERS, "images must be uint8"),
        (BYTES, NUMBERS[:3], "one for each of 4 images"),
        (BYTES, NUMBERS.float(), "labels must be int64"),
        (BYTES, NUMBERS[:, None], "labels must be int64"),
    ],
)
def test_split_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message):
        data.Split(images, labels)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_refused(label):
    part = data.Split(BYTES, NUMBERS)
    with pytest.raises(ValueError, match=r"but mine has 2 classes, 0 to 1"):
        data.Dataset("mine", part, data.Split(BYTES, NUMBERS + label), ["a", "b"])


@pytest.mark.parametrize("options", [{"flip": 1.5}, {"flip": -0.1}, {"rotate": -1}, {"rotate": 181}, {"crop_padding": -1}])
def test_augmentation_refuses(options):
    with pytest.raises(ValueError, match="flip must be from 0 to 1"):
        data.Augment(**options)


def test_hold_out_parts_each_class_evenly():
    whole = split(1000, classes=10)
    train, validation = whole.hold_out(100, seed=3)
    assert torch.bincount(validation.labels).tolist() == [10] * 10 and len(train) == 900
    rows = {tuple(image.flatten().tolist()) for part in (train, validation) for image in part.images}
    assert len(rows) == 1000  # none in both, none lost
    again = whole.hold_out(100, seed=3)[1]
    assert torch.equal(validation.images, again.images)
    assert not torch.equal(validation.images, whole.hold_out(100, seed=4)[1].images)


@pytest.mark.parametrize("n", [0, -1, 40, 41])
def test_hold_out_refuses(n):
    with pytest.raises(ValueError, match="cannot hold out"):
        split(40).hold_out(n, seed=0)


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (9, 4, [4, 4])])
def test_drop_last_leaves_out_a_last_batch_that_is_not_full(n, batch_size, sizes):
    loader = data.BatchLoader(split(n), batch_size, data.Augment(), shuffle=True, drop_last=True)
    for _ in range(2):
        assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)
    assert sum(len(labels) for _, labels in data.BatchLoader(split(n), batch_size, shuffle=True)) == n


def test_the_digest_of_a_data_set_is_that_of_its_content():
    one, same, other = (data.synthetic("cifar10", 50, 20, seed=seed) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest


# ---- loading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def arrays():
    def part(n):
        return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8), np.arange(n) % 10

    (x_train, y_train), (x_test, y_test) = part(50), part(20)
    classes = np.array([f"class {i}" for i in range(10)])
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, "classes": classes}


@pytest.fixture
def offline(monkeypatch):
    """torchvision finds no network."""

    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", unreachable)


def test_prepared_file(tmp_path, arrays):
    np.savez(tmp_path / "cifar10.npz", **arrays)
    dataset = data.load("cifar10", tmp_path)
    assert (dataset.name, dataset.synthetic, len(dataset.classes)) == ("cifar10", False, 10)
    assert dataset.train.images.shape == (50, 3, 32, 32) and dataset.train.images.dtype == torch.uint8
    assert torch.equal(dataset.train.images[7], torch.from_numpy(arrays["x_train"][7]).permute(2, 0, 1))
    assert dataset.test.labels.dtype == torch.int64


def test_download_is_kept_as_a_prepared_file(tmp_path, arrays, monkeypatch):
    class Torchvision:
        def __init__(self, root, train, download):
            part = "train" if train else "test"
            self.data, self.targets, self.classes = arrays[f"x_{part}"], arrays[f"y_{part}"].tolist(), list(arrays["classes"])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Torchvision)
    first = data.load("cifar10", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").glob("[!.]*")] == ["cifar10.npz"]
    monkeypatch.setattr("torchvision.datasets.CIFAR10", None)  # is not asked again
    assert torch.equal(first.train.images, data.load("cifar10", tmp_path / "new").train.images)


def test_nothing_to_be_had_goes_on_with_synthetic_images_and_says_so(tmp_path, offline, capsys):
    dataset = data.load("cifar10", tmp_path)
    assert dataset.synthetic and dataset.name == "synthetic" and len(dataset.classes) == 10
    assert capsys.readouterr().out.count("SYNTHETIC") == 1


@pytest.mark.parametrize(
    ("error", "of_the_network"),
    [
        (URLError("name or service not known"), True),
        (HTTPError("http://example.org", 503, "unavailable", None, None), True),
        (TimeoutError("timed out"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), True),
        (IncompleteRead(b"half"), True),
        (ssl.SSLError(1, "bad record"), True),
        (OSError(errno.ENETUNREACH, "network is unreachable"), True),
        (RuntimeError("File not found or corrupted."), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (ValueError("a mistake of ours"), False),
    ],
)
def test_only_a_failure_of_the_network_falls_back(tmp_path, monkeypatch, error, of_the_network):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fails)
    if of_the_network:
        assert data.load("cifar10", tmp_path).synthetic
    else:
        with pytest.raises(type(error) if isinstance(error, ValueError) else OSError) as raised:
            data.load("cifar10", tmp_path)
        assert "cannot be downloaded" not in str(raised.value) and "\n" not in str(raised.value)
    if error.args[:1] == (errno.ENOSPC,):
        assert "cifar10 cannot be kept in" in str(raised.value) and "No space left on device" in str(raised.value)


def test_of_two_first_runs_at_once_one_downloads_and_both_get_the_images(tmp_path, arrays, monkeypatch):
    downloads = []

    class Slow:
        def __init__(self, root, train, download):
            downloads.append(train)
            time.sleep(0.3)
            part = "train" if train else "test"
            self.data, self.targets, self.classes = arrays[f"x_{part}"], arrays[f"y_{part}"].tolist(), list(arrays["classes"])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Slow)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: data.load("cifar10", tmp_path), range(2)))
    assert downloads == [True, False] and not any(dataset.synthetic for dataset in both)


def test_nothing_to_be_had_fails_in_one_line_when_asked_for(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match="^cifar10 is not in .* DATA=synthetic$"):
        data.load("cifar10", tmp_path, fallback=False)


def change(**changes):
    return lambda arrays: arrays | {key: change(arrays[key]) for key, change in changes.items()}


@pytest.mark.parametrize(
    "spoil",
    [
        change(x_train=lambda x: x[:, :16]),
        change(x_train=lambda x: x.astype(np.float32)),
        change(x_test=lambda x: x[:3]),
        change(y_train=lambda y: y + 1),
        change(y_train=lambda y: y - 1),
        change(y_test=lambda y: y.astype(np.float64)),
        change(classes=lambda c: c[:9]),
        change(x_train=lambda x: x.astype(object)),  # would need pickle
        change(x_train=lambda x: x[:0], y_train=lambda y: y[:0]),
        lambda arrays: {"something": arrays["x_train"]},
    ],
)
def test_foreign_file_is_refused_in_one_line(tmp_path, arrays, spoil):
    np.savez(tmp_path / "cifar10.npz", **spoil(arrays))
    with pytest.raises(ValueError, match="cifar10.npz is damaged or not a prepared cifar10 .*delete it and run again") as error:
        data.load("cifar10", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_truncated_file_is_refused_in_one_line(tmp_path, arrays, keep):
    np.savez(tmp_path / "cifar10.npz", **arrays)
    whole = (tmp_path / "cifar10.npz").read_bytes()
    (tmp_path / "cifar10.npz").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(ValueError, match="delete it and run again"):
        data.load("cifar10", tmp_path)


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cifar11': use cifar100, cifar10, fashionmnist, synthetic, or the path"):
        data.load("cifar11", tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Red and blue pictures of several sizes."""
    for colour in ("red", "blue"):
        for number in range(10):
            path = tmp_path / "pictures" / colour / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50 + 10 * number, 40), colour).save(path)
    return tmp_path / "pictures"


def test_folder_of_pictures(folder):
    dataset = data.load(str(folder))
    assert (dataset.name, dataset.classes, len(dataset.train), len(dataset.test)) == ("pictures", ["blue", "red"], 16, 4)
    assert dataset.train.images.shape == (16, 3, 32, 32)
    assert torch.equal(dataset.train.images[:, 0, 5, 5] == 255, dataset.train.labels == 1)
    assert torch.bincount(dataset.test.labels).tolist() == [2, 2]
    assert data.load(str(folder), size=64).test.images.shape == (4, 3, 64, 64)


def test_folder_is_found_from_the_project(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "ROOT", folder.parent)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert data.load("pictures").name == "pictures"


def test_folder_with_parts(folder, tmp_path):
    for part in ("train", "val"):
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / "both" / part).symlink_to(folder)
    dataset = data.load(tmp_path / "both")
    assert (len(dataset.train), len(dataset.test), dataset.name) == (20, 20, "both")


def test_folder_of_one_class(folder):
    with pytest.raises(ValueError, match="one class 'pictures'|one class 'red'"):
        (folder / "blue").rename(folder.parent / "elsewhere")
        data.load(folder)


def test_empty_class_folder(folder):
    (folder / "green").mkdir()
    with pytest.raises(ValueError, match="green.*put pictures into each") as error:
        data.load(folder)
    assert "\n" not in str(error.value)


def test_folder_without_class_folders(tmp_path):
    with pytest.raises(ValueError, match="put pictures into each"):
        data.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n123"])
def test_unreadable_picture(folder, content):
    (folder / "red" / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 21 pictures can't be read, .*bad\.png first: delete"):
        data.load(folder)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_enormous_picture(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"can't be read, .*\(more pixels than Pillow opens\) first: delete them") as error:
        data.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["I;16", "L", "RGBA", "P", "1"])
def test_pictures_of_other_kinds_keep_their_brightness(folder, mode):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    if mode == "I;16":
        Image.fromarray(ramp.astype(np.uint16) * 257).save(folder / "red" / "ramp.png")
    else:
        Image.fromarray(ramp).convert("RGB").convert(mode).save(folder / "red" / "ramp.png")
    picture = data._read_picture(folder / "red" / "ramp.png", 64)
    assert picture.shape == (64, 64, 3)
    right = np.asarray(Image.open(folder / "red" / "ramp.png").convert("RGB")) if mode in "P1" else ramp[..., None]
    assert np.abs(picture.astype(int) - right).max() <= 1
    pictures = stream.pictures(folder)
    ((streamed, _),) = stream.FolderLoader(pictures[pictures.names == b"red/ramp.png"], 1, size=56, workers=0)  # the middle of 64×64
    assert np.abs((streamed[0].permute(1, 2, 0).numpy() + 1) * 127.5 - picture[4:-4, 4:-4]).max() < 1


def test_too_few_pictures_for_a_test_part(folder):
    for number in range(7):
        (folder / "red" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="fewer than 5"):
        data.load(folder)


def test_too_few_pictures_for_a_validation_part(folder):
    for colour in ("red", "blue"):
        for number in range(6, 10):
            (folder / colour / f"{number}.png").unlink()
    assert len(data.load(folder).train) == 10, "the fewest that will do"
    (folder / "red" / "0.png").unlink()
    with pytest.raises(ValueError, match="has 9 pictures to train on: add some"):
        data.load(folder)


# ---- made-up images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("like", "classes", "shape"), [("cifar100", 100, (3, 32, 32)), ("cifar10", 10, (3, 32, 32)), ("fashionmnist", 10, (1, 28, 28))]
)
def test_synthetic_images_have_the_shape_of_what_they_stand_in_for(like, classes, shape):
    dataset = data.load("synthetic", like=like)
    assert dataset.synthetic and len(dataset.classes) == classes == len(set(dataset.classes))
    assert dataset.train.images.shape[1:] == shape and dataset.train.images.dtype == torch.uint8
    assert torch.bincount(dataset.test.labels).tolist() == [len(dataset.test) // classes] * classes
    assert torch.equal(dataset.train.images, data.synthetic(like).train.images)


def test_synthetic_images_can_be_learnt():
    """The colours of the nearest class mean tell more than chance, and do not tell all."""
    dataset = data.synthetic("cifar100")
    train, test = (part.images.float().flatten(1) for part in (dataset.train, dataset.test))
    means = torch.stack([train[dataset.train.labels == label].mean(0) for label in range(100)])
    right = (torch.cdist(test, means).argmin(1) == dataset.test.labels).float().mean()
    assert 0.05 < right < 0.9
