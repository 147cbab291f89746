"""A member on its own is a plain network that answers as the member does."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from subnet_search import SubnetSearchError
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import macs
from subnet_search.groups.cost import counted_macs
from subnet_search.packed import PackConfig, member_network, pack
from tests.aliased import PAIRS, aliased, aliased_ensemble


def example(ensemble: SubnetEnsemble, batch: int = 3) -> Tensor:
    return torch.randn(batch, *ensemble.graph.example_shape, generator=torch.Generator().manual_seed(4))


def assert_equal_to_member(network: nn.Module, ensemble: SubnetEnsemble, member: int | slice) -> None:
    with torch.no_grad():
        for batch in (1, 3):
            expected, got = ensemble(example(ensemble, batch))[member], network(example(ensemble, batch))
            assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_every_member_of_every_architecture(unequal) -> None:
    for member in range(unequal.members):
        network = member_network(unequal, member)
        assert_equal_to_member(network, unequal, member)
        counts: Counter[str] = Counter()
        with torch.no_grad(), counted_macs(network, counts):
            network(example(unequal, 1))
        widths = {name: kept[member] for name, kept in unequal.masks.widths.items()}
        assert sum(counts.values()) == macs(unequal.graph, widths)


def test_names_and_classes_are_those_of_the_backbone(unequal, cases) -> None:
    network = member_network(unequal, 1)
    backbone = next(
        case.model() for case in cases if case.shape == unequal.graph.example_shape and _like(case, unequal)
    )
    assert type(network) is type(backbone)
    assert list(network.state_dict()) == list(backbone.state_dict())
    assert [type(module) for module in network.modules()] == [type(module) for module in backbone.modules()]


def _like(case, ensemble) -> bool:
    return list(case.groups) == list(ensemble.graph.widths) and type(case.model()) is type(ensemble.network)


@pytest.mark.parametrize("name", ["padded", "unnormalised"])
def test_branches_left_out_and_what_the_members_share(make, halves, name) -> None:
    def masks(graph):
        return replace(halves(graph), depth={graph.branches[0].site: torch.tensor([True, False, False])})

    for config in (EnsembleConfig(norm="shared"), EnsembleConfig(head="member")):
        ensemble = make(name, masks, config)
        for member in range(3):
            assert_equal_to_member(member_network(ensemble, member), ensemble, member)


def test_a_padded_network_can_be_copied_and_stops_changing_numbers(make) -> None:
    ensemble = make("padded")
    network = copy.deepcopy(member_network(ensemble, 2))
    assert_equal_to_member(network, ensemble, 2)
    with pytest.raises(RuntimeError, match="channels"):
        network(torch.zeros(1, 5, 8, 8))  # the hooks end even where the forward pass fails
    assert torch.nn.functional.pad(torch.zeros(1, 4, 2, 2), (0, 0, 0, 0, 1, 1)).shape[1] == 6
    assert_equal_to_member(network, ensemble, 2)


@pytest.mark.parametrize("norm", ["member", "shared"])
def test_layers_with_two_names_stay_one(norm) -> None:
    dense = aliased()
    ensemble = aliased_ensemble(dense, EnsembleConfig(norm, "member"))
    for member in range(ensemble.members):
        network = member_network(ensemble, member)
        assert_equal_to_member(network, ensemble, member)
        assert list(network.state_dict()) == list(dense.state_dict())
        for one, two in PAIRS:
            assert network.get_submodule(one) is network.get_submodule(two)
    packed = pack(ensemble, example(ensemble))
    with torch.no_grad():
        torch.testing.assert_close(packed(example(ensemble)), ensemble(example(ensemble)), rtol=1e-4, atol=1e-5)


def test_its_state_dict_goes_into_another_copy(make) -> None:
    ensemble = make("vgg")
    network = member_network(ensemble, 0)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(network.state_dict())
    assert_equal_to_member(other, ensemble, 0)


def test_the_ensemble_stays_as_it_is(make) -> None:
    ensemble = make("projected").train()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    network = member_network(ensemble, 1)
    assert not network.training
    assert all(module.training for module in ensemble.modules())
    assert all(tensor.equal(before[name]) for name, tensor in ensemble.state_dict().items())


def test_norms_without_affine_parameters_get_them_where_a_branch_is_left_out(build, halves) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
            self.inner, self.end = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.conv(x)))
            return self.head((x + self.end(self.inner(x))).mean((2, 3)))

    def masks(graph):
        return replace(halves(graph), depth={"end": torch.tensor([True, False, True])})

    for config in (EnsembleConfig(), EnsembleConfig(norm="shared")):
        ensemble = build(Plain(), (3, 5, 5), masks, config)
        for member in range(3):
            assert_equal_to_member(member_network(ensemble, member), ensemble, member)


def test_a_norm_that_is_never_called_is_in_no_ones_way(build) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    network[0].left_over = nn.BatchNorm2d(4)
    ensemble = build(network, (3, 5, 5))
    assert_equal_to_member(member_network(ensemble, 1), ensemble, 1)


def test_a_frozen_norm_stays_frozen(build) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    network[1].requires_grad_(False)
    norm = member_network(build(network, (3, 5, 5)), 1)[1]
    assert not norm.weight.requires_grad
    assert not norm.bias.requires_grad


@pytest.mark.parametrize("parametrised", [weight_norm, spectral_norm])
def test_weights_that_a_parametrization_computes_are_plain_ones(build, parametrised) -> None:
    first, last = parametrised(nn.Conv2d(3, 4, 3)), parametrised(nn.Linear(5, 3)).requires_grad_(False)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Flatten(), last)
    ensemble = build(network, (3, 5, 5)).train()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    with torch.no_grad():
        members = [member_network(ensemble, member) for member in range(3)]
    assert all(tensor.equal(before[name]) for name, tensor in ensemble.state_dict().items())
    for member, plain in enumerate(members):
        assert type(plain[0]) is nn.Conv2d
        assert [plain[place].weight.requires_grad for place in (0, 2, 6)] == [True, True, False]
        assert_equal_to_member(plain, ensemble.eval(), member)
    assert_equal_to_member(pack(ensemble, example(ensemble), PackConfig(seconds=0.0)).network, ensemble, slice(None))


@pytest.mark.parametrize("member", [-1, 3])
def test_a_member_that_is_not_there(make, member) -> None:
    with pytest.raises(SubnetSearchError, match=f"got member {member}, expected one of 0 to 2"):
        member_network(make("perceptron"), member)
