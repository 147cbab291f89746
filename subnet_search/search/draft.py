"""Fair division in rounds, as teams draft players."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from subnet_search.search.overlap import Mask, Scores


def draft(scores: Scores, quotas: Sequence[int], first: int = 0) -> Mask:
    """Lets members take turns, each taking the channel that it values most.

    The order of turns is a snake (0 … K−1, K−1 … 0, …), which balances what members get (picking sequences:
    Bouveret & Lang 2011, "A general elicitation-free protocol for allocating indivisible goods"). A member takes its
    best channel among those that nobody has. When there are none left, it chooses among the channels with the
    fewest holders; of these, one whose holders it shares the fewest channels with; of these, its best. So all
    channels are used where the quotas add up to the width, and pairs share alike.

    Args:
        scores: `[member, channel]`, any range; only the order within a member counts.
        quotas: How many channels each member takes, from 0 to the width.
        first: The member that has the first turn; another one for each group is fairer.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    members, channels = scores.shape
    taken = np.zeros((members, channels))  # float, so that the products below run in BLAS; small integers are exact
    holders = np.zeros(channels)
    shared = np.zeros((members, members))
    for member in _snake(quotas, first):
        # one number orders by holders first, then by overlap: Σ_l o_kl ≤ K·C
        cost = holders * (members * channels + 1) + shared[member] @ taken
        cost[taken[member] > 0] = np.inf
        channel = int(np.where(cost == cost.min(), scores[member], -np.inf).argmax())
        shared[member] += taken[:, channel]
        shared[:, member] += taken[:, channel]
        taken[member, channel] = 1
        holders[channel] += 1
    return taken > 0


def _snake(quotas: Sequence[int], first: int) -> Iterator[int]:
    """Yields the members in order of their turns until all quotas are used up."""
    order = [(first + k) % len(quotas) for k in range(len(quotas))]
    for turn in range(max(quotas)):
        for member in order if turn % 2 == 0 else reversed(order):
            if turn < quotas[member]:
                yield member
