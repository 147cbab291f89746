"""Networks as they were before their training."""

import pytest
import torch
from torch import nn

from subnet_search.backbones import load_backbone
from subnet_search.baselines.scratch import untrained
from subnet_search.errors import SubnetSearchError


def test_every_tensor_is_fresh_and_the_seed_decides() -> None:
    network = load_backbone("digits").model
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fresh, again, other = (untrained(network, seed) for seed in (1, 1, 2))
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(network.state_dict()[name], before[name])
        if tensor.ndim > 1:
            assert not torch.equal(tensor, other.state_dict()[name])
        assert not torch.equal(tensor, before[name])
    assert not fresh.training


def test_weights_are_drawn_as_where_layers_are_made() -> None:
    torch.manual_seed(4)
    expected = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.PReLU(), nn.Linear(3, 2))
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.PReLU(), nn.Linear(3, 2))
    nn.init.constant_(network[2].weight, 3.0)
    for tensor, wanted in zip(untrained(network, 4).parameters(), expected.parameters(), strict=True):
        assert torch.equal(tensor, wanted)


def test_the_global_random_state_stays() -> None:
    network = nn.Linear(2, 2)
    state = torch.get_rng_state()
    untrained(network, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_is_fresh_too() -> None:
    network = nn.MultiheadAttention(4, 2)
    nn.init.constant_(network.in_proj_weight, 3.0)
    assert not (untrained(network, 0).in_proj_weight == 3.0).any()


class Scaled(nn.Module):
    """With a parameter that nothing can draw anew."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0))
        self.head = nn.Linear(3, 2)


def test_weights_that_would_stay_trained_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"'block' \(Scaled\) has no reset_parameters"):
        untrained(nn.ModuleDict({"block": Scaled()}), 0)
