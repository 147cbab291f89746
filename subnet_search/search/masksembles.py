"""The random masks of Masksembles (Durasov et al. 2021), for any width, as a control."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subnet_search.search.overlap import Mask


def masksembles(channels: int, quotas: Sequence[int], rng: np.random.Generator) -> Mask:
    """Draws masks from the distribution of the official generator.

    The official generator (Durasov et al. 2021, "Masksembles for Uncertainty Estimation", `masksembles.common`) draws
    K subsets of m among ⌊m·s⌋ positions independently, throws away the positions that nobody uses, and repeats with
    a scale s found by bisection until exactly C positions are left. Given that C are left, every choice of C used
    positions is equally likely and so is every K-tuple of m-subsets of them whose union is all of them: what comes
    out is the *uniform distribution over K-tuples of m-subsets of C channels that cover all C channels*, whatever s
    was. That distribution is drawn here directly, with no rejection: the number of channels not yet used is a Markov
    chain (each step hypergeometric), a backward recursion gives the probability that all are used in the end, and
    the members are drawn forward given that they are.

    Two things go beyond the official code: the quotas may differ, and where they add up to less than C (where the
    official code has no masks at all) the union is as large as it can be, that is, the masks are disjoint.

    Args:
        channels: Width C of the group, of any size.
        quotas: How many channels each member keeps, from 0 to `channels`.
        rng: Source of randomness.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    unused_at_end = max(0, channels - sum(quotas))
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, channels + 1)))])  # logarithms
    reach = _log_reach(channels, quotas, unused_at_end, factorial)
    mask = np.zeros((len(quotas), channels), dtype=np.bool_)
    for member, quota in enumerate(quotas):
        used = mask.any(axis=0)
        fresh, stale = np.flatnonzero(~used), np.flatnonzero(used)
        new = np.arange(min(quota, fresh.size) + 1)
        weight = _log_hypergeometric(fresh.size, quota, new, factorial) + reach[member + 1, fresh.size - new]
        count = int(rng.choice(new, p=np.exp(weight - _log_sum(weight))))
        mask[member, rng.choice(fresh, count, replace=False)] = True
        mask[member, rng.choice(stale, quota - count, replace=False)] = True
    return mask


def _log_reach(
    channels: int, quotas: Sequence[int], unused_at_end: int, factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log-probability `[member, unused]` that members from this one on leave exactly `unused_at_end` unused."""
    reach = np.full((len(quotas) + 1, channels + 1), -np.inf)
    reach[len(quotas), unused_at_end] = 0.0
    for member in reversed(range(len(quotas))):
        quota = quotas[member]
        after = np.flatnonzero(np.isfinite(reach[member + 1]))
        fewest = max(0, channels - sum(quotas[:member]))
        most = channels - max(quotas[:member], default=0)
        for unused in range(fewest, most + 1):
            # `quota` draws take at most `quota` of the unused, and at least what the used ones cannot supply
            least = max(0, quota - (channels - unused))
            start, end = np.searchsorted(after, [unused - min(quota, unused), unused - least + 1])
            if start < end:
                left = after[start:end]
                step = _log_hypergeometric(unused, quota, unused - left, factorial)
                reach[member, unused] = _log_sum(step + reach[member + 1, left])
    return reach


def _log_hypergeometric(
    unused: int, quota: int, new: NDArray[np.int64], factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log-probability that `quota` channels, drawn without replacement, hold `new` of the `unused`; −∞ where they cannot."""
    channels = factorial.size - 1
    used = channels - unused
    possible = (new <= unused) & (quota - new <= used)
    fresh, stale = np.where(possible, new, 0), np.where(possible, quota - new, 0)
    ways = factorial[unused] - factorial[fresh] - factorial[unused - fresh]
    ways = ways + factorial[used] - factorial[stale] - factorial[used - stale]
    all_ways = factorial[channels] - factorial[quota] - factorial[channels - quota]
    return np.where(possible, ways - all_ways, -np.inf)


def _log_sum(logs: NDArray[np.float64]) -> float:
    """Logarithm of Σ exp; scipy's own takes ten times as long on short arrays, and this runs K·C times."""
    peak = float(logs.max())
    return peak + math.log(np.exp(logs - peak).sum()) if math.isfinite(peak) else peak
