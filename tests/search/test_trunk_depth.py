"""The trunk that a budget suggests, and what comes of it where there is no room for it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from subnet_search import stages
from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import GroupGraph, find_groups, trunk_groups, trunk_macs
from subnet_search.masks import full_masks
from subnet_search.search import (
    BudgetConfig,
    SearchConfig,
    allocate_quotas,
    search_masks,
    trunk_keep_to_take,
    trunks_to_try,
)
from subnet_search.search.budget import trunk_widths
from subnet_search.search.trunk_depth import DEEPEST, LEAST, MOST_KEPT_BEHIND_TRUNK
from subnet_search.settings import RunConfig
from subnet_search.stages import settled


@pytest.fixture(scope="module", params=["resnet20", "resnet32"])
def graph(request) -> GroupGraph:
    return find_groups(load_backbone(request.param, "random").model, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("members", [2, 3, 4, 8])
@pytest.mark.parametrize("budget", [0.5, 0.9, 1.0, 1.3, 2.0, 3.0])
def test_members_keep_enough_and_not_too_much(graph, members, budget) -> None:
    trunks = trunks_to_try(graph, members, BudgetConfig(budget))
    assert trunks == sorted(trunks, reverse=True)
    assert trunks[-1] == 0.0
    for share in trunks[:-1]:
        assert 0 < share <= DEEPEST
        paid = trunk_macs(graph, share, trunk_widths(graph, BudgetConfig(budget), share))
        kept = (budget - paid / graph.dense_macs) / (members * (1 - share))
        assert LEAST * min(1.0, budget / members) <= kept <= MOST_KEPT_BEHIND_TRUNK


def test_depths_that_were_measured(graph) -> None:
    depth = {budget: trunks_to_try(graph, 4, BudgetConfig(budget))[0] for budget in (1.0, 2.0)}
    assert 0.86 < depth[1.0] <= DEEPEST
    assert 0.48 < depth[2.0] < 0.55
    assert trunks_to_try(graph, 2, BudgetConfig(2.0)) == [0.0]  # members that keep everything anyway
    assert trunks_to_try(graph, 4, BudgetConfig(None, keep=0.5)) == [0.0]
    assert trunks_to_try(graph, 4, BudgetConfig(2.0, depth=True)) == [0.0]


def test_a_run_takes_the_deepest_that_its_budget_has_room_for(graph, monkeypatch) -> None:
    trunks = trunks_to_try(graph, 4, BudgetConfig())
    assert settled(RunConfig(), graph).ensemble.trunk == trunks[0]
    right = stages.allocate

    def without_room(graph: GroupGraph, config: RunConfig) -> object:
        if config.ensemble.trunk_share > trunks[2]:
            raise SubnetSearchError("no room")
        return right(graph, config)

    monkeypatch.setattr(stages, "allocate", without_room)
    assert settled(RunConfig(), graph).ensemble.trunk == trunks[2]


def test_what_was_chosen_stays(graph) -> None:
    for trunk in (0.0, 0.3):
        run = RunConfig(
            search=SearchConfig(),
            ensemble=EnsembleConfig(trunk=trunk),
            finetune=FinetuneConfig(),
            budget=BudgetConfig(trunk_keep=1),
        )
        assert settled(run, graph) == run
    assert settled(RunConfig(search=SearchConfig("masksembles")), graph).ensemble.trunk == 0.0
    with pytest.raises(SubnetSearchError, match=r"budget 0.001 cannot be met with 4 members"):
        settled(RunConfig(budget=BudgetConfig(0.001)), graph)


def test_a_run_shows_all_images_to_all_members_where_that_costs_little_more(graph) -> None:
    at_one, at_two = (settled(RunConfig(budget=BudgetConfig(budget)), graph) for budget in (1.0, 2.0))
    assert (at_one.finetune.mode, at_two.finetune.mode) == ("repeat", "split")
    joint = RunConfig(finetune=FinetuneConfig(mode=None, joint=0.5))
    assert settled(joint, graph).finetune.mode == "repeat"


def test_a_trunk_is_thinned_until_members_can_have_all_channels_once(graph) -> None:
    for budget in (0.3, 0.5, 0.8):
        run = settled(RunConfig(budget=BudgetConfig(budget)), graph)
        assert run.ensemble.trunk_share > 0.85
        quotas, _ = stages.allocate(graph, run)
        thinned = set(trunk_groups(graph, run.ensemble.trunk_share))
        behind = [(n, widths) for n, widths in quotas.items() if n not in thinned and min(widths) < graph.widths[n]]
        assert behind
        assert all(0.9 * graph.widths[name] <= sum(widths) for name, widths in behind)
        wider = replace(run.budget, trunk_keep=run.budget.trunk_keep + 0.1)
        narrow, _ = stages.allocate(graph, replace(run, budget=wider))
        assert all(sum(narrow[name]) < graph.widths[name] for name, _ in behind)
    whole = (settled(RunConfig(budget=BudgetConfig(budget)), graph) for budget in (1.0, 2.0))
    assert [run.budget.trunk_keep for run in whole] == [1.0, 1.0]


def test_who_allocates_by_hand_gets_the_same(graph) -> None:
    budget = BudgetConfig(0.5)
    run = settled(RunConfig(budget=budget), graph)
    trunk = trunks_to_try(graph, 4, budget)[0]
    assert run.ensemble.trunk == trunk
    assert allocate_quotas(graph, 4, budget, trunk=trunk) == stages.allocate(graph, run)[0]


@pytest.mark.parametrize("budget", [0.3, 0.5, 1.0, 2.0])
def test_the_first_depth_has_room_in_a_small_network_too(budget) -> None:
    backbone = load_backbone("digits")
    graph = find_groups(backbone.model, torch.zeros(2, *backbone.card.input_shape))
    trunk = trunks_to_try(graph, 4, BudgetConfig(budget))[0]
    assert 0 < trunk == settled(RunConfig(budget=BudgetConfig(budget)), graph).ensemble.trunk
    assert allocate_quotas(graph, 4, BudgetConfig(budget), trunk=trunk)


def test_the_width_of_a_trunk_that_is_given_or_of_no_use_stays(graph) -> None:
    assert trunk_keep_to_take(graph, BudgetConfig(0.5, trunk_keep=0.9), 0.68) == 0.9
    assert trunk_keep_to_take(graph, BudgetConfig(0.5), 0.0) == 1.0
    assert trunk_keep_to_take(graph, BudgetConfig(keep=0.5), 0.68) == 1.0
    assert trunk_keep_to_take(graph, BudgetConfig(0.1), 0.68) == 1.0  # too little for what is behind the trunk alone
    trained = RunConfig(budget=BudgetConfig(0.5), search=SearchConfig("progressive"))
    assert settled(trained, graph).budget.trunk_keep == 1.0


def test_overlaps_are_dear_behind_a_trunk(graph) -> None:
    behind, without = (
        settled(RunConfig(ensemble=EnsembleConfig(trunk=trunk)), graph).search.lambda_overlap for trunk in (None, 0.0)
    )
    assert (behind, without) == (100.0, 1.0)
    with pytest.raises(SubnetSearchError, match=r"search\.lambda_overlap is None.*only a run can choose it"):
        search_masks({"g": torch.rand(2, 4)}, {"g": 4}, {"g": (2, 2)}, SearchConfig(lambda_overlap=None))


def test_members_have_a_head_each_but_where_nothing_linear_writes_the_logits_or_in_official_masks(graph) -> None:
    assert settled(RunConfig(), graph).ensemble.head == "member"
    assert settled(RunConfig(search=SearchConfig("masksembles")), graph).ensemble.head == "shared"
    assert settled(RunConfig(), replace(graph, head=None)).ensemble.head == "shared"
    assert settled(RunConfig(ensemble=EnsembleConfig()), graph).ensemble.head == "shared"


def test_an_ensemble_wants_what_only_a_run_can_choose() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = find_groups(network, torch.randn(2, 4))
    card = load_backbone("resnet20", "random").card
    with pytest.raises(SubnetSearchError, match=r"ensemble.trunk is None, expected a share in \[0, 1\)"):
        SubnetEnsemble(network, graph, full_masks(graph.widths, 2), card, EnsembleConfig(trunk=None))
    with pytest.raises(SubnetSearchError, match=r"ensemble.head is None, expected 'member' or 'shared'"):
        SubnetEnsemble(network, graph, full_masks(graph.widths, 2), card, EnsembleConfig(head=None))
