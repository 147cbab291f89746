"""Members that have their first layers in common."""

from collections import Counter

import pytest
import torch

from subnet_search.backbones import Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.export import export_ensemble, load_ensemble
from subnet_search.groups import find_groups, slice_network, trunk_layers, trunk_macs
from subnet_search.groups.cost import counted_macs
from subnet_search.masks import full_masks
from subnet_search.packed import PackConfig, pack
from subnet_search.packed.program import CONVOLUTIONS, operator
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, depth_masks, search_masks

MEMBERS, SHARE = 3, 0.4
BACKBONE = load_backbone("resnet20", "random", width=4)
GRAPH = find_groups(BACKBONE.model, torch.zeros(2, 3, 32, 32))
TRUNK = trunk_layers(GRAPH, SHARE)


def ensemble(budget: float = 1.5) -> SubnetEnsemble:
    quotas = allocate_quotas(GRAPH, MEMBERS, BudgetConfig(budget, trunk_keep=1.0), trunk=SHARE)
    masks = search_masks(None, GRAPH.widths, quotas, SearchConfig("random"))
    return SubnetEnsemble(BACKBONE.model, GRAPH, masks, BACKBONE.card, EnsembleConfig(trunk=SHARE)).eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("budget", [0.9, 1.5, 2.2])
def test_the_budget_pays_for_the_trunk_once(budget) -> None:
    found = ensemble(budget)
    by_hand = trunk_macs(GRAPH, SHARE)
    for k in range(MEMBERS):
        kept = {name: mask[k] for name, mask in found.masks.masks.items()}
        counts: Counter[str] = Counter()
        small = slice_network(BACKBONE.model, GRAPH, kept)
        with counted_macs(small.network, counts):
            small(images(1))
        by_hand += sum(cost for name, cost in counts.items() if name not in TRUNK)
    assert found.macs() == by_hand
    assert 0.93 * budget < by_hand / GRAPH.dense_macs <= budget


def test_members_are_one_until_the_trunk_ends() -> None:
    found = ensemble()
    seen: dict[str, torch.Tensor] = {}
    for name in TRUNK:
        found.network.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        found.train()(torch.cat([images()] * MEMBERS), repeat=False)  # the norms' statistics move, and stay one
        logits = found.eval()(images())
    assert len(seen) == len(TRUNK)
    for out in seen.values():
        rows = out.unflatten(0, (MEMBERS, -1))
        assert torch.equal(rows[0], rows[1])
    assert not torch.allclose(logits[0], logits[1])


def test_norms_behind_the_trunk_are_each_members_own() -> None:
    own = {name for name, module in ensemble().network.named_modules() if isinstance(module, MemberNorm)}
    assert own == set(GRAPH.norms) - TRUNK


def test_masks_that_cut_into_the_trunk_are_refused() -> None:
    quotas = allocate_quotas(GRAPH, MEMBERS, BudgetConfig(1.5))
    masks = search_masks(None, GRAPH.widths, quotas, SearchConfig("random"))
    with pytest.raises(
        SubnetSearchError,
        match=r"part of the trunk .*ensemble.trunk=0.4.*allocate quotas with the same trunk",
    ):
        SubnetEnsemble(BACKBONE.model, GRAPH, masks, BACKBONE.card, EnsembleConfig(trunk=SHARE))
    with pytest.raises(SubnetSearchError, match="part of the trunk"):
        ensemble().set_masks(masks)


def test_masks_of_the_right_quotas_are_taken() -> None:
    found = ensemble()
    found.set_masks(full_masks(GRAPH.widths, MEMBERS))
    assert found.macs() == MEMBERS * GRAPH.dense_macs - (MEMBERS - 1) * trunk_macs(GRAPH, SHARE)


def test_no_branch_of_the_trunk_is_left_out() -> None:
    depth = depth_masks(GRAPH, MEMBERS, 1.5, 0, SHARE)
    inside = {branch.site for branch in GRAPH.branches if branch.site in TRUNK}
    assert inside
    assert not inside & depth.keys()
    quotas = allocate_quotas(GRAPH, MEMBERS, BudgetConfig(1.5), depth, SHARE)
    assert all(quotas[g.name][0] == g.width for g in GRAPH.groups if any(s.module in TRUNK for s in g.sites))


def test_a_trunk_that_leaves_nothing_to_search_is_an_error() -> None:
    with pytest.raises(SubnetSearchError, match=r"no group of channels is left to search; lower ensemble\.trunk"):
        allocate_quotas(GRAPH, MEMBERS, BudgetConfig(1.5), trunk=0.999)
    with pytest.raises(SubnetSearchError, match=r"ensemble.trunk is 1.0, expected a share in \[0, 1\)"):
        EnsembleConfig(trunk=1.0)


@pytest.mark.parametrize("shape", ["sliced", "grouped"])
def test_packed_it_is_computed_once(shape) -> None:
    found = ensemble(budget=1.2)  # with a trunk of its own for each member it would be 2.0
    with torch.no_grad():
        found.train()(torch.cat([images()] * MEMBERS), repeat=False)
        found.eval()
        packed = pack(found, images(1), PackConfig(seconds=0.0, shapes=(shape,)))
        torch.testing.assert_close(packed(images()), found(images()), rtol=1e-4, atol=1e-4)
    convolutions = {name for name in GRAPH.order if name != GRAPH.head}
    convolutions -= set(GRAPH.norms)
    run = sum(operator(node) in CONVOLUTIONS for node in packed.network.graph.nodes)
    copies = MEMBERS if shape == "sliced" else 1  # side by side in its channels, where it is grouped
    assert run == len(convolutions & TRUNK) + copies * len(convolutions - TRUNK)


def test_written_and_read_it_is_the_same(tmp_path) -> None:
    found = ensemble()
    export_ensemble(found, tmp_path / "e")
    again = load_ensemble(tmp_path / "e")
    assert again.config == found.config
    assert again.macs() == found.macs()
    with torch.no_grad():
        assert torch.equal(again(images()), found(images()))


def test_norms_without_statistics_are_each_members_own_too() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4, track_running_stats=False), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3),
    ).eval()  # fmt: skip
    graph = find_groups(model, torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    card = Card("plain", (1, 8, 8), ("a", "b", "c"))
    found = SubnetEnsemble(model, graph, full_masks(graph.widths, 2), card)
    assert isinstance(found.network.get_submodule("1"), MemberNorm)
