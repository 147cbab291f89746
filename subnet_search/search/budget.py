"""From a budget of MACs, or a kept fraction, to the number of channels that each member keeps."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import ChannelGroup, GroupGraph, macs, trunk_groups, trunk_layers, trunk_macs

Spread = Literal["inner", "uniform"]

BISECTIONS = 50  # halvings of the kept fraction: below the resolution of any real width


@dataclass(frozen=True)
class BudgetConfig:
    """How much the ensemble may cost, and where it is saved.

    Attributes:
        budget: MACs of the whole ensemble / MACs of the dense network, above 0; None where `keep` is given.
        keep: Kept fraction of the channels of each thinned group, in (0, 1], rounded down but never below
            `min_width`; takes the place of `budget`.
        spread: `inner` thins the channels inside blocks first (streams stay whole; with a budget that the inner
            channels alone cannot meet, streams follow), `uniform` thins all groups by the same fraction.
        min_width: The fewest channels of a group that a member keeps, at least 1.
        multiple_of: Kept widths are multiples of this in every group whose own width is one (a group as narrow as this
            stays whole). Most devices are as fast with 16 channels as with 13; 1 uses up the budget best.
        trunk_keep: Kept fraction of the channels inside the blocks of the trunk, in (0, 1], the same ones for all
            members: a trunk that is thinned itself leaves more for the members. None takes what suits the budget, which
            is all of them at budgets from 1 on (`subnet_search.search.trunk_keep_to_take`).
        depth: Whether members leave out whole residual branches too, for half of what is to be saved, on a logarithmic
            scale (`depth_masks`); the channels pay the rest. Needs a `budget`.

    Raises:
        SubnetSearchError: where neither `budget` nor `keep` is given, or a value is outside its range.
    """

    budget: float | None = 2.0
    keep: float | None = None
    spread: Spread = "inner"
    min_width: int = 1
    multiple_of: int = 1
    trunk_keep: float | None = None
    depth: bool = False

    def __post_init__(self) -> None:
        if self.keep is not None:
            object.__setattr__(self, "budget", None)
        elif self.budget is None:
            raise SubnetSearchError("got neither budget nor keep, expected one of them")
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise SubnetSearchError(
                f"budget is {self.budget}, expected a positive number: MACs of the ensemble / MACs of the dense network"
            )
        if self.keep is not None and not 0 < self.keep <= 1:
            raise SubnetSearchError(f"keep is {self.keep}, expected a fraction in (0, 1]")
        if self.spread not in ("inner", "uniform"):
            raise SubnetSearchError(f"spread is {self.spread!r}, expected 'inner' or 'uniform'")
        if self.min_width < 1:
            raise SubnetSearchError(f"min_width is {self.min_width}, expected at least 1")
        if self.multiple_of < 1:
            raise SubnetSearchError(f"multiple_of is {self.multiple_of}, expected at least 1")
        if self.trunk_keep is not None and not 0 < self.trunk_keep <= 1:
            raise SubnetSearchError(f"trunk_keep is {self.trunk_keep}, expected a fraction in (0, 1]")
        if self.depth and self.budget is None:
            raise SubnetSearchError("depth needs a budget of MACs, got a kept share of channels; give --budget")


def allocate_quotas(
    graph: GroupGraph,
    members: int,
    config: BudgetConfig,
    depth: Mapping[str, Tensor] | None = None,
    trunk: float = 0.0,
) -> dict[str, tuple[int, ...]]:
    """Decides how many channels of each group the members keep; all members get the same widths.

    One fraction for all thinned groups is found by bisection; what it leaves of the budget is used up one channel
    at a time, always for the group with the smallest kept fraction that still fits. The budget is never exceeded.

    Args:
        graph: The searchable groups and what they cost.
        members: Number of members K, from 1 (a pruned network) to the widest group's width. Groups with fewer channels than
            members, such as those of narrow squeeze layers, stay whole.
        config: Budget and how it is spread.
        depth: Site of a residual branch → bool `[member]`, true where the member keeps the branch; what is left out
            costs nothing. None where all members keep all branches.
        trunk: Share of the dense MACs that members have in common from the input on, in [0, 1): it is paid for once
            (`EnsembleConfig.trunk`), and nothing is cut there but what `trunk_widths` says.

    Returns:
        Group → K numbers from `min_width` to the group's width, for all groups in order.

    Raises:
        SubnetSearchError: where K fits no group outside the trunk or `min_width` not all of them, or no assignment
            meets the budget (the message says which budget can be met).
    """
    left_out = Counter(tuple(site for site, kept in (depth or {}).items() if not kept[k]) for k in range(members))

    def cost(chosen: Mapping[str, int]) -> int:
        """MACs of a member, on average and rounded up."""
        return -(-sum(times * macs(graph, chosen, without) for without, times in left_out.items()) // members)

    layers = trunk_layers(graph, trunk)
    # where it is written, and not where it is masked alone: of a gated pair only one layer is masked
    fixed = {g.name: g.width for g in graph.groups if any(s.module in layers for s in g.slices if s.side == "out")}
    if graph.groups and len(fixed) == len(graph.groups):
        raise SubnetSearchError(
            f"with a trunk of {trunk:g} of the MACs no group of channels is left to search; lower ensemble.trunk"
        )
    behind = [group for group in graph.groups if group.name not in fixed]
    if behind and members > (widest := max(behind, key=lambda group: group.width)).width:
        raise SubnetSearchError(
            f"got {members} members, but the widest group that they do not have in common, {widest.name!r}, has {widest.width} channels; expected at most {widest.width} members"
        )
    fixed |= {group.name: group.width for group in behind if group.width < members}
    fixed |= trunk_widths(graph, config, trunk)
    widths = _allocate(graph.groups, cost, graph.dense_macs, members, config, fixed, trunk_macs(graph, trunk, fixed))
    return {name: (width,) * members for name, width in widths.items()}


def trunk_widths(graph: GroupGraph, config: BudgetConfig, trunk: float) -> dict[str, int]:
    """Returns the number of channels that all members keep of each group inside the trunk; see `trunk_groups`.

    Args:
        graph: The network's groups.
        config: `trunk_keep`, `min_width` and `multiple_of`.
        trunk: Share of the dense MACs that members have in common.
    """
    inside = {name: graph.widths[name] for name in trunk_groups(graph, trunk)}
    grain = _grain(inside, config)
    share = trunk_keep_to_take(graph, config, trunk)
    kept = _thinned(inside, set(inside), share, _smallest(grain, config), grain)
    return {name: min(width, inside[name]) for name, width in kept.items()}


def trunk_keep_to_take(graph: GroupGraph, config: BudgetConfig, trunk: float) -> float:
    """Returns the share of the channels inside a trunk's blocks that is kept, found where the settings leave it open.

    As many as leave the members together what the dense network has behind the trunk, so that every channel there can be
    in use once. At budgets from 1 on that is all of them: a whole trunk was better than a thinner one with wider members
    (entry 13 of `benchmarks/search/README.md`). Below 1 the trunk pays for what is missing (entry 14).

    Args:
        graph: The network's groups.
        config: What the ensemble may cost; a `trunk_keep` that is given there is taken.
        trunk: Share of the dense MACs that members have in common, in [0, 1).

    Returns:
        A share in (0, 1], in hundredths; 1 where no thinning is enough, or there is nothing to thin.
    """
    if config.trunk_keep is not None:
        return config.trunk_keep
    if config.budget is None or not trunk_groups(graph, trunk):
        return 1.0

    def cost(percent: int) -> int:
        return trunk_macs(graph, trunk, trunk_widths(graph, replace(config, trunk_keep=percent / 100), trunk))

    behind = graph.dense_macs - trunk_macs(graph, trunk)
    percent = bisect.bisect_right(range(1, 101), config.budget * graph.dense_macs - behind, key=cost)
    return percent / 100 if percent else 1.0


def thinned_groups(quotas: Mapping[str, Sequence[int]], widths: Mapping[str, int]) -> list[str]:
    """Returns the groups that some member does not keep whole.

    Args:
        quotas: Group → how many channels each member keeps.
        widths: Group → how many it has.
    """
    return [name for name, kept in quotas.items() if min(kept) < widths[name]]


def rounded_up(value: float) -> str:
    """Returns a positive number with three significant digits, not below it: a budget to advise.

    Args:
        value: The lowest that is enough.
    """
    step: float = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step) * step:.3g}"


def _allocate(
    groups: Sequence[ChannelGroup],
    cost: Callable[[Mapping[str, int]], int],
    dense: int,
    members: int,
    config: BudgetConfig,
    fixed: Mapping[str, int] | None = None,
    shared: int = 0,
) -> dict[str, int]:
    """Chooses one member's widths; `cost` gives the MACs of a member, non-decreasing in every width.

    The groups in `fixed` have their width; `shared` of a member's MACs are spent once for all members.
    """
    _check(groups, members, config)
    fixed = fixed or {}
    grain = _grain({group.name: group.width for group in groups}, config)
    full = {group.name: fixed.get(group.name, group.width) for group in groups}
    smallest = {**_smallest(grain, config), **fixed}
    inner = {group.name for group in groups if group.kind == "inner"} if config.spread == "inner" else set(full)
    inner = (inner - set(fixed)) or set(full)  # a network of streams alone is thinned there
    if config.keep is not None:
        return _thinned(full, inner, config.keep, smallest, grain)

    assert config.budget is not None  # BudgetConfig saw to it
    # in exact decimals, so that 0.29 × 100 MACs are 29 and not 28.999…
    allowed = math.floor((Fraction(str(config.budget)) * dense + (members - 1) * shared) / members)
    if cost(smallest) > allowed:
        fewest = max(config.min_width, config.multiple_of)
        raise SubnetSearchError(
            f"budget {config.budget:g} cannot be met with {members} member{'s' * (members > 1)}: at {fewest} channel(s) in every group they cost "
            f"{rounded_up((members * cost(smallest) - (members - 1) * shared) / dense)} times the dense network; raise the budget to that{', or use fewer members' * (members > 1)}"
        )
    start, thinned = full, inner
    if cost(_thinned(full, inner, 0.0, smallest, grain)) > allowed:
        start, thinned = _thinned(full, inner, 0.0, smallest, grain), set(full) - inner
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = cost(_thinned(start, thinned, middle, smallest, grain)) <= allowed
        low, high = (middle, high) if fits else (low, middle)
    widths = start if cost(start) <= allowed else _thinned(start, thinned, low, smallest, grain)
    return _fill(dict(widths), full, grain, cost, allowed)


def _grain(full: Mapping[str, int], config: BudgetConfig) -> dict[str, int]:
    """What the kept width of each group is a multiple of."""
    return {name: config.multiple_of if width % config.multiple_of == 0 else 1 for name, width in full.items()}


def _smallest(grain: Mapping[str, int], config: BudgetConfig) -> dict[str, int]:
    """The fewest channels that a member keeps of each group."""
    return {name: -(-config.min_width // step) * step for name, step in grain.items()}


def _thinned(
    full: Mapping[str, int],
    thinned: set[str],
    fraction: float,
    smallest: Mapping[str, int],
    grain: Mapping[str, int],
) -> dict[str, int]:
    """Returns the widths with the named groups cut to a fraction, rounded down to their grain, not below `smallest`."""

    def cut(name: str, width: int) -> int:
        # the small term keeps a product such as 0.7 · 10 from being rounded down to 6
        return max(smallest[name], math.floor(fraction * width / grain[name] + 1e-9) * grain[name])

    return {name: cut(name, width) if name in thinned else width for name, width in full.items()}


def _fill(
    widths: dict[str, int],
    full: Mapping[str, int],
    grain: Mapping[str, int],
    cost: Callable[[Mapping[str, int]], int],
    allowed: int,
) -> dict[str, int]:
    """Widens one group by one grain at a time while the cost allows it."""
    candidates = set(full)
    while candidates:
        order = {name: position for position, name in enumerate(full)}
        name = min(candidates, key=lambda name: (widths[name] / full[name], order[name]))
        wider = {**widths, name: widths[name] + grain[name]}
        if wider[name] <= full[name] and cost(wider) <= allowed:
            widths = wider
        else:
            candidates.remove(name)  # costs only grow from here, so it will not fit later either
    return widths


def _check(groups: Sequence[ChannelGroup], members: int, config: BudgetConfig) -> None:
    """Raises where members or the minimum width do not fit the groups."""
    if not groups:
        raise SubnetSearchError(
            "there is no searchable group of channels; run `subnet-search inspect` to see what was left whole and why"
        )
    if members < 1:
        raise SubnetSearchError(f"got {members} members, expected at least 1")
    narrow = min(groups, key=lambda group: group.width)
    if config.min_width > narrow.width:
        raise SubnetSearchError(
            f"min_width is {config.min_width}, but group {narrow.name!r} has {narrow.width} channels; expected at most {narrow.width}"
        )
