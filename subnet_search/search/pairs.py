"""Complement pairs with relevance: partners share as little as they can and have as much relevance as each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subnet_search.search.overlap import Mask, Scores, pair_overlap
from subnet_search.search.patterns import Floats

TINY = 1e-8  # gains below this are rounding errors: scores have mean 1
UNFAIR = 0.5  # what a difference between two partners costs, as a share of it; below 1, so that more for one is no loss
SIDE = 96  # channels on each side of a swap that are looked at; in wider groups others in each pass
PASSES = 40  # at most; 3 to 8 are usual


def pairs(scores: Scores, quotas: Sequence[int], lambda_overlap: float, cover: bool = False) -> Mask:
    """Splits channels between members 2i and 2i + 1, the same ones in another way between each two partners.

    Random complement pairs have likely errors that correlate little (antirandom masks; Whitaker & Whitley 2022), but
    one partner may get all that matters. Here partners overlap in max(0, q + q' − C) channels, the fewest possible, and

        Σ_pairs (T_k + T_l − ½|T_k − T_l|)  −  λ Σ_{k<l} φ(o_kl),    T_k = Σ_c R[k, c]·m[k, c],

    is made large by swaps: partners get equal shares, each of what it values most (with unequal quotas, shares are
    compared by channel), and pairs that split the channels crosswise overlap least. Where quotas are below half of the
    width, relevance decides which channels a pair has at all.

    The start deals the channels out in the order of their relevance, by Walsh functions of their rank: at half width
    any two members of different pairs then share a quarter of the channels. With an odd K the last member has no partner.

    Args:
        scores: Normalised scores `[member, channel]`, at least 0.
        quotas: How many channels each member keeps, from 1 to the width.
        lambda_overlap: Weight λ of the overlap, at least 0.
        cover: Each channel is used by some member, where the quotas add up to the width.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    cover = cover and sum(quotas) >= scores.shape[1]
    split = _Split(scores, _dealt(scores, quotas, cover), lambda_overlap, cover)
    for number in range(PASSES):
        moved = [split.improve_pair(first, number) for first in range(0, len(quotas), 2)]
        if not any(moved):
            break
    return split.kept > 0


def _dealt(scores: Scores, quotas: Sequence[int], cover: bool) -> Mask:
    """The start: each pair takes the channels that are most relevant to it, and deals them out."""
    members, channels = scores.shape
    mask = np.zeros((members, channels), dtype=np.bool_)
    for pair, start in enumerate(range(0, members, 2)):
        partners = list(range(start, min(start + 2, members)))
        order = np.argsort(-scores[partners].mean(axis=0), kind="stable")
        if cover:
            used = mask.sum(axis=0) > 0
            order = order[np.argsort(used[order], kind="stable")]
        wanted = [quotas[k] for k in partners]
        common = max(0, sum(wanted) - channels)
        for k in partners:
            mask[k, order[:common]] = True
        rest = order[common : sum(wanted) - common]
        if len(partners) == 1:
            mask[start, rest] = True
            continue
        side = _walsh(pair, len(rest))
        first = np.flatnonzero(side)[: wanted[0] - common]
        # where the quotas differ, the channels that one side has too many go to the other
        more = np.flatnonzero(~side)[::-1][: wanted[0] - common - len(first)]
        taken = np.zeros(len(rest), dtype=np.bool_)
        taken[first] = taken[more] = True
        mask[start, rest[taken]] = True
        mask[start + 1, rest[~taken]] = True
    return mask


def _walsh(pair: int, count: int) -> NDArray[np.bool_]:
    """Sides of a pair for ranks 0 to count − 1: balanced over small blocks, and independent of those of other pairs.

    Within blocks of 2^m ranks pairs take different Walsh functions, which are orthogonal; from block to block the
    sides are exchanged as in the Thue–Morse sequence, so that neither partner always comes first.
    """
    bits = 2
    while 2**bits - 1 <= pair:
        bits += 1
    # both of the lowest bits first: 0110 is the fairest way to deal out four ranks
    functions = [0b11, 0b01, 0b10, *range(4, 2**bits)]
    ranks = np.arange(count)
    inside, block = ranks & functions[pair], ranks >> bits
    parity = np.array([(int(i).bit_count() + int(b).bit_count()) % 2 for i, b in zip(inside, block, strict=True)])
    return parity.astype(np.bool_) if count else np.zeros(0, dtype=np.bool_)


class _Split:
    """An assignment of pairs under improvement, and the sums that follow from it."""

    def __init__(self, scores: Scores, mask: Mask, lambda_overlap: float, cover: bool) -> None:
        self.scores = scores
        self.kept = mask.astype(np.float64)
        self.weight = lambda_overlap / mask.shape[1]
        self.cover = cover
        self.total = (scores * self.kept).sum(axis=1)
        self.quota = self.kept.sum(axis=1)
        self.shared = pair_overlap(mask)
        np.fill_diagonal(self.shared, 0.0)

    def improve_pair(self, first: int, number: int) -> bool:
        """Makes the swaps that help two partners, one after the other; `number` is that of the pass."""
        second = first + 1 if first + 1 < len(self.kept) else None
        moved = False
        while (
            (second is not None and self._exchange(first, second, number))
            or self._replace(first, second, number)
            or (second is not None and self._replace(second, first, number))
        ):
            moved = True
        return moved

    def _welfare(self, members: Sequence[int], totals: Sequence[Floats | float]) -> Floats:
        """What totals of two partners, or of one without a partner, are worth."""
        worth = np.asarray(sum(totals), dtype=np.float64)
        if len(members) == 1:
            return worth
        one, other = (total / self.quota[k] for k, total in zip(members, totals, strict=True))
        fair: Floats = worth - UNFAIR * self.quota[list(members)].mean() * np.abs(one - other)
        return fair

    def _rise(self, members: Sequence[int], given: NDArray[np.int64], taken: NDArray[np.int64]) -> Floats:
        """How much Σ o² rises with others than `members` where the first gives a channel for one it takes.

        With two members, the second does the opposite. `[given, taken]`.
        """
        others = [k for k in range(len(self.kept)) if k not in members]
        step = self.kept[others][:, None, taken] - self.kept[others][:, given, None]
        shared = self.shared[members[0], others]
        if len(members) == 1:
            return np.asarray((2 * shared[:, None, None] * step + step**2).sum(axis=0))
        shared = shared - self.shared[members[1], others]
        return np.asarray((2 * shared[:, None, None] * step + 2 * step**2).sum(axis=0))

    def _exchange(self, first: int, second: int, number: int) -> bool:
        """Trades a channel that only `first` has for one that only `second` has."""
        given = _some((self.kept[first] > 0) & (self.kept[second] == 0), number)
        taken = _some((self.kept[second] > 0) & (self.kept[first] == 0), number)
        if not (given.size and taken.size):
            return False
        mine = self.total[first] + self.scores[first][taken][None] - self.scores[first][given][:, None]
        theirs = self.total[second] + self.scores[second][given][:, None] - self.scores[second][taken][None]
        partners = (first, second)
        gain = self._welfare(partners, (mine, theirs)) - self._welfare(partners, self.total[list(partners)])
        gain = gain - self.weight * self._rise(partners, given, taken)
        place = _best(gain)
        if place is None:
            return False
        gone, new = int(given[place[0]]), int(taken[place[1]])
        self._move(first, gone, new)
        self._move(second, new, gone)
        return True

    def _replace(self, member: int, partner: int | None, number: int) -> bool:
        """Trades a channel of a member for one it has not, where its overlap with its partner stays what it is."""
        other = np.zeros(self.kept.shape[1]) if partner is None else self.kept[partner]
        droppable = self.kept[member] > 0
        if self.cover:
            droppable = droppable & (self.kept.sum(axis=0) > 1)
        given, taken = _some(droppable, number), _some(self.kept[member] == 0, number)
        if not (given.size and taken.size):
            return False
        mine = self.total[member] + self.scores[member][taken][None] - self.scores[member][given][:, None]
        members = (member,) if partner is None else (member, partner)
        before = self.total[list(members)]
        gain = self._welfare(members, (mine, *before[1:])) - self._welfare(members, before)
        gain = gain - self.weight * self._rise((member,), given, taken)
        place = _best(np.where(other[given][:, None] == other[taken][None], gain, -np.inf))
        if place is None:
            return False
        self._move(member, int(given[place[0]]), int(taken[place[1]]))
        return True

    def _move(self, member: int, gone: int, new: int) -> None:
        """Takes one channel from a member and gives it another."""
        for channel, sign in ((gone, -1.0), (new, 1.0)):
            others = self.kept[:, channel].copy()
            others[member] = 0
            self.shared[member] += sign * others
            self.shared[:, member] += sign * others
            self.kept[member, channel] += sign
            self.total[member] += sign * self.scores[member, channel]


def _some(allowed: Mask, number: int) -> NDArray[np.int64]:
    """The channels that are allowed, in wide groups an evenly spread part of them that differs from pass to pass."""
    channels = np.flatnonzero(allowed)
    step = -(-len(channels) // SIDE)
    return channels[number % step :: step] if step > 1 else channels


def _best(gain: Floats) -> tuple[int, int] | None:
    """Where the largest gain is; None where none helps."""
    row, column = np.unravel_index(int(gain.argmax()), gain.shape)
    return (int(row), int(column)) if gain[row, column] > TINY else None
