"""Which branches members leave out."""

import re

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, find_groups, macs, trunk_macs
from subnet_search.search import BudgetConfig, depth_masks
from subnet_search.settings import RunConfig
from subnet_search.stages import allocate


@pytest.fixture(scope="module")
def graph() -> GroupGraph:
    return find_groups(load_backbone("resnet20", "random", width=4).model, torch.zeros(2, 3, 32, 32))


def costs(graph: GroupGraph, depth: dict[str, torch.Tensor], members: int) -> list[int]:
    return [macs(graph, {}, [site for site, kept in depth.items() if not kept[k]]) for k in range(members)]


@pytest.mark.parametrize("members", [2, 3, 4, 8])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.8, 0.99])
def test_every_member_meets_its_part_of_the_budget_and_no_branch_more_is_left_out(graph, members, share) -> None:
    depth = depth_masks(graph, members, share * members, seed=1)
    assert list(depth) == [branch.site for branch in graph.branches]
    found = costs(graph, depth, members)
    assert max(found) <= share * graph.dense_macs
    dearest = graph.dense_macs - min(macs(graph, {}, [branch.site]) for branch in graph.branches)
    assert min(found) > share * graph.dense_macs - dearest


@pytest.mark.parametrize("members", [3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_branches_are_left_out_equally_often(graph, members, seed) -> None:
    keepers = [int(kept.sum()) for kept in depth_masks(graph, members, 0.6 * members, seed).values()]
    assert max(keepers) - min(keepers) <= 1
    masks = torch.stack(list(depth_masks(graph, members, 0.6 * members, seed).values()), dim=1)
    assert len(masks.unique(dim=0)) == members


def test_the_seed_decides(graph) -> None:
    def table(seed: int) -> torch.Tensor:
        return torch.stack(list(depth_masks(graph, 4, 2.0, seed).values()))

    torch.manual_seed(1)
    first = table(3)
    assert torch.equal(first, table(3))
    assert any(not torch.equal(first, table(seed)) for seed in (4, 5))


def test_with_enough_budget_all_are_kept(graph) -> None:
    assert all(kept.all() for kept in depth_masks(graph, 4, 4.0, 0).values())


def test_the_smallest_budget_leaves_out_all_of_them(graph) -> None:
    least = macs(graph, {}, [branch.site for branch in graph.branches])
    depth = depth_masks(graph, 4, 4 * least / graph.dense_macs * (1 + 1e-9), 0)
    assert not any(kept.any() for kept in depth.values())


def test_a_budget_below_the_network_without_branches_is_an_error(graph) -> None:
    with pytest.raises(SubnetSearchError, match=r"budget 0.01 cannot .* 4 members: without any .* they cost"):
        depth_masks(graph, 4, 0.01, 0)


@pytest.mark.parametrize("trunk", [0.0, 0.3])
@pytest.mark.parametrize("alone", [True, False])
def test_the_error_names_the_budget_that_was_given_and_the_lowest_that_is_enough(graph, alone, trunk) -> None:
    with pytest.raises(SubnetSearchError, match=r"budget 0\.0001 cannot be met with 4 members") as caught:
        depth_masks(graph, 4, 0.0001, 0, trunk, alone=alone)
    found = re.search(r"(\S+) times the dense network; raise the budget to that", str(caught.value))
    assert found
    enough = float(found[1])
    depth = depth_masks(graph, 4, enough, 0, trunk, alone=alone)
    assert not any(kept.any() for kept in depth.values())
    with pytest.raises(SubnetSearchError, match="cannot be met"):
        depth_masks(graph, 4, 0.99 * enough, 0, trunk, alone=alone)


def test_a_run_names_the_budget_that_it_was_given(graph) -> None:
    config = RunConfig(budget=BudgetConfig(0.0001, depth=True, trunk_keep=1.0), ensemble=EnsembleConfig(trunk=0.0))
    with pytest.raises(SubnetSearchError, match=r"budget 0\.0001 cannot be met with 4 members: without any residual"):
        allocate(graph, config)


def test_a_network_without_branches_is_an_error() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    )  # fmt: skip
    with pytest.raises(SubnetSearchError, match="has no residual branches, so it has no depth masks"):
        depth_masks(find_groups(model, torch.zeros(2, 1, 8, 8)), 4, 2.0, 0)


def test_a_run_leaves_blocks_out_behind_a_trunk_for_half_of_what_is_to_be_saved() -> None:
    backbone = load_backbone("resnet20", "random")
    graph = find_groups(backbone.model, torch.zeros(2, 3, 32, 32))
    config = RunConfig(budget=BudgetConfig(1.0, depth=True, trunk_keep=1.0), ensemble=EnsembleConfig(trunk=0.68))
    quotas, depth = allocate(graph, config)
    once = 3 * trunk_macs(graph, 0.68)
    whole = 4 * graph.dense_macs - once
    deep = sum(macs(graph, {}, [site for site, kept in depth.items() if not kept[k]]) for k in range(4)) - once
    assert graph.dense_macs < deep <= (whole * graph.dense_macs) ** 0.5  # the channels pay the rest
    assert any(not kept.all() for kept in depth.values())
    assert any(kept[0] < graph.widths[name] for name, kept in quotas.items())
