"""An upper bound for ensembles with too many members to list the sets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from subnet_search.search.overlap import Mask, Scores, pair_overlap
from subnet_search.search.patterns import Floats

STEPS = 200  # of L-BFGS; any point gives a valid bound, more steps a tighter one


def uniform_bound(scores: Scores, quotas: Sequence[int], lambda_overlap: float, mask: Mask, cover: bool) -> float:
    """Bounds the objective with one price π for all pairs.

    The dual of `subnet_search.search.pattern_dual` restricted to equal π_kl: a channel's best set of n members is then
    simply the n that gain most, which a sort finds in place of a list of 2^K sets. Valid for any prices, and tight
    where the members are alike; where some pairs must share much more than others it is looser.

    Args:
        scores: Normalised scores `[member, channel]`.
        quotas: How many channels each member keeps.
        lambda_overlap: Weight λ of the overlap, above 0.
        mask: A good assignment, from which the first prices are taken.
        cover: The empty set is not allowed.

    Returns:
        A number that no assignment's objective exceeds.
    """
    members, channels = scores.shape
    quota = np.asarray(quotas, dtype=np.float64)
    upper = np.triu_indices(members, k=1)
    lowest = np.maximum(0.0, quota[upper[0]] + quota[upper[1]] - channels)
    highest = np.minimum(quota[upper[0]], quota[upper[1]])
    size = np.arange(0, members + 1, dtype=np.float64)

    def dual(theta: Floats) -> tuple[float, Floats]:
        """Value of the dual and a subgradient at (μ, π)."""
        price, pair_price = theta[:members], theta[members]
        gains = scores.T - price
        order = np.argsort(-gains, axis=1)
        total = np.cumsum(np.take_along_axis(gains, order, axis=1), axis=1)
        worth = np.concatenate([np.zeros((channels, 1)), total], axis=1) - pair_price * size * (size - 1) / 2
        if cover:
            worth[:, 0] = -np.inf
        best = worth.argmax(axis=1)
        taken = np.zeros_like(gains)
        np.put_along_axis(taken, order, (np.arange(members) < best[:, None]).astype(np.float64), axis=1)
        ideal = pair_price * channels / (2 * lambda_overlap)
        sides = np.stack([np.clip(np.floor(ideal), lowest, highest), np.clip(np.ceil(ideal), lowest, highest)])
        values = pair_price * sides - lambda_overlap * sides**2 / channels
        chosen = np.take_along_axis(sides, values.argmax(axis=0)[None], axis=0)
        value = worth[np.arange(channels), best].sum() + price @ quota + values.max(axis=0).sum()
        slope = np.append(quota - taken.sum(axis=0), chosen.sum() - (best * (best - 1) / 2).sum())
        return float(value), slope

    shared = pair_overlap(mask)
    pair_price = 2 * lambda_overlap * float(shared[upper].mean()) / channels
    kept = mask.astype(np.float64)
    marginal = scores - pair_price * (kept.sum(axis=0) - kept)
    start = np.append([np.quantile(row, 1 - q / channels) for row, q in zip(marginal, quotas, strict=True)], pair_price)
    result = minimize(dual, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return min(dual(start)[0], float(result.fun))
