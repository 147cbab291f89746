import pytest
import torch
from torch import nn

from subnet_search.backbones import load_backbone
from subnet_search.groups import GroupGraph, find_groups, macs, trunk_layers, trunk_macs, trunk_shares


@pytest.fixture(scope="module")
def resnet() -> GroupGraph:
    return find_groups(load_backbone("resnet20", "random", width=4).model, torch.zeros(2, 3, 32, 32))


def test_the_order_is_that_of_the_forward_pass(resnet) -> None:
    first = ["conv1", "bn1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "layer1.0.bn2", "layer1.1.conv1"]
    assert list(resnet.order[:7]) == first
    assert resnet.order[-1] == "linear"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.36, 0.5, 0.8, 0.999])
def test_it_is_what_the_share_pays_for_and_no_layer_more_would_fit(resnet, share) -> None:
    trunk = trunk_layers(resnet, share)
    cost = trunk_macs(resnet, share)
    assert cost <= share * resnet.dense_macs
    following = next(name for name in resnet.order if name not in trunk)
    dearer = cost + resnet.graph.nodes["layer", following]["macs"]
    assert dearer > share * resnet.dense_macs or following == resnet.head


def test_norms_that_run_before_the_first_layer_left_to_the_members_are_part_of_it(resnet) -> None:
    stem = resnet.graph.nodes["layer", "conv1"]["macs"] / resnet.dense_macs
    assert trunk_layers(resnet, stem * 1.01) == {"conv1", "bn1"}
    assert trunk_layers(resnet, stem * 0.99) == frozenset()


def test_at_each_of_its_shares_a_trunk_gains_a_layer(resnet) -> None:
    shares = trunk_shares(resnet)
    assert len(shares) > 10
    assert shares == sorted(shares)
    for share in shares:
        below, at = (trunk_layers(resnet, value) for value in (share - 2 / resnet.dense_macs, share))
        assert below < at
        assert trunk_macs(resnet, share) == int(share * resnet.dense_macs)


def test_nothing_of_the_trunk_depends_on_a_layer_behind_it(resnet) -> None:
    model = load_backbone("resnet20", "random", width=4).model
    trunk = trunk_layers(resnet, 0.4)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def outputs() -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
            for name in trunk
        ]
        with torch.no_grad():
            model.eval()(x)
        for hook in hooks:
            hook.remove()
        return found

    before = outputs()
    for name, module in model.named_modules():
        if name not in trunk and isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
    after = outputs()
    assert len(before) == len(trunk) > 4
    assert all(torch.equal(before[name], after[name]) for name in trunk)


class Recurrent(nn.Module):
    """Runs its second layer twice, before and after the third."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.third = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.third(self.again(self.first(x)).relu()).relu()).relu())


def test_a_layer_that_runs_again_later_is_no_part() -> None:
    graph = find_groups(Recurrent(), torch.zeros(2, 4))
    assert graph.order == ("first", "again", "third", "again", "head")
    cost = macs(graph, {})
    share = (24 + 72 + 1) / cost  # pays for the first layer and both runs of the second
    assert trunk_layers(graph, share) == {"first"}
    assert "head" not in trunk_layers(graph, 0.9999)
