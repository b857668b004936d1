"""The networks in utils are those that the notebooks build."""

import functools
import subprocess
import sys
from pathlib import Path

import answers04
import nbformat
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from utils import checks, models

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize(
    ("check", "options"),
    [(checks.cnn, {}), (checks.batch_norm, {"batch_norm": "after"}), (checks.dropout, {"dropout": 0.5})],
)
def test_cnn_satisfies_its_exercises(check, options):
    assert check(functools.partial(models.CNN, **options))


def solutions(name, *cells):
    """Run these hidden solutions of a notebook; returns what they define."""
    scope = {"nn": nn, "F": F, "torch": torch, "checks": checks, "passed": False}
    for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells:
        if cell.id in cells:
            exec(cell.source, scope)
    return scope


def test_notebook_01_builds_the_same_networks():
    scope = solutions("01_cnn_cifar100.ipynb", "network-solution", "norm-solution", "drop-solution")
    for name, options in (("CNN", {}), ("BatchNorm", {"batch_norm": "after"}), ("Dropout", {"dropout": 0.5})):
        torch.manual_seed(0)
        theirs = scope[f"{name}Solution"](num_classes=7)
        torch.manual_seed(0)
        ours = models.CNN(num_classes=7, **options)  # draws the same initial weights
        assert [p.shape for p in theirs.parameters()] == [p.shape for p in ours.parameters()]
        x = torch.randn(4, 3, 32, 32)
        for mode in (True, False):
            outputs = []
            for model in (theirs, ours):
                torch.manual_seed(1)  # the same dropout
                outputs.append(model.train(mode)(x))
            torch.testing.assert_close(*outputs)


def test_cnn_takes_other_channels_and_refuses_other_words():
    assert models.CNN(10, in_channels=1, batch_norm="before")(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match="batch_norm must be"):
        models.CNN(batch_norm=True)


def same_network(theirs, ours, x):
    """Once `theirs` has the weights of `ours`, both give the same outputs and the same running means."""
    assert [p.shape for p in theirs.parameters()] == [p.shape for p in ours.parameters()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    for mode in (True, False):
        torch.testing.assert_close(theirs.train(mode)(x), ours.train(mode)(x))
    for a, b in zip(theirs.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("arguments", [(32, 32), (32, 64, 2), (3, 32, 2), (16, 32), (16, 16, 2)])
def test_notebook_02_builds_the_same_block(arguments):
    block = solutions("02_residual_block.ipynb", "block-solution")["ResidualBlockSolution"]
    same_network(block(*arguments), models.ResidualBlock(*arguments, norm_shortcut=True), torch.randn(4, arguments[0], 9, 9))


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_residual_block_has_the_parameters_of_the_paper():
    block = models.ResidualBlock
    assert count(block(32, 32)) == 18_560 == count(block(32, 32, shortcut="A"))
    assert count(block(32, 64, 2)) == 57_600 and count(block(32, 64, 2, norm_shortcut=True)) == 57_728
    assert count(block(32, 64, 2, shortcut="A")) == 57_600 - 2_048
    assert count(block(32, 32, shortcut="C")) == 18_560 + 1_024
    assert block(32, 32)(torch.zeros(1, 32, 96, 96)).shape == (1, 32, 96, 96)
    assert block(3, 32, 2)(torch.zeros(1, 3, 96, 96)).shape == (1, 32, 48, 48)


def test_zero_padding_is_that_of_notebook_02():
    function = solutions("02_residual_block.ipynb", "shortcuts-solution", "imports")["zero_padding_solution"]
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(function(x, 12, 2), models.ZeroPadding(4, 2)(x))


@pytest.mark.parametrize(("arguments", "options"), [((32, 16), {"shortcut": "A"}), ((32, 32), {"shortcut": "D"})])
def test_residual_block_refuses(arguments, options):
    with pytest.raises(ValueError, match="shortcut"):
        models.ResidualBlock(*arguments, **options)


def test_notebook_03_builds_the_same_network():
    scope = solutions("03_resnet25_cifar.ipynb", "imports", "layer-solution", "layer-shapes", "net-solution")
    same_network(scope["ResNet25Solution"](7), models.resnet25(7), torch.randn(4, 3, 32, 32))


def test_resnet25():
    assert count(models.resnet25()) == 4_024_490 and count(models.resnet25(norm_shortcut=True)) == 4_024_874
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1) for m in models.resnet25().modules()) + 1 == 50  # layers of the paper
    for size in (32, 33, 96):
        assert models.resnet25(stem="cifar", in_channels=1)(torch.zeros(2, 1, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match="stem must be"):
        models.resnet25(stem="3x3")


# ---- notebook 04: the family ----------------------------------------------------------------------------------------

FAMILY = {  # depth: parameters and multiply-accumulates at 224×224, both with 1,000 classes
    18: (11_689_512, 1_814_073_344),
    34: (21_797_672, 3_663_761_408),
    50: (25_557_032, 4_089_184_256),
    101: (44_549_160, 7_801_405_440),
    152: (60_192_808, 11_513_626_624),
}


@pytest.mark.parametrize("depth", FAMILY)
def test_family_is_torchvisions(depth):
    ours, theirs = models.resnet(depth), getattr(torchvision.models, f"resnet{depth}")()
    assert (count(ours), models.macs(ours, (3, 224, 224))) == FAMILY[depth]
    same_network(ours, theirs, torch.randn(4, 3, 64, 64))


def test_table_1_by_hand():
    """Parameters of ResNet-50, counted from the table and not from any code: weights of convolutions, two numbers for each BN channel."""
    total, channels = 3 * 64 * 49 + 2 * 64, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(blocks):
            total += channels * width + width * width * 9 + width * 4 * width + 2 * (width + width + 4 * width)
            total += channels * 4 * width + 2 * 4 * width if number == 0 else 0
            channels = 4 * width
    assert total + 2048 * 1000 + 1000 == FAMILY[50][0]


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_220_132), (34, 21_328_292), (50, 23_705_252)])
def test_cifar_stem(depth, parameters):
    model = models.resnet(depth, num_classes=100, stem="cifar").eval()
    assert count(model) == parameters
    assert model.stem(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 32, 32)


