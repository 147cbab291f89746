"""A trunk of which all members keep the same channels."""

from collections import Counter

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.ensemble.thin import ThinEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.evidence import layer_costs
from subnet_search.export import export_ensemble, load_ensemble
from subnet_search.groups import find_groups, slice_network, trunk_groups, trunk_layers
from subnet_search.groups.cost import counted_macs
from subnet_search.masks import MaskSet
from subnet_search.packed import PackConfig, pack
from subnet_search.search import (
    BudgetConfig,
    SearchConfig,
    allocate_quotas,
    search_masks,
    shuffled,
    trunk_widths,
    trunks_to_try,
)
from subnet_search.settings import RunConfig
from subnet_search.stages import phases, settled

MEMBERS, SHARE = 3, 0.6
BACKBONE = load_backbone("resnet20", "random", width=8)
GRAPH = find_groups(BACKBONE.model, torch.zeros(2, 3, 32, 32))
INSIDE = trunk_groups(GRAPH, SHARE)
THIN = BudgetConfig(1.0, trunk_keep=0.5)
QUOTAS = allocate_quotas(GRAPH, MEMBERS, THIN, trunk=SHARE)


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(MEMBERS, width, generator=generator) for name, width in GRAPH.widths.items()}


def masks(algorithm: str = "flow", seed: int = 0) -> MaskSet:
    config = SearchConfig(algorithm, seed=seed)
    return search_masks(scores(), GRAPH.widths, QUOTAS, config, lambda found: float(found.mean_iou()), common=INSIDE)


