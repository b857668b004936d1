"""What holds for every split and every loader, whatever their numbers are."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import data

sizes, seeds, batches = st.integers(2, 120), st.integers(0, 2**31), st.integers(1, 50)


def split(n, classes=3):
    """n images of 2×2 pixels, each with its own number in its pixels."""
    numbers = torch.arange(n)
    pixels = torch.stack([numbers % 256, numbers // 256] * 2, 1).to(torch.uint8)
    return data.Split(pixels.view(n, 1, 2, 2), numbers % classes)


def numbers(images):
    """The numbers of images as the loader gives them."""
    pixels = ((images + 1) * 127.5).round().long().flatten(1)
    return (pixels[:, 0] + 256 * pixels[:, 1]).tolist()


@settings(max_examples=60, deadline=None)
@given(sizes, batches, seeds, st.booleans())
def test_every_image_comes_once_an_epoch(n, batch_size, seed, shuffle):
    loader = data.BatchLoader(split(n), batch_size, shuffle=shuffle, seed=seed)
    for _ in range(2):
        batches = [(numbers(images), labels.tolist()) for images, labels in loader]
        order = [number for images, _ in batches for number in images]
        assert sorted(order) == list(range(n)) and (shuffle or order == sorted(order))
        assert [label for _, labels in batches for label in labels] == [number % 3 for number in order]
        assert len(batches) == len(loader) and all(len(images) == batch_size for images, _ in batches[:-1])


@settings(max_examples=30, deadline=None)
@given(sizes, batches, seeds)
def test_the_same_seed_gives_the_same_batches(n, batch_size, seed):
    one, two = (data.BatchLoader(split(n), batch_size, data.Augment(crop_padding=1), shuffle=True, seed=seed) for _ in range(2))
    for _ in range(2):
        for (images, labels), (again, labels_again) in zip(one, two, strict=True):
            assert torch.equal(images, again) and torch.equal(labels, labels_again)


@settings(max_examples=60, deadline=None)
@given(sizes, st.floats(0, 1), st.integers(1, 7), seeds)
def test_hold_out_parts_without_loss_and_with_each_classs_share(n, share, classes, seed):
    held = min(max(1, round(share * n)), n - 1)
    whole = split(n, classes)
    train, validation = whole.hold_out(held, seed)
    assert len(validation) == held
    both = [numbers(data.Augment().normalise(part.images)) for part in (train, validation)]
    assert sorted(both[0] + both[1]) == list(range(n))
    of_class = [np.bincount(part.labels.numpy(), minlength=classes) for part in (validation, whole)]
    assert np.all(np.abs(of_class[0] - of_class[1] * held / n) <= 1)
    again = whole.hold_out(held, seed)[1]
    assert torch.equal(validation.images, again.images)
