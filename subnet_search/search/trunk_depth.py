"""How deep a trunk the members should have in common, and how wide: what a budget suggests."""

from __future__ import annotations

from subnet_search.groups import GroupGraph, trunk_groups, trunk_macs, trunk_shares
from subnet_search.search.budget import BudgetConfig, trunk_widths

DEEPEST = 0.7
"""Share of the dense MACs up to which trunks were measured."""
MOST = 0.8
"""Share of what is behind the trunk that a member keeps, at most: those that keep nearly all of it are nearly one network."""
LEAST = 0.8
"""What a member keeps behind the trunk / what it would keep of the whole network without one, at least."""


THINNED = 0.7
"""Share of the channels inside the blocks of a trunk that was measured beside a whole one, at a budget of 1."""
NARROW = 0.5
"""Share of what is behind a whole trunk below which members are taken for too narrow."""


def trunk_keep_to_take(graph: GroupGraph, members: int, budget: BudgetConfig, trunk: float) -> float:
    """Returns the share of the channels inside a trunk's blocks that is kept where the settings leave it open.

    The last channels of a whole trunk are worth little to anyone, and those that narrow members lack are worth much: at
    a budget of 1, with 70 % of the channels in the trunk members keep 41 % of what is behind it in place of 25 %, and the
    ensemble was better in every figure (entry 12 of `benchmarks/search/README.md`). Wider members have what they need.

    Args:
        graph: The network's groups.
        members: Number of members K.
        budget: What the ensemble may cost; a share that is given there is taken.
        trunk: Share of the dense MACs that members have in common, in [0, 1).
    """
    if budget.trunk_keep is not None:
        return budget.trunk_keep
    if budget.budget is None or not trunk_groups(graph, trunk):
        return 1.0
    paid = trunk_macs(graph, trunk) / graph.dense_macs
    return THINNED if (budget.budget - paid) / (members * (1 - paid)) < NARROW else 1.0


def trunks_to_try(graph: GroupGraph, members: int, budget: BudgetConfig) -> list[float]:
    """Returns the depths of a trunk that suit a budget, the deepest first, and none at all last.

    At a budget of B, K members keep (B − t) / (K (1 − t)) of the MACs behind a trunk of t. Where B is 1 that is 1 / K
    for any t, so that a deeper trunk costs the members nothing; above 1 they grow with t, and become alike; below 1
    they get thin. Deeper trunks gave better likelihood, accuracy and OOD detection at B = 1 and 2 (the limits above are
    from there; below 1 nothing was measured), at a higher correlation of the members' errors.

    Args:
        graph: The network's groups.
        members: Number of members K.
        budget: What the ensemble may cost; without a budget of MACs there is no trunk, nor where members leave out
            whole branches, of which a deep trunk would keep most.

    Returns:
        Shares of the dense MACs, in [0, 1); whether a budget has room for the members with one, `allocate_quotas` tells.
    """
    if budget.budget is None or budget.depth:
        return [0.0]

    def kept(share: float) -> float:
        paid = trunk_macs(graph, share, trunk_widths(graph, budget, share)) / graph.dense_macs
        return (total - paid) / (members * (1 - share))

    total, least = budget.budget, LEAST * min(1.0, budget.budget / members)
    suitable = [share for share in trunk_shares(graph) if share <= DEEPEST and least <= kept(share) <= MOST]
    return [*reversed(suitable), 0.0]
