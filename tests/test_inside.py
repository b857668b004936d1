"""The instruments of notebook 09, on networks whose answer is known."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import inside, models


@pytest.fixture
def network():
    torch.manual_seed(0)
    found = models.cifar_resnet(20).double().eval()
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no BN is the identity
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return found


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def without_layers(network, numbers):
    """A copy whose blocks with these numbers compute F(x) = 0."""
    copied = copy.deepcopy(network)
    for number in numbers:
        block = inside.blocks(copied)[0][number]
        nn.init.zeros_(block.bn2.weight)
        nn.init.zeros_(block.bn2.bias)
    return copied


@pytest.mark.parametrize("numbers", [[0], [3], [8], [1, 4, 6], range(9)])
def test_a_deleted_block_is_one_whose_layers_give_nothing(network, numbers):
    before = network(images())
    with inside.deleted(network, numbers):
        torch.testing.assert_close(network(images()), without_layers(network, numbers)(images()))
    assert torch.equal(network(images()), before), "it comes off again"
    assert not any(module._forward_hooks for module in network.modules())


def test_a_hook_comes_off_after_an_error(network):
    with pytest.raises(KeyError), inside.deleted(network, [1]):
        raise KeyError
    assert not any(module._forward_hooks for module in network.modules())


def test_a_plain_block_gives_back_its_input():
    network = models.cifar_resnet(20, "plain").eval()
    shorter = copy.deepcopy(network)
    del shorter.stages[1][1]
    with inside.deleted(network, [4]):
        x = images().float()
        torch.testing.assert_close(network(x), shorter(x))
    with pytest.raises(ValueError, match="block 3 has no shortcut and changes the shape"):
        inside.deleted(network, [3])


def test_swapping(network):
    by_hand = copy.deepcopy(network)
    stage = by_hand.stages[0]
    stage[1], stage[2] = stage[2], stage[1]
    before = network(images())
    with inside.swapped(network, 1, 2):
        torch.testing.assert_close(network(images()), by_hand(images()))
    assert torch.equal(network(images()), before)
    with pytest.raises(ValueError, match="blocks 2 and 4 cannot be exchanged"), inside.swapped(network, 2, 4):
        pass


def test_what_a_block_adds(network):
    silent = without_layers(network, [2, 5])
    ratios = inside.added(silent, images())
    assert [ratio == 0 for ratio in ratios] == [number in (2, 5) for number in range(9)]
    block, x = silent.stages[0][0], silent.stem(images())
    residual = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    expected = (residual.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).mean().item()
    assert ratios[0] == pytest.approx(expected)


def test_the_gradients_of_all_paths_add_up_to_the_gradient(network):
    """Of two blocks there are four paths. The sum of their gradients is the whole one: the network is linear where it is differentiable."""
    small = models.ResNet(models.BasicBlock, (2,), 3, 10, "cifar", (4,)).double().eval()
    x, labels = images(), torch.tensor([1, 2])

    def gradient(through=None):
        given = x.clone().requires_grad_()
        if through is None:
            loss = F.cross_entropy(small(given), labels)
        else:
            with inside.one_path(small, through):
                loss = F.cross_entropy(small(given), labels)
        return torch.autograd.grad(loss, given)[0]

    paths = [gradient(through) for through in ((), (0,), (1,), (0, 1))]
    torch.testing.assert_close(sum(paths), gradient())
    assert inside.path_gradient(small, x, labels, (0,)) == pytest.approx(paths[1].norm().item())
    assert all("forward" not in vars(block) for block in inside.blocks(small)[0])


def test_the_receptive_field_of_linear_layers():
    """Two 3×3 convolutions of ones: the middle is reached by 1, 2, 3, 2, 1 paths in each direction (Luo et al. 2016, section 2)."""

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2)))
            for layer in self.stages:
                nn.init.ones_(layer.weight)

        def forward(self, x):
            return self.stages(x)

    network = Layers()
    field = inside.receptive_field(network, torch.randn(3, 1, 9, 9))
    line = torch.tensor([0.0, 0, 1, 2, 3, 2, 1, 0, 0]) / 3
    torch.testing.assert_close(field, torch.outer(line, line))


def test_the_landscape_of_a_quadratic_loss():
    network = nn.Linear(3, 2, bias=False)
    before = network.weight.clone()
    one, other = torch.randn(2, 3), torch.randn(2, 3)
    found = inside.landscape(network, [one], [other], [-1.0, 0.0, 2.0], lambda moved: moved.weight.square().sum())
    for row, a in enumerate((-1, 0, 2)):
        for column, b in enumerate((-1, 0, 2)):
            assert found[row, column] == pytest.approx((before + a * one + b * other).square().sum().item(), rel=1e-5)
    assert torch.equal(network.weight, before), "the network itself does not move"


def test_grad_cam_by_hand():
    """A network of one layer: the gradient of a logit with respect to channel c is the weight w[class, c] / (number of pixels)."""
    torch.manual_seed(0)
    layer, head = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    x, classes = torch.randn(2, 3, 6, 6), torch.tensor([3, 0])
    by_hand = F.relu(torch.einsum("nchw,nc->nhw", layer(x), head.weight[classes]))
    by_hand = by_hand / by_hand.amax((1, 2), keepdim=True)
    torch.testing.assert_close(inside.grad_cam(network, layer, x, classes), by_hand)
    assert not layer._forward_hooks
