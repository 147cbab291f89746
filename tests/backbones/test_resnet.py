import pytest
import torch
from torch import nn

from subnet_search.backbones.digits import DigitsNet
from subnet_search.backbones.resnet import ResidualBlock, resnet20, resnet32, resnet44, resnet56


# the paper's table 6 gives these in millions: 0.27, 0.46, 0.66, 0.85
@pytest.mark.parametrize(
    ("build", "parameters", "depth"),
    [(resnet20, 269_722, 20), (resnet32, 464_154, 32), (resnet44, 658_586, 44), (resnet56, 853_018, 56)],
)
def test_size_and_depth_of_the_paper(build: type[nn.Module], parameters: int, depth: int) -> None:
    model = build()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth


def test_shortcut_is_every_second_pixel_between_zeros() -> None:
    block = ResidualBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves only the shortcut
    x = torch.rand(3, 2, 5, 5)
    expected = torch.zeros(3, 6, 3, 3)
    for row in range(3):
        for column in range(3):
            expected[:, 2:4, row, column] = x[:, :, 2 * row, 2 * column]
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("model", [resnet20(7, width=4, inputs=1), DigitsNet(7, width=4)])
@pytest.mark.parametrize("size", [8, 13])
def test_logits_for_any_size_classes_and_width(model: nn.Module, size: int) -> None:
    assert model.eval()(torch.rand(2, 1, size, size)).shape == (2, 7)
