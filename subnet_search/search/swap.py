"""Local search on what an ensemble really measures, where relevance alone cannot tell which of two channels is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from subnet_search.errors import SubnetSearchError
from subnet_search.search.overlap import Mask, Scores
from subnet_search.search.patterns import Floats

TEMPERATURE = 0.5  # of the proposals, in units of the mean score: channels this much apart are near indifferent
VISIT = 4  # candidates in one group before the next: the first of them pays for the part of the network below
WIDEST = 0.25  # share of the quota that a candidate moves at the start; it falls to single channels


@dataclass(frozen=True)
class Swapped:
    """What a local search has come to.

    Attributes:
        masks: Group → bool `[member, channel]`.
        before: Measurement of the start.
        after: That of the masks, at most `before`.
        candidates: How many were measured beside the start.
        accepted: How many of them were better than what there was.
    """

    masks: dict[str, Mask]
    before: float
    after: float
    candidates: int
    accepted: int


def swap(
    start: Mapping[str, Mask],
    scores: Mapping[str, Scores],
    measure: Callable[[Mapping[str, Mask]], float],
    rng: np.random.Generator,
    *,
    candidates: int,
    lambda_overlap: float = 1.0,
    cover: bool = False,
    partners: bool = False,
    progress: Progress | None = None,
) -> Swapped:
    """Trades channels as long as the measurement falls; the first candidate that is better is taken (hill climbing).

    A candidate is one member that gives up some channels of a group for others that it has not, or two members that
    trade channels with each other, so that quotas stay what they are. Proposed are, by lot, those that cost least in
    relevance less overlap (`subnet_search.search.overlap`): near the border between kept and cut, where relevance is
    indifferent, and where members share much. It goes through the groups in order, again and again, as a measure may
    have kept what lies below a group; a candidate moves up to a quarter of the quota at first, one channel in the end.

    Args:
        start: Group → bool `[member, channel]`, the groups in the order of the network.
        scores: Group → normalised scores `[member, channel]`.
        measure: Gives the loss of masks, lower is better.
        rng: Source of randomness.
        candidates: How many candidates are measured, at least 0.
        lambda_overlap: Weight λ of the overlap in what is proposed, at least 0.
        cover: Leave no channel without a member that has one.
        partners: Only members 2i and 2i + 1 trade, and only with each other, so that complements stay complements.
        progress: Bar to report to.

    Returns:
        The best masks met, with the quotas of the start.

    Raises:
        SubnetSearchError: where the start has no finite measurement.
    """
    masks = {name: mask.copy() for name, mask in start.items()}
    before = value = float(measure(masks))
    if not math.isfinite(value):
        raise SubnetSearchError(
            f"swap: the masks to start from measure {value}, expected a finite loss; check the training images and the weights for NaN"
        )
    movers = {name: _Mover(scores[name], lambda_overlap, cover, partners) for name in masks}
    order = [name for name, mask in masks.items() if movers[name].can_move(mask)]
    task = progress.add_task("swapping channels", total=candidates) if progress else None
    measured = accepted = 0
    while order and measured < candidates:
        for name in order:
            for _ in range(min(VISIT, candidates - measured)):
                share = WIDEST * (1 - measured / candidates)
                proposed = movers[name].propose(masks[name], share, rng)
                measured += 1
                found = math.nan if proposed is None else float(measure({**masks, name: proposed}))
                if proposed is not None and found < value:  # false for NaN
                    value, masks[name] = found, proposed
                    accepted += 1
                if progress and task is not None:
                    progress.advance(task)
    return Swapped(masks, before, value, measured, accepted)


class _Mover:
    """Proposes trades in one group."""

    def __init__(self, scores: Scores, lambda_overlap: float, cover: bool, partners: bool) -> None:
        self.scores = scores
        self.weight = lambda_overlap / scores.shape[1]
        self.cover = cover
        self.partners = partners

    def can_move(self, mask: Mask) -> bool:
        """Whether any trade is possible."""
        return bool(self._choices(mask))

    def propose(self, mask: Mask, share: float, rng: np.random.Generator) -> Mask | None:
        """Draws a trade of about `share` of the quota; None where there is nothing left to trade."""
        choices = self._choices(mask)
        if not choices:
            return None
        members = choices[int(rng.integers(len(choices)))]
        worth = self._worth(mask)
        k = members[0]
        most = max(1, round(share * float(mask[k].sum())))
        changed = mask.copy()
        if len(members) == 1:
            given = _drawn(-worth[k], self._droppable(mask, k), most, rng)
            taken = _drawn(worth[k], ~mask[k], len(given), rng)
            changed[k, given[: len(taken)]] = False
            changed[k, taken] = True
            return changed
        other = members[1]
        preference = worth[other] - worth[k]
        given = _drawn(preference, mask[k] & ~mask[other], most, rng)
        taken = _drawn(-preference, mask[other] & ~mask[k], len(given), rng)
        for gone, gains, loses in ((given[: len(taken)], other, k), (taken, k, other)):
            changed[loses, gone] = False
            changed[gains, gone] = True
        return changed

    def _choices(self, mask: Mask) -> list[tuple[int, ...]]:
        """The members, and pairs of members, that have something to trade."""
        count = len(mask)
        couples = [(k, k + 1) for k in range(0, count - 1, 2)]
        alone: list[tuple[int, ...]] = []
        if not self.partners:
            couples = [(k, other) for k in range(count) for other in range(k + 1, count)]
            free = [k for k in range(count) if not mask[k].all() and self._droppable(mask, k).any()]
            # as often as couples, of which there are more
            alone = [(k,) for k in free for _ in range(max(1, (count - 1) // 2))]
        able = [(k, o) for k, o in couples if (mask[k] & ~mask[o]).any() and (mask[o] & ~mask[k]).any()]
        return [*alone, *able]

    def _droppable(self, mask: Mask, member: int) -> Mask:
        """The channels that a member may give up."""
        kept: Mask = mask[member]
        return kept & (mask.sum(axis=0) > 1) if self.cover else kept

    def _worth(self, mask: Mask) -> Floats:
        """What a channel is worth to each member, to first order: relevance less what it adds to the overlap."""
        kept = mask.astype(np.float64)
        shared = kept @ kept.T
        np.fill_diagonal(shared, 0.0)
        worth: Floats = self.scores - 2 * self.weight * (shared @ kept)
        return worth


def _drawn(preference: Floats, allowed: Mask, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws channels without replacement, each with a chance that grows with exp(preference / temperature).

    By Gumbel's trick (Vieira 2014): the largest perturbed logarithms are such a draw.
    """
    places = np.flatnonzero(allowed)
    keys = preference[places] / TEMPERATURE + rng.gumbel(size=len(places))
    drawn: NDArray[np.int64] = places[np.argsort(-keys)[:count]]
    return drawn
