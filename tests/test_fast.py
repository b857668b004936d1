"""The fast network and its recipe are those that notebook 10 builds, and do what they say."""

from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import checks, data, fast, models, train

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "10_fast.ipynb"


@pytest.fixture(scope="module")
def notebook():
    """What these cells of the notebook define."""
    wanted = ("network-stage", "network-class", "whitening-solution", "orthogonalise-exercise", "orthogonalise-solution", "muon-code",
              "recipe", "views")  # fmt: skip
    scope = {"nn": nn, "F": F, "torch": torch, "checks": checks, "train": train}
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    for name in wanted:
        exec(cells[name], scope)
    exec(cells["identity-code"].partition("\n\n\n")[0], scope)
    return scope | {"whitening": scope["whitening_solution"], "orthogonalise": scope["orthogonalise_solution"]}


def images(n=40, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def trained(network, recipe, steps=3):
    """A small network after some steps, and its output."""
    torch.manual_seed(0)
    model = network(num_classes=5, widths=(8, 12, 16))
    model.whiten(images())
    optimizer, scheduler = recipe(model, steps, 40)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images()), torch.arange(40) % 5).backward()
        optimizer.step()
        scheduler.step()
    return model


def test_notebook_10_builds_the_same_network_and_recipe(notebook):
    """And the notebook's functions call each other, so all of its solutions are in this."""
    globals_of = notebook["FastNet"].whiten.__globals__
    globals_of |= {"whitening": notebook["whitening_solution"], "orthogonalise": notebook["orthogonalise_solution"]}
    theirs, ours = trained(notebook["FastNet"], notebook["muon_recipe"]), trained(fast.FastNet, fast.muon_recipe)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], value, msg=name)
    views = notebook["SixViews"](theirs.eval()), fast.SixViews(ours.eval())
    torch.testing.assert_close(views[0](images()), views[1](images()))


def test_size_and_price():
    model = fast.FastNet()
    assert sum(p.numel() for p in model.parameters()) == 1_972_792
    assert models.macs(model, (3, 32, 32)) == 118_147_360
    assert model(images(2)).shape == (2, 10) and model(images(2, 17)).shape == (2, 10)
    assert fast.FastNet(100, (8, 8, 8), branch=2, shortcut="none")(images(2)).shape == (2, 100)


def test_where_the_shortcut_ends():
    x, stages = torch.randn(3, 4, 8, 8), {}
    for shortcut in ("outside", "inside", "none"):
        torch.manual_seed(0)
        stages[shortcut] = fast.Stage(4, 6, shortcut=shortcut)
    one = stages["none"]
    half = F.gelu(one.norm(F.max_pool2d(one.conv(x), 2)))
    torch.testing.assert_close(stages["none"](x), F.gelu(one.last(one.branch(half))))
    torch.testing.assert_close(stages["outside"](x), F.gelu(half + one.last(one.branch(half))))
    torch.testing.assert_close(stages["inside"](x), F.gelu(one.last(half + one.branch(half))))
    with pytest.raises(ValueError, match="shortcut must be"):
        fast.Stage(4, 6, shortcut=True)


def test_whitening_makes_patches_uncorrelated():
    smooth = F.avg_pool2d(images(60, 14), 3, 1)
    filters = fast.whitening(smooth, eps=0)
    out = F.conv2d(smooth, filters).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out[:12] @ out[:12].T / out.shape[1], torch.eye(12), atol=1e-2, rtol=0)
    torch.testing.assert_close(out[12:], -out[:12])


def test_identity_start_hands_the_input_on():
    conv = fast.identity_(nn.Conv2d(5, 8, 3, padding=1, bias=False))
    x = torch.randn(2, 5, 6, 6)
    assert torch.equal(conv(x)[:, :5], x) and conv(x)[:, 5:].abs().mean() > 0.01


def test_muon_turns_a_kernel_by_its_rate():
    kernel = nn.Parameter(torch.randn(8, 4, 3, 3))
    before = kernel.detach() / kernel.detach().norm() * 8**0.5
    optimizer = fast.Muon([kernel, nn.Parameter(torch.randn(2, 2, 1, 1))], lr=0.1, newton_schulz=5)  # the other has no gradient
    kernel.grad = 1e-3 * torch.randn(8, 4, 3, 3)
    optimizer.step()
    values = torch.linalg.svdvals((kernel.detach() - before).flatten(1)) / 0.1
    assert 0.65 < values.min() and values.max() < 1.25


def test_the_recipe_moves_each_parameter_that_learns_once_and_ends_at_zero():
    model = fast.FastNet(widths=(8, 8, 8))
    model.whiten(images())
    optimizer, scheduler = fast.muon_recipe(model, 8, 100)
    moved = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rates = []
    for _ in range(9):
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    assert rates[8] == [0, 0, 0, 0] and rates[3][2] == 0 < rates[2][2] and rates[4][3] == pytest.approx(rates[0][3] / 2)
    unwhitened = fast.FastNet(widths=(8, 8, 8))
    groups = fast.muon_recipe(unwhitened, 8, 100)[0].param_groups
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in unwhitened.parameters())


def test_six_views_are_the_mean_over_shifts_and_mirror_images():
    class Corner(nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    x = torch.arange(16.0).view(1, 1, 4, 4)
    # as it is: 0, mirrored 3; up and left shows (-1, -1), reflected to (1, 1): 5, mirrored (-1, 2): 6; down and right (1, 1): 5, mirrored
    # (1, 4), reflected to (1, 2): 6
    assert fast.SixViews(Corner())(x).item() == pytest.approx((0 + 3) / 4 + (5 + 6) / 8 + (5 + 6) / 8)


def test_sizes_by_epoch():
    assert fast.by_epoch((24, 32, 32), 9) == (24,) * 3 + (32,) * 6
    assert fast.by_epoch((24, 32), 1) == (24,) and fast.by_epoch((32,), 2) == (32, 32)


def test_it_learns_quickly():
    dataset = data.synthetic("cifar10", train=600, test=200)
    torch.manual_seed(0)
    model = fast.FastNet(widths=(8, 16, 16))
    loader = fast.loader(dataset.train, 50, (24, 32), 0, "cpu")
    model.whiten(data.Augment().normalise(dataset.train.images[:200]))
    optimizer, scheduler = fast.muon_recipe(model, 3 * len(loader), 50)
    train.fit(model, loader, None, epochs=3, optimizer=optimizer, scheduler=scheduler, verbose=False)
    assert train.epoch(model, data.BatchLoader(dataset.test, 200), nn.CrossEntropyLoss())[1] > 0.3
