"""How deep a trunk the members should have in common: what a budget suggests."""

from __future__ import annotations

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, trunk_macs, trunk_shares
from subnet_search.search.budget import BudgetConfig, allocate_quotas, trunk_widths

DEEPEST = 0.9
"""Share of the dense MACs up to which trunks were measured."""
MOST_KEPT_BEHIND_TRUNK = 0.8
"""Share of what is behind the trunk that a member keeps, at most: those that keep nearly all of it are nearly one network."""
LEAST = 0.8
"""What a member keeps behind the trunk / what it would keep of the whole network without one, at least."""


def trunks_to_try(graph: GroupGraph, members: int, budget: BudgetConfig) -> list[float]:
    """Returns the depths of a trunk that suit a budget, the deepest first, and none at all last.

    At a budget of B, K members keep (B − t) / (K (1 − t)) of the MACs behind a whole trunk of t. Where B is 1 that is
    1 / K for any t, so that a deeper trunk costs the members nothing; above 1 they grow with t, and become alike; below 1
    the trunk is thinned until they keep 1 / K (`trunk_keep_to_take`). Deeper trunks gave better likelihood, accuracy and
    OOD detection wherever they were compared, at a higher correlation of the members' errors (entries 4, 13 and 14 of
    `benchmarks/search/README.md`).

    Args:
        graph: The network's groups.
        members: Number of members K.
        budget: What the ensemble may cost; without a budget of MACs there is no trunk, nor where members leave out
            whole branches, of which a deep trunk would keep most.

    Returns:
        Shares of the dense MACs, in [0, 1). The first leaves the members within the budget, but for 0, with which
            `allocate_quotas` says what is wrong.
    """
    if budget.budget is None or budget.depth:
        return [0.0]

    def kept(share: float) -> float:
        paid = trunk_macs(graph, share, trunk_widths(graph, budget, share)) / graph.dense_macs
        return (total - paid) / (members * (1 - share))

    total, least = budget.budget, LEAST * min(1.0, budget.budget / members)
    suitable = [
        share for share in trunk_shares(graph) if share <= DEEPEST and least <= kept(share) <= MOST_KEPT_BEHIND_TRUNK
    ]
    while suitable and not _has_room(graph, members, budget, suitable[-1]):
        suitable.pop()
    return [*reversed(suitable), 0.0]


def _has_room(graph: GroupGraph, members: int, budget: BudgetConfig, trunk: float) -> bool:
    """Whether something is left to search behind a trunk, and within the budget."""
    try:
        allocate_quotas(graph, members, budget, trunk=trunk)
    except SubnetSearchError:
        return False
    return True
