"""Member by member, an ensemble computes what the network cut down to the member's channels computes."""

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import find_groups, macs, slice_network
from tests.architectures import CASES, MEMBERS, enlivened, random_masks


def assert_members_equal_slices(model: nn.Module, x: Tensor, card: Card, config: EnsembleConfig) -> None:
    graph = find_groups(model, x)
    masks = random_masks(graph)
    ensemble = SubnetEnsemble(model, graph, masks, card, config).eval()
    with torch.no_grad():
        logits, dense = ensemble(x), model(x)
        for member in range(MEMBERS):
            small = slice_network(model, graph, {name: mask[member] for name, mask in masks.masks.items()})
            expected = small(x)
            assert (logits[member] - expected).abs().max() <= 1e-4 * expected.abs().max()
            assert not torch.allclose(expected, dense)  # else nothing was tested
    widths = [{name: int(mask[member].sum()) for name, mask in masks.masks.items()} for member in range(MEMBERS)]
    assert ensemble.macs() == sum(macs(graph, chosen) for chosen in widths)


@pytest.mark.parametrize("norm", ["member", "shared"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_member_is_its_sliced_network(case, norm) -> None:
    model = enlivened(case.model())
    x = torch.randn(4, *case.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        classes = tuple(map(str, range(model(x).shape[1])))
    assert_members_equal_slices(model, x, Card(case.name, case.shape, classes), EnsembleConfig(norm=norm))


@pytest.mark.parametrize(("name", "arguments"), [("digits", {}), ("resnet20", {"width": 4})])
def test_each_member_of_a_built_in_network_is_its_sliced_network(name, arguments) -> None:
    backbone = load_backbone(name, "random", **arguments)
    x = torch.randn(4, *backbone.card.input_shape, generator=torch.Generator().manual_seed(2))
    assert_members_equal_slices(enlivened(backbone.model), x, backbone.card, EnsembleConfig())
