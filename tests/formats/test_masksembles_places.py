"""Where layers of the official package may stand in a network, and where no ensemble computes what they do."""

import copy

import pytest
import torch
from torch import nn

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import official_layer
from subnet_search.formats.masksembles_reader import from_masksembles
from tests.formats.small_resnet import CARD, MEMBERS, SmallResNet, draw, official


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "has no Masksembles1D or Masksembles2D among its modules"),
        (
            {"stem": draw(MEMBERS, 6, 0), "block1.end": draw(MEMBERS, 6, 1), "block2.end": draw(MEMBERS, 6, 0)},
            r"'stem', 'block1\.end' mask the same channels \(group 'conv1', written at 'bn1', 'block1\.bn2', 'block2\.bn2'\) differently",
        ),
        ({"stem": draw(MEMBERS, 6)}, r"'stem' do not take the channels of group 'conv1' out .* 'bn1', 'block1\.bn2', 'block2\.bn2'"),
        ({"stem": draw(MEMBERS, 6), "block1.end": torch.ones(MEMBERS, 6)}, r"'stem', 'block1\.end' do not take the channels of group 'conv1' out"),
        ({"hidden": draw(2, 7), "stem": draw(3, 6)}, r"different numbers of members: \{'stem': 3, 'hidden': 2\}"),
        ({"spread": draw(MEMBERS, 16)}, r"'spread' mask the same channels \(group 'conv2'"),
        ({"logits": draw(MEMBERS, 4)}, r"'logits' masks channel \d, which no group has: it is an input or a logit"),
        ({"hidden": torch.eye(MEMBERS, 7) * 0 + torch.tensor([[1.0], [0], [1]])}, r"'hidden' leaves members \[1\] no channel"),
    ],
)  # fmt: skip
def test_what_no_ensemble_computes_is_refused(small, masks, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        from_masksembles(official(small, masks), CARD)


def perceptron(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *between, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


MLP = Card("perceptron", (6,), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda mask: (nn.Sigmoid(), mask), r"'2' masks channel \d, which no group has: .*reads a cut channel as something else than zero"),
        (lambda mask: (mask, nn.Sigmoid()), r"'1' masks channel \d, which no group has: .*reads a cut channel as something else than zero"),
        (lambda mask: (mask, nn.LayerNorm(8)), r"'1' masks channel \d, which no group has: LayerNorm '2' works on several channels at once"),
        (lambda mask: (mask, nn.BatchNorm1d(8)), r"'1' do not take the channels of group '0' out of the network: it is written at '2'"),
    ],
)  # fmt: skip
def test_masks_that_do_not_stay_zero_are_refused(between, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        from_masksembles(perceptron(*between(official_layer(draw(MEMBERS, 8), 2))), MLP)


@pytest.mark.parametrize(
    "between",
    [
        lambda mask: (nn.Tanh(), mask),
        lambda mask: (mask, nn.GELU()),
        lambda mask: (nn.BatchNorm1d(8), mask, nn.ReLU(inplace=True)),
        lambda mask: (nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(), mask),
    ],
)
def test_masks_anywhere_before_or_after_what_keeps_zero_are_read(between) -> None:
    mask = draw(MEMBERS, 8)
    found = from_masksembles(perceptron(*between(official_layer(mask, 2))), MLP)
    assert torch.equal(found.masks.masks["0"], mask)


def test_fresh_norms_do_not_hide_a_difference() -> None:
    # γ = 0 at the end of the branch, as many initialise it: the network gives the same logits with any mask there
    torch.manual_seed(0)
    network = SmallResNet().eval()
    nn.init.zeros_(network.block1.bn2.weight)
    network.block1.end = official_layer(draw(MEMBERS, 6), 4)
    with pytest.raises(SubnetSearchError, match=r"'block1\.end' do not take the channels of group 'conv1' out"):
        from_masksembles(network, CARD)


def test_layers_that_are_never_called_are_refused(small) -> None:
    network = copy.deepcopy(small[0])
    network.spare = official_layer(draw(MEMBERS, 6), 4)
    with pytest.raises(SubnetSearchError, match="'spare' is not used between input and logits"):
        from_masksembles(network, CARD)
