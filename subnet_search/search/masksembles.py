"""The random masks of Masksembles (Durasov et al. 2021), for any width, as a control."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

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
    reach = _log_reach(channels, quotas, unused_at_end)
    mask = np.zeros((len(quotas), channels), dtype=np.bool_)
    for member, quota in enumerate(quotas):
        used = mask.any(axis=0)
        fresh, stale = np.flatnonzero(~used), np.flatnonzero(used)
        new = np.arange(min(quota, fresh.size) + 1)
        weight = _log_hypergeometric(channels, fresh.size, quota, new) + reach[member + 1, fresh.size - new]
        count = int(rng.choice(new, p=np.exp(weight - _log_sum(weight))))
        mask[member, rng.choice(fresh, count, replace=False)] = True
        mask[member, rng.choice(stale, quota - count, replace=False)] = True
    return mask


def _log_reach(channels: int, quotas: Sequence[int], unused_at_end: int) -> NDArray[np.float64]:
    """Log-probability `[member, unused]` that members from this one on leave exactly `unused_at_end` unused."""
    reach = np.full((len(quotas) + 1, channels + 1), -np.inf)
    reach[len(quotas), unused_at_end] = 0.0
    for member in reversed(range(len(quotas))):
        quota = quotas[member]
        after = np.flatnonzero(np.isfinite(reach[member + 1]))
        fewest = max(0, channels - sum(quotas[:member]))
        most = channels - max(quotas[:member], default=0)
        for unused in range(fewest, most + 1):
            new = unused - after
            possible = (new >= 0) & (new <= quota)
            if possible.any():
                step = _log_hypergeometric(channels, unused, quota, new[possible])
                reach[member, unused] = _log_sum(step + reach[member + 1, after[possible]])
    return reach


def _log_hypergeometric(channels: int, unused: int, quota: int, new: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-probability that `quota` of `channels`, drawn without replacement, hold `new` of the `unused`."""
    stale = quota - new
    used = channels - unused
    possible = (new >= 0) & (new <= unused) & (stale >= 0) & (stale <= used)
    clipped, rest = np.where(possible, new, 0), np.where(possible, stale, 0)
    value = _log_binomial(unused, clipped) + _log_binomial(used, rest) - _log_binomial(channels, np.asarray(quota))
    result: NDArray[np.float64] = np.where(possible, value, -np.inf)
    return result


def _log_sum(logs: NDArray[np.float64]) -> float:
    """Logarithm of Σ exp; scipy's own takes ten times as long on short arrays, and this runs K·C times."""
    peak = float(logs.max())
    return peak + math.log(np.exp(logs - peak).sum()) if math.isfinite(peak) else peak


def _log_binomial(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of the binomial coefficient."""
    value: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return value
