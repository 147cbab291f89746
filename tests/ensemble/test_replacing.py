"""A layer with two names is one layer before and after it is replaced."""

import copy

import pytest
import torch
from torch import nn

from subnet_search.ensemble import EnsembleConfig, MemberLinear, MemberMask, MemberNorm
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.groups import masked
from tests.aliased import MEMBERS, PAIRS, aliased, aliased_ensemble, input_of

CONFIGS = [EnsembleConfig(norm, head) for norm in ("member", "shared") for head in ("shared", "member")]


def test_every_name_and_every_path_of_a_layer_leads_to_the_other_one() -> None:
    block = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    network = nn.Sequential(block, block, block[1], nn.Linear(2, 2))
    other, last = nn.Linear(2, 2), network[3]
    replace_layers(network, {block[1]: other})
    assert network[0][1] is network[1][1] is network[2] is other
    assert network[3] is last


def test_what_comes_in_its_place_may_hold_the_layer() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    network.append(network[0])
    first = network[0]
    replace_layers(network, {first: nn.Sequential(first)})
    assert network[0] is network[2]
    assert network[0][0] is first


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@torch.no_grad()
def test_members_of_a_network_with_aliases_are_masked_wherever_they_are_called(config) -> None:
    network, x = aliased(), input_of(5)
    ensemble = aliased_ensemble(network, config)
    assert len(ensemble.graph.groups) >= 3
    logits = ensemble(x)
    for k in range(MEMBERS):
        with masked(network, ensemble.graph, {name: mask[k] for name, mask in ensemble.masks.masks.items()}):
            torch.testing.assert_close(logits[k], network(x), rtol=1e-4, atol=1e-5)


def test_aliases_stay_one_layer_in_copies_and_selections_too() -> None:
    ensemble = aliased_ensemble(aliased(), EnsembleConfig(head="member"))
    for made in (ensemble, copy.deepcopy(ensemble), ensemble.select([2, 0])):
        for (one, two), kind in zip(PAIRS, (MemberNorm, MemberMask, MemberLinear), strict=True):
            layer = made.network.get_submodule(one)
            assert isinstance(layer, kind)
            assert layer is made.network.get_submodule(two)


def test_everything_that_members_of_a_network_with_aliases_have_is_trained() -> None:
    ensemble = aliased_ensemble(aliased(), EnsembleConfig(head="member")).train()
    ensemble(input_of(4)).square().sum().backward()
    assert [name for name, parameter in ensemble.named_parameters() if parameter.grad is None] == []
