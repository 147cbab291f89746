"""Settings that cannot work together, made to: a trunk as deep as the budget has room for."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import FloatDistribution

from subnet_search.groups import GroupGraph, trunk_shares
from subnet_search.settings import RunConfig
from subnet_search.stages import deepest
from subnet_search.tune.space import Dimension


def with_room(run: RunConfig, space: Sequence[Dimension], graph: GroupGraph) -> RunConfig:
    """Returns the settings with the deepest trunk, up to the chosen one, that leaves the members within the budget.

    Where the settings leave its width open, it is thinned before it is made shallower. How deep that is depends on
    members, budget, depth and the network: channels that run through the trunk cannot be cut behind it. A trial that
    fails tells a sampler nothing, so that it would go on proposing what has failed.

    Args:
        run: What the sampler chose.
        space: What is searched; where the trunk is not, the settings stay as they are.
        graph: The network's channel groups.

    Raises:
        SubnetSearchError: where the budget cannot be met with the shallowest trunk of the space either.
    """
    ranges = [dimension.distribution for dimension in space if dimension.name == "trunk"]
    if not ranges:
        return run
    assert isinstance(ranges[0], FloatDistribution)
    chosen, least = run.ensemble.trunk_share, ranges[0].low
    shallower = [share for share in reversed(trunk_shares(graph)) if least < share < chosen]
    return deepest(run, graph, [chosen, *shallower, least])
