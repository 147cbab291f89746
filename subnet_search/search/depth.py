"""Depth masks: which residual branches each member leaves out, fixed (stochastic depth, Huang et al. 2016, frozen)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, macs, trunk_layers, trunk_macs
from subnet_search.search.budget import rounded_up


def depth_budget(graph: GroupGraph, members: int, budget: float, trunk: float = 0.0) -> float:
    """Returns the budget of `depth_masks` where masked channels pay the other half of what is to be saved.

    Args:
        graph: The network's groups and branches.
        members: Number of members K.
        budget: MACs of all members / MACs of the dense network in the end, positive.
        trunk: Share of the dense MACs that members have in common and pay for once, in [0, 1).

    Returns:
        MACs / MACs of the dense network, half way on a logarithmic scale from whole members to `budget`.
    """
    whole = members - (members - 1) * trunk_macs(graph, trunk) / graph.dense_macs
    return float((whole * budget) ** 0.5)


def depth_masks(
    graph: GroupGraph, members: int, budget: float, seed: int, trunk: float = 0.0, *, alone: bool = True
) -> dict[str, Tensor]:
    """Leaves out branches, in turn for each member, until the members together meet a budget.

    A member leaves out the branch that most of the others still keep, ties by lot, so that branches are left out
    equally often and members differ as far as that allows.

    Args:
        graph: The network's groups and branches.
        members: Number of members K.
        budget: MACs of all members / MACs of the dense network, positive.
        seed: Seed of the lots.
        trunk: Share of the dense MACs that members have in common and pay for once, in [0, 1); no branch of it is left
            out.
        alone: Whether that is all that is left out; else masked channels are to pay the other half of what is to be
            saved, and branches are left out down to `depth_budget` only.

    Returns:
        Site of the branch → bool `[member]`, true where the member keeps it; all branches outside the trunk in order.

    Raises:
        SubnetSearchError: where the network has no residual branches, or cannot meet the budget without them all.
    """
    common, once = trunk_layers(graph, trunk), (members - 1) * trunk_macs(graph, trunk)
    sites = [branch.site for branch in graph.branches if not common.intersection((branch.site, *branch.layers))]
    if not sites:
        raise SubnetSearchError(
            f"the network has no residual branches{' outside the trunk' if trunk else ''}, so it has no depth masks; thin its channels instead"
        )
    share = budget if alone else depth_budget(graph, members, budget, trunk)
    allowed = (share * graph.dense_macs + once) / members
    least = macs(graph, {}, sites)
    if least > allowed:
        needed = (members * least - once) / graph.dense_macs
        if not alone:  # what branches are to come down to grows with the root of the budget
            needed = (needed / depth_budget(graph, members, 1.0, trunk)) ** 2
        reached = "they cost" if alone else "half of the saving is made at"
        raise SubnetSearchError(
            f"budget {budget:g} cannot be met with {members} member{'s' * (members > 1)}: without any residual branch {reached} {rounded_up(needed)} times the dense network; raise the budget to that{', use fewer members' * (members > 1)}, or leave out no branches"
        )
    rng = np.random.default_rng(seed)
    kept = np.ones((members, len(sites)), dtype=np.bool_)
    over = list(range(members))
    while over:
        for member in list(over):
            out = [site for site, keep in zip(sites, kept[member], strict=True) if not keep]
            if macs(graph, {}, out) <= allowed:
                over.remove(member)
                continue
            keepers = np.where(kept[member], kept.sum(axis=0) + rng.random(len(sites)), -1.0)
            kept[member, int(keepers.argmax())] = False
    return {site: torch.from_numpy(kept[:, i].copy()) for i, site in enumerate(sites)}
