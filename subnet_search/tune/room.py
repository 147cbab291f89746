"""Settings that cannot work together, made to: a trunk as deep as the budget has room for, a budget that cuts something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from optuna.distributions import BaseDistribution, FloatDistribution

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, trunk_macs, trunk_shares
from subnet_search.search import MOST_KEPT_BEHIND_TRUNK, trunk_widths
from subnet_search.settings import RunConfig
from subnet_search.stages import alike, allocate, deepest
from subnet_search.tune.space import Dimension


def with_room(run: RunConfig, space: Sequence[Dimension], graph: GroupGraph) -> RunConfig:
    """Returns the settings with the deepest trunk, up to the chosen one, that leaves the members within the budget.

    Where the settings leave its width open, it is thinned before it is made shallower. How deep that is depends on
    members, budget, depth and the network: channels that run through the trunk cannot be cut behind it. A trial that
    fails tells a sampler nothing, so that it would go on proposing what has failed.

    A budget that lets each member keep everything behind the shallowest trunk too would give copies of one network. It
    is lowered to what leaves the members `MOST_KEPT_BEHIND_TRUNK` of that, where the space of budgets goes as low.

    Args:
        run: What the sampler chose.
        space: What is searched; where neither trunk nor budget are, the settings stay as they are.
        graph: The network's channel groups.

    Raises:
        SubnetSearchError: where the budget cannot be met with the shallowest trunk of the space either.
    """
    ranges = {dimension.name: dimension.distribution for dimension in space}
    fitted = _with_trunk(run, ranges, graph)
    total = run.budget.budget
    if total is None or not _cuts_nothing(fitted, graph):
        return fitted
    lower, budgets = _lower(fitted, graph), ranges.get("budget")
    if isinstance(budgets, FloatDistribution) and budgets.low <= lower < total:
        with suppress(SubnetSearchError):  # of what is fixed there may be too much for less
            return _with_trunk(replace(run, budget=replace(run.budget, budget=lower)), ranges, graph)
    return fitted


def _with_trunk(run: RunConfig, ranges: Mapping[str, BaseDistribution], graph: GroupGraph) -> RunConfig:
    if "trunk" not in ranges:
        return run
    distribution = ranges["trunk"]
    assert isinstance(distribution, FloatDistribution)
    chosen, least = run.ensemble.trunk_share, distribution.low
    shallower = [share for share in reversed(trunk_shares(graph)) if least < share < chosen]
    return deepest(run, graph, [chosen, *shallower, least])


def _cuts_nothing(run: RunConfig, graph: GroupGraph) -> bool:
    with suppress(SubnetSearchError):  # a budget that cannot be met cuts more than there is
        return alike(graph, *allocate(graph, run), run)
    return False


def _lower(run: RunConfig, graph: GroupGraph) -> float:
    """The budget at which members keep `MOST_KEPT_BEHIND_TRUNK` of the MACs behind their trunk."""
    trunk = run.ensemble.trunk_share
    common = trunk_macs(graph, trunk, trunk_widths(graph, run.budget, trunk))
    behind = graph.dense_macs - trunk_macs(graph, trunk)
    return (common + MOST_KEPT_BEHIND_TRUNK * run.members * behind) / graph.dense_macs