def ensemble() -> SubnetEnsemble:
    return SubnetEnsemble(BACKBONE.model, GRAPH, masks(), BACKBONE.card, EnsembleConfig(trunk=SHARE)).eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_only_groups_inside_the_blocks_of_the_trunk_are_thinned() -> None:
    trunk = trunk_layers(GRAPH, SHARE)
    assert INSIDE
    assert {name: QUOTAS[name] for name in INSIDE} == {name: (GRAPH.widths[name] // 2,) * MEMBERS for name in INSIDE}
    for group in GRAPH.groups:
        if any(site.module in trunk for site in group.sites) and group.name not in INSIDE:
            assert QUOTAS[group.name] == (group.width,) * MEMBERS
    whole = allocate_quotas(GRAPH, MEMBERS, BudgetConfig(1.0), trunk=SHARE)
    behind = [name for name in QUOTAS if min(whole[name]) < GRAPH.widths[name]]
    assert behind
    assert all(QUOTAS[name] > whole[name] for name in behind)  # what is saved goes to the members


def test_widths_of_the_trunk_obey_the_other_settings() -> None:
    few = trunk_widths(GRAPH, BudgetConfig(trunk_keep=0.01, min_width=3), SHARE)
    assert set(few.values()) == {3}
    grained = trunk_widths(GRAPH, BudgetConfig(trunk_keep=0.6, multiple_of=4), SHARE)
    assert all(width % 4 == 0 for width in grained.values())
    with pytest.raises(SubnetSearchError, match=r"trunk_keep is 0, expected a fraction in \(0, 1\]"):
        BudgetConfig(trunk_keep=0)
    thinner = trunks_to_try(GRAPH, 4, BudgetConfig(2.0, trunk_keep=0.5))
    assert max(thinner) < max(trunks_to_try(GRAPH, 4, BudgetConfig(2.0)))  # members would keep too much behind the same


def test_the_budget_pays_for_the_thinned_trunk_once() -> None:
    found, trunk = ensemble(), trunk_layers(GRAPH, SHARE)
    by_hand = 0
    for k in range(MEMBERS):
        kept = {name: mask[k] for name, mask in found.masks.masks.items()}
        counts: Counter[str] = Counter()
        small = slice_network(BACKBONE.model, GRAPH, kept)
        with counted_macs(small.network, counts):
            small(images(1))
        by_hand += sum(cost for name, cost in counts.items() if name not in trunk or k == 0)
    assert found.macs() == by_hand == sum(sum(layer.members) for layer in layer_costs(found))
    assert 0.9 < by_hand / GRAPH.dense_macs <= 1.0


@pytest.mark.parametrize("algorithm", ["flow", "draft", "core", "pairs", "magnitude", "swap"])
def test_by_scores_the_best_channels_stay(algorithm) -> None:
    found, known = masks(algorithm), scores()
    for name in INSIDE:
        mean = (known[name] / known[name].mean()).mean(dim=0)
        best = set(mean.topk(QUOTAS[name][0]).indices.tolist())
        assert all(set(row.nonzero().flatten().tolist()) == best for row in found.masks[name])
    assert dict(found.widths) == QUOTAS
    assert list(found.masks) == list(GRAPH.widths)


@pytest.mark.parametrize("algorithm", ["random", "antirandom", "masksembles", "best-of-n"])
def test_controls_draw_one_lot_for_all(algorithm) -> None:
    found, other = masks(algorithm), masks(algorithm, seed=1)
    for name in INSIDE:
        assert (found.masks[name] == found.masks[name][0]).all()
    assert any(not torch.equal(found.masks[name], other.masks[name]) for name in INSIDE)
    assert dict(found.widths) == QUOTAS


def test_the_shuffled_twin_has_a_trunk_too() -> None:
    twin = shuffled(masks(), 3)
    assert any(not torch.equal(twin.masks[name], masks().masks[name]) for name in INSIDE)
    ensemble().set_masks(twin)
    rest = {name: mask for name, mask in masks().masks.items() if name not in INSIDE}
    behind = MaskSet(rest, "flow").mean_iou()  # of what is decided between members alone
    assert masks().mean_iou() == twin.mean_iou() == ensemble().masks.mean_iou() == behind


def test_what_is_cut_of_the_trunk_gives_nothing() -> None:
    found = ensemble()
    sites = [site for group in GRAPH.groups if group.name in INSIDE for site in group.sites]
    seen: dict[str, torch.Tensor] = {}
    for site in sites:
        found.network.get_submodule(site.module).register_forward_hook(
            lambda _m, _i, out, name=site.module: seen.update({name: out})
        )
    for repeat in (True, False):
        with torch.no_grad():
            found(images(3 * MEMBERS), repeat)
        for name in INSIDE:
            assert (seen[GRAPH[name].sites[0].module][:, ~found.masks.masks[name][0]] == 0).all()


@pytest.mark.parametrize("shape", ["sliced", "grouped"])
def test_sliced_packed_and_thin_members_answer_alike(shape) -> None:
    found = ensemble()
    with torch.no_grad():
        found.train()(torch.cat([images()] * MEMBERS), repeat=False)  # members' statistics become their own
        found.eval()
        packed = pack(found, images(1), PackConfig(seconds=0.0, shapes=(shape,)))
        torch.testing.assert_close(packed(images()), found(images()), rtol=1e-4, atol=1e-4)
    thin = ThinEnsemble(found)  # compares itself with the masked form
    torch.testing.assert_close(thin(images()), found(images()), rtol=1e-4, atol=1e-4)


def test_written_and_read_it_is_the_same(tmp_path) -> None:
    found = ensemble()
    export_ensemble(found, tmp_path / "e")
    again = load_ensemble(tmp_path / "e")
    assert again.macs() == found.macs()
    with torch.no_grad():
        assert torch.equal(again(images()), found(images()))


def test_masks_that_differ_within_the_trunk_are_refused() -> None:
    found = search_masks(None, GRAPH.widths, QUOTAS, SearchConfig("random"))
    with pytest.raises(SubnetSearchError, match=r"masks differ between members at 'layer1\.0\.bn1'"):
        ensemble().set_masks(found)


def test_a_search_that_trains_thins_no_trunk() -> None:
    run = RunConfig(members=MEMBERS, budget=THIN, search=SearchConfig("progressive"), ensemble=EnsembleConfig(trunk=SHARE))  # fmt: skip
    with pytest.raises(SubnetSearchError, match=r"'progressive' cuts each member for itself .*trunk_keep=0.5"):
        phases(BACKBONE, GRAPH, None, None, QUOTAS, run)
    with pytest.raises(SubnetSearchError, match=r"use trunk_keep=1, or a search before the training"):
        settled(run, GRAPH)
