"""A trunk as deep as there is room for."""

from dataclasses import replace

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.backbones import load_backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, find_groups, trunk_layers, trunk_shares
from subnet_search.search import BudgetConfig
from subnet_search.settings import RunConfig
from subnet_search.stages import alike, allocate
from subnet_search.tune.room import with_room
from subnet_search.tune.space import Dimension, SpaceConfig, dimensions, suggest


@pytest.fixture(scope="module")
def graph() -> GroupGraph:
    return find_groups(load_backbone("resnet20", "random").model, torch.randn(2, 3, 32, 32))


def space(graph: GroupGraph, run: RunConfig, **changes: object) -> tuple[Dimension, ...]:
    return dimensions(SpaceConfig(**changes), run, graph)  # type: ignore[arg-type]


def chosen(members: int, budget: float, trunk: float) -> RunConfig:
    run = RunConfig(members=members, budget=BudgetConfig(budget=budget, trunk_keep=1.0))
    return replace(run, ensemble=replace(run.ensemble, trunk=trunk))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20))
def test_whatever_the_sampler_chooses_can_be_had(graph, seed) -> None:
    run = RunConfig()
    searched = space(graph, run)
    found = suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask(), searched, run)
    fitted = with_room(found, searched, graph)
    assert not alike(graph, *allocate(graph, fitted), fitted)
    assert fitted.ensemble.trunk <= found.ensemble.trunk
    assert fitted.budget.budget <= found.budget.budget
    assert replace(fitted, ensemble=found.ensemble, budget=found.budget) == found
    own = replace(fitted.budget, budget=found.budget.budget, trunk_keep=found.budget.trunk_keep)
    assert own == found.budget


def test_it_is_the_deepest_that_can_be_had(graph) -> None:
    run = chosen(8, 0.5, 0.7)  # the streams run through all of it and could not be thinned behind it
    with pytest.raises(SubnetSearchError, match="cannot be met with 8 members"):
        allocate(graph, run)
    fitted = with_room(run, space(graph, run), graph)
    deeper = next(share for share in trunk_shares(graph) if share > fitted.ensemble.trunk)
    assert trunk_layers(graph, deeper) > trunk_layers(graph, fitted.ensemble.trunk) > frozenset()
    with pytest.raises(SubnetSearchError, match="cannot be met"):
        allocate(graph, chosen(8, 0.5, deeper))


def test_where_the_width_of_the_trunk_is_open_it_makes_the_room(graph) -> None:
    run = chosen(4, 0.5, 0.7)
    run = replace(run, budget=replace(run.budget, trunk_keep=None))
    fitted = with_room(run, space(graph, run), graph)
    assert fitted.ensemble.trunk == 0.7
    assert fitted.budget.trunk_keep < 0.5


def test_what_there_is_room_for_stays_as_it_was(graph) -> None:
    run = chosen(4, 2.0, 0.4)
    assert with_room(run, space(graph, run), graph) == run


def test_a_trunk_that_is_not_searched_stays_and_one_goes_no_lower_than_the_space(graph) -> None:
    run = chosen(8, 0.5, 0.7)
    assert with_room(run, space(graph, run, names=("members", "budget")), graph) == run
    with pytest.raises(SubnetSearchError, match="cannot be met with 8 members"):
        with_room(run, space(graph, run, trunk=(0.65, 0.7)), graph)


def test_a_trunk_that_leaves_the_members_whole_is_made_shallower(graph) -> None:
    run = chosen(2, 1.7, 0.6)  # both members of it, whole, cost 1.4
    assert alike(graph, *allocate(graph, run), run)
    fitted = with_room(run, space(graph, run), graph)
    assert fitted.budget == replace(run.budget, budget=1.7)
    deeper = next(share for share in trunk_shares(graph) if share > fitted.ensemble.trunk)
    assert alike(graph, *allocate(graph, chosen(2, 1.7, deeper)), chosen(2, 1.7, deeper))
    assert not alike(graph, *allocate(graph, fitted), fitted)


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("names", [("members", "budget"), ("members", "budget", "trunk")])
def test_a_budget_that_whole_members_do_not_use_up_is_lowered(graph, depth: bool, names: tuple[str, ...]) -> None:
    run = chosen(2, 2.58, 0.0)
    run = replace(run, budget=replace(run.budget, depth=depth))
    fitted = with_room(run, space(graph, run, names=names), graph)
    assert fitted.budget.budget == pytest.approx(0.8 * 2)
    assert not alike(graph, *allocate(graph, fitted), fitted)


def test_a_budget_stays_in_its_space_and_as_it_is_where_it_is_not_searched(graph) -> None:
    run = chosen(2, 2.58, 0.0)
    assert with_room(run, space(graph, run, budget=(1.7, 4.0)), graph) == run
    assert with_room(run, space(graph, run, names=("members", "trunk")), graph) == run


def test_members_are_alike_where_only_their_trunk_is_cut(graph) -> None:
    run = chosen(2, 1.9, 0.6)
    run = replace(run, budget=replace(run.budget, trunk_keep=0.5))
    quotas, depth = allocate(graph, run)
    assert min(kept[0] / graph.widths[name] for name, kept in quotas.items()) == 0.5
    assert alike(graph, quotas, depth, run)


def test_members_without_the_same_branch_are_alike_and_those_without_different_ones_are_not(graph) -> None:
    run = chosen(2, 2.0, 0.0)
    whole = {name: (width, width) for name, width in graph.widths.items()}
    assert alike(graph, whole, {"block": torch.tensor([False, False])}, run)
    assert not alike(graph, whole, {"block": torch.tensor([True, False])}, run)