def test_family_takes_any_image_and_refuses_other_depths():
    assert models.resnet101()(torch.zeros(4, 3, 224, 224)).shape == (4, 1000)
    for size in (64, 96, 225):
        assert models.resnet18(7, in_channels=1).eval()(torch.zeros(1, 1, size, size)).shape == (1, 7)
    with pytest.raises(ValueError, match="no ResNet-20 in Table 1: use 18, 34"):
        models.resnet(20)
    with pytest.raises(ValueError, match="up to 4 stages"):
        models.ResNet(models.BasicBlock, [1, 1, 1, 1, 1])
    for options in ({"num_classes": 0}, {"in_channels": 0}):
        with pytest.raises(ValueError, match="at least 1 class and 1 channel"):
            models.resnet18(**options)


def test_notebook_04_builds_the_same_networks():
    scope = solutions(
        "04_resnet_family.ipynb",
        "imports",
        "basic-block",
        "bottleneck-solution",
        "equal-count",
        "stage-solution",
        "stage-shapes",
        "table-1",
        "resnet-solution",
        "resnet-build",
    )
    for depth, options in ((18, {"num_classes": 10}), (50, {"num_classes": 7, "in_channels": 1, "stem": "cifar"})):
        theirs, x = scope["build"](depth, **options), torch.randn(4, options.get("in_channels", 3), 40, 40)
        same_network(theirs, models.resnet(depth, **options), x)


@pytest.mark.parametrize(
    ("net", "block"),
    [*((net, "the shared one") for net in answers04.RIGHT_NETS), *(("as taught", block) for block in answers04.RIGHT_BOTTLENECK)],
)
def test_an_answer_takes_the_weights_of_torchvision_however_it_is_written(net, block):
    layers, x = [2, 1, 1, 2], torch.randn(2, 3, 40, 33)
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, layers, num_classes=10)
    ours = answers04.RIGHT_NETS[net](answers04.RIGHT_BOTTLENECK[block], layers, num_classes=10)
    checks.take_weights(ours, theirs, x)
    assert ours.training and theirs.training
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), atol=2e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="do not have the same layers"):
        checks.take_weights(models.resnet(50, 10), theirs, x)


