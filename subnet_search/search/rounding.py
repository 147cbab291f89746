"""From a nearly integral optimum to an assignment with exact quotas, and its improvement by swaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subnet_search.search.overlap import Mask, Scores
from subnet_search.search.patterns import Floats, Patterns

TOP = 12  # channels on each side of a swap that are looked at
PASSES = 30  # over all members, at most; 3 to 6 are usual
TINY = 1e-8  # gains below this are rounding errors: scores have mean 1
CERTAIN = 0.99  # probability from which a pattern is taken as it is


def round_patterns(probabilities: Floats, patterns: Patterns) -> Mask:
    """Gives each channel one pattern so that quotas and overlaps stay near their fractional values.

    Channels with a certain pattern take it; each other one takes, of its likely patterns, the one that brings the
    running sums of the features back to what the probabilities promised.

    Args:
        probabilities: `[channel, pattern]`, rows sum to 1.
        patterns: The patterns.

    Returns:
        bool `[member, channel]`; the quotas are met only about.
    """
    choice = probabilities.argmax(axis=1)
    promised = probabilities @ patterns.features
    unsure = np.flatnonzero(probabilities.max(axis=1) < CERTAIN)
    drift = (patterns.features[choice] - promised).sum(axis=0) - (patterns.features[choice] - promised)[unsure].sum(
        axis=0
    )
    for channel in unsure:
        likely = np.flatnonzero(probabilities[channel] >= 0.1 * probabilities[channel].max())
        after = drift - promised[channel] + patterns.features[likely]
        best = int((after**2).sum(axis=1).argmin())
        choice[channel] = likely[best]
        drift = after[best]
    return np.ascontiguousarray(patterns.members[choice].T > 0)


class Assignment:
    """An assignment under improvement: a mask, and the overlaps that follow from it.

    Args:
        scores: Normalised scores `[member, channel]`.
        mask: First assignment, bool `[member, channel]`.
        lambda_overlap: Weight λ of the overlap, at least 0.
        cover: Never leave a channel without a member that has one.
    """

    def __init__(self, scores: Scores, mask: Mask, lambda_overlap: float, cover: bool) -> None:
        self.scores = scores
        self.kept = mask.astype(np.float64)
        self.weight = lambda_overlap / mask.shape[1]
        self.cover = cover
        self.shared = self.kept @ self.kept.T
        np.fill_diagonal(self.shared, 0.0)

    @property
    def mask(self) -> Mask:
        """The assignment, bool `[member, channel]`."""
        return self.kept > 0

    def _marginal(self, member: int) -> Floats:
        """What each channel is worth to a member, to first order in the overlap: `[channel]`."""
        worth: Floats = self.scores[member] - 2 * self.weight * (self.shared[member] @ self.kept)
        return worth

    def _set(self, member: int, channel: int, keep: bool) -> None:
        """Gives or takes one channel."""
        others = self.kept[:, channel].copy()
        others[member] = 0
        change = others if keep else -others
        self.shared[member] += change
        self.shared[:, member] += change
        self.kept[member, channel] = float(keep)

    def _droppable(self, member: int) -> Mask:
        """The channels that a member may give up: `[channel]`."""
        droppable: Mask = self.kept[member] > 0
        if self.cover:
            droppable &= self.kept.sum(axis=0) > 1
        return droppable

    def repair(self, quotas: Sequence[int]) -> bool:
        """Adds and drops the channels of the least loss until all quotas are met; False where cover forbids it."""
        for member, quota in enumerate(quotas):
            while self.kept[member].sum() < quota:
                gain = self._marginal(member) - self.weight * self.kept.sum(axis=0)
                self._set(member, int(np.where(self.kept[member] > 0, -np.inf, gain).argmax()), True)
        for member, quota in enumerate(quotas):
            while self.kept[member].sum() > quota:
                droppable = self._droppable(member)
                if not droppable.any():
                    return False
                loss = self._marginal(member) + self.weight * (self.kept.sum(axis=0) - 1)
                self._set(member, int(np.where(droppable, loss, np.inf).argmin()), False)
        return True

    def improve(self) -> None:
        """Makes every swap that helps: a member trades a channel for a free one, or two members trade with each other."""
        members = len(self.kept)
        for _ in range(PASSES):
            moved = False
            for member in range(members):
                while self._replace(member):
                    moved = True
            for first in range(members):
                for second in range(first + 1, members):
                    while self._exchange(first, second):
                        moved = True
            if not moved:
                return

    def _replace(self, member: int) -> bool:
        """Trades one channel of a member for one it has not, where that helps."""
        worth = self._marginal(member)
        given = _largest(np.where(self._droppable(member), -worth, -np.inf))
        taken = _largest(np.where(self.kept[member] > 0, -np.inf, worth))
        if not (given.size and taken.size):
            return False
        differ = np.abs(self.kept[:, taken][:, None, :] - self.kept[:, given][:, :, None])
        differ[member] = 0
        gain = worth[taken][None, :] - worth[given][:, None] - self.weight * differ.sum(axis=0)
        row, column = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[row, column] <= TINY:
            return False
        self._set(member, int(given[row]), False)
        self._set(member, int(taken[column]), True)
        return True

    def _exchange(self, first: int, second: int) -> bool:
        """Trades a channel that only `first` has for one that only `second` has, where that helps."""
        mutual = 2 * self.weight * self.shared[first, second]
        worth_first = self._marginal(first) + mutual * self.kept[second]
        worth_second = self._marginal(second) + mutual * self.kept[first]
        only_first = (self.kept[first] > 0) & (self.kept[second] == 0)
        only_second = (self.kept[second] > 0) & (self.kept[first] == 0)
        given = _largest(np.where(only_first, worth_second - worth_first, -np.inf))
        taken = _largest(np.where(only_second, worth_first - worth_second, -np.inf))
        if not (given.size and taken.size):
            return False
        differ = np.abs(self.kept[:, taken][:, None, :] - self.kept[:, given][:, :, None])
        differ[[first, second]] = 0
        gain = (
            (worth_first - worth_second)[taken][None, :]
            + (worth_second - worth_first)[given][:, None]
            - 2 * self.weight * differ.sum(axis=0)
        )
        row, column = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[row, column] <= TINY:
            return False
        for member, gone, new in ((first, given[row], taken[column]), (second, taken[column], given[row])):
            self._set(member, int(gone), False)
            self._set(member, int(new), True)
        return True


def _largest(values: Floats) -> NDArray[np.int64]:
    """Indices of the largest values, at most TOP, those of −∞ left out."""
    count = min(TOP, values.size)
    top: NDArray[np.int64] = np.argpartition(-values, count - 1)[:count]
    return top[np.isfinite(values[top])]