@pytest.mark.slow
def test_resizing_happens_a_batch_at_a_time():
    """60,000 images of 224×224 would be 12 GB as floats; the loader's memory grows by less than 0.5 GB."""
    code = """
import sys, torch
sys.path.append("benchmarks")
from bench import peak_memory
from utils import data
split = data.Split(torch.zeros(60_000, 1, 28, 28, dtype=torch.uint8), torch.zeros(60_000, dtype=torch.int64))
before = peak_memory()
for number, (images, labels) in enumerate(data.BatchLoader(split, 64, data.Augment(), shuffle=True, size=224)):
    assert images.shape == (64, 1, 224, 224)
    if number == 5:
        break
print(peak_memory() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], cwd=NOTEBOOKS.parent, capture_output=True, text=True, check=True).stdout
    assert 64 * 224 * 224 * 4 < int(grown) < 500e6


# ---- notebook 05: pre-activation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", FAMILY)
def test_version_2_has_the_parameters_of_version_1_but_for_the_batch_norms(depth):
    def convolutions(model):
        return sorted(m.weight.shape for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))

    ours = models.resnet(depth, preactivated=True)
    assert convolutions(ours) == convolutions(models.resnet(depth))
    layers, wide = models.TABLE_1[depth], depth >= 50
    norms, channels = 0, 64
    for width, blocks in zip((64, 128, 256, 512), layers, strict=True):
        for _ in range(blocks):
            norms += channels + width * (2 if wide else 1)
            channels = width * (4 if wide else 1)
    norms += channels  # the last one, before the pooling
    assert sum(m.num_features for m in ours.modules() if isinstance(m, nn.BatchNorm2d)) == norms


def used(model, x):
    """The leaf modules in the order in which they are used, with their input and output."""
    calls, hooks = [], []
    for module in model.modules():
        if not list(module.children()):
            hooks.append(module.register_forward_hook(lambda m, given, out: calls.append((m, given[0], out))))
    out = model(x)
    for hook in hooks:
        hook.remove()
    return calls, out


@pytest.mark.parametrize(
    "model",
    [models.preact_resnet18(10), models.preact_resnet50(10), models.cifar_resnet(20, "v2"), models.cifar_resnet(29, "v2", bottleneck=True)],
    ids=["18", "50", "20", "29"],
)
def test_version_2_is_pre_activated(model):
    calls, _ = used(model.eval(), torch.randn(2, 3, 64, 64))
    kinds = [type(m).__name__ for m, _, _ in calls]
    assert kinds[-5:] == ["BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]  # BN and ReLU before the pooling
    assert "BatchNorm2d" not in kinds[: 1 + ("MaxPool2d" in kinds)]  # none behind the stem: the first block brings it
    blocks = [m for m in model.modules() if isinstance(m, (models.PreActBlock, models.PreActBottleneck))]
    for block in blocks:
        x = torch.randn(2, block.bn1.num_features, 8, 8)
        inside, out = used(block, x)
        convs = [(m, given, result) for m, given, result in inside if isinstance(m, nn.Conv2d)]
        main = [c for c in convs if c[0] is not block.shortcut]
        active = F.relu(block.bn1(x))
        torch.testing.assert_close(main[0][1], active)
        if isinstance(block.shortcut, nn.Conv2d):  # the first BN and ReLU are shared by both paths
            side = next(c for c in convs if c[0] is block.shortcut)
            torch.testing.assert_close(side[1], active)
            torch.testing.assert_close(out, main[-1][2] + side[2])
        else:
            torch.testing.assert_close(out, main[-1][2] + block.shortcut(x))  # nothing after the addition
        assert out.min() < 0


@pytest.mark.parametrize(
    ("depth", "bottleneck", "v1", "v2"),
    [
        (20, False, 269_722, 269_722),
        (32, False, 464_154, 464_154),
        (56, False, 853_018, 853_018),
        (110, False, 1_727_962, 1_727_962),
        (164, True, 1_704_154, 1_703_258),
    ],
)
def test_cifar_networks(depth, bottleneck, v1, v2):
    for kind, parameters in (("v1", v1), ("v2", v2)):
        model = models.cifar_resnet(depth, kind, bottleneck=bottleneck)
        assert count(model) == parameters
        assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) + 1 == depth + 3 * bottleneck
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_cifar_networks_refuse():
    with pytest.raises(ValueError, match=r"6n \+ 2 layers, got 21"):
        models.cifar_resnet(21)
    with pytest.raises(ValueError, match=r"9n \+ 2 layers, got 112"):
        models.cifar_resnet(112, bottleneck=True)
    with pytest.raises(ValueError, match="kind must be"):
        models.cifar_resnet(20, "v3")


def test_notebook_05_builds_the_same_blocks():
    scope = solutions("05_preactivation.ipynb", "imports", "block-solution", "bottleneck-solution")
    for name, right in (("PreActBlock", models.PreActBlock), ("PreActBottleneck", models.PreActBottleneck)):
        for arguments in ((32, 32), (32, 64, 2), (32, 8), (16, 32)):
            same_network(scope[f"{name}Solution"](*arguments), right(*arguments), torch.randn(4, arguments[0], 9, 9))


def test_notebook_05_spells_the_orders_of_the_paper():
    """(a) is version 1. (e) is version 2, but for the first block, whose shortcut reads the activated signal as well."""

    class Early(models.PreActBlock):
        def forward(self, x):
            active = F.relu(self.bn1(x))
            return self.conv2(F.relu(self.bn2(self.conv1(active)))) + active

    scope = solutions("05_preactivation.ipynb", "imports", "orders-block", "orders-class")
    scope["classes"] = 10
    cells = nbformat.read(NOTEBOOKS / "05_preactivation.ipynb", as_version=4).cells
    exec(next(cell.source for cell in cells if cell.id == "ends-network"), scope)
    x = torch.randn(4, 3, 16, 16)
    same_network(scope["variant"](20, "cbrcb+r"), models.cifar_resnet(20), x)
    version_2 = models.cifar_resnet(20, "v2")
    version_2.stages[0][0].__class__ = Early
    same_network(scope["variant"](20, "brcbrc+"), version_2, x)
    plain = scope["variant"](20, "cbrcb+r", keep=0.0)
    same_network(plain, models.cifar_resnet(20, "plain"), x)
    d = scope["variant"](20, "rcbrcb+")
    kinds = [[type(m).__name__ for m in part] for part in (d.stem, d.stages[0][0].path, d.stages[0][1].path, d.head[:2])]
    assert kinds[0] == ["Conv2d", "BatchNorm2d", "ReLU"] and kinds[1] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert kinds[2] == ["ReLU", *kinds[1]] and kinds[3] == ["ReLU", "AdaptiveAvgPool2d"]


# ---- notebooks 06 and 08: plain networks, Inception, ResNeXt --------------------------------------------------------


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85), (110, 1.7)])
def test_plain_networks_are_residual_ones_without_shortcuts(depth, millions):
    plain, v1 = models.cifar_resnet(depth, "plain"), models.cifar_resnet(depth)
    assert count(plain) == count(v1) and round(count(v1) / 1e6, 2 if depth < 110 else 1) == millions
    plain.load_state_dict(v1.state_dict())  # the same layers
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(plain.eval()(x), v1.eval()(x), atol=1e-2)
    for block in v1.modules():
        if isinstance(block, models.BasicBlock):
            block.shortcut = NoShortcut()
    torch.testing.assert_close(plain(x), v1(x))


class NoShortcut(nn.Module):
    def forward(self, x):
        return 0


def test_notebook_06_builds_the_same_block():
    block = solutions("06_depth.ipynb", "plain-solution")["PlainBlockSolution"]
    same_network(block(16, 32, 2), models.PlainBlock(16, 32, 2), torch.randn(4, 16, 9, 9))


def test_resnext50_is_torchvisions():
    ours, theirs = models.resnext50(), torchvision.models.resnext50_32x4d()
    assert count(ours) == 25_028_904
    same_network(ours, theirs, torch.randn(4, 3, 64, 64))


def test_inception_block_is_torchvisions_but_for_its_third_kernel():
    """torchvision's third path has a 3×3 kernel where the paper has 5×5 (a bug that it keeps for the sake of its weights)."""
    from torchvision.models.googlenet import Inception

    sizes = (192, 64, (96, 128), (16, 32), 32)
    theirs = Inception(192, 64, 96, 128, 16, 32, 32)
    ours = models.InceptionBlock(*sizes)
    ours.five[1][0] = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.001
    same_network(ours, theirs, torch.randn(4, 192, 8, 8))
    assert count(models.InceptionBlock(*sizes)) == 163_328 + 2 * (64 + 96 + 128 + 16 + 32 + 32)  # weights, BNs


def test_notebook_08_builds_the_same_blocks():
    scope = solutions("08_inception_vs_residual.ipynb", "inception-solution", "resnext-solution")
    sizes = (32, 8, (12, 16), (2, 4), 4)
    same_network(scope["InceptionBlockSolution"](*sizes), models.InceptionBlock(*sizes), torch.randn(4, 32, 9, 9))
    theirs, ours = scope["ResNeXtBlockSolution"](64, 128, 256, 32, 2), models.Bottleneck(64, 64, 2, groups=32, group_width=4)
    same_network(theirs, ours, torch.randn(4, 64, 9, 9))


@pytest.mark.parametrize(
    "network", [models.CNN(10), models.resnet18(10, stem="cifar"), models.cifar_resnet(8, "v2"), models.cifar_resnet(8, "plain")]
)
def test_backward_hooks_work_on_every_layer(network):
    """Grad-CAM and the like read gradients at any layer, which a ReLU in place would make impossible."""
    seen = []
    for module in network.modules():
        module.register_full_backward_hook(lambda module, into, out: seen.append(module))
    network(torch.randn(2, 3, 32, 32, requires_grad=True)).sum().backward()
    assert len(seen) >= sum(1 for module in network.modules() if not list(module.children())) - 1
