"""The objective of the search: relevance that members keep, less what pairs of members share.

In one group of C channels,

    Σ_k Σ_c R[k, c]·m[k, c]  −  λ Σ_{k<l} φ(o_kl),    φ(o) = o² / C,

where o_kl is the number of channels that members k and l share. Counting per channel how many members use it is
blind to *who* shares with whom; a convex φ of each pair is not, and dividing by C makes it free of scale: a pair
that shares half of the channels pays C/4 whatever C is, as relevance too grows with C once its mean is 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


PRICE, PRICE_BEHIND_TRUNK = 1.0, 100.0
"""Weights of the overlap for searches that leave it open, without a trunk and behind one."""


def price_to_take(trunk: float) -> float:
    """Returns the weight of the overlap that suits members with a trunk.

    A trunk makes members alike before they differ in any channel. Behind one, masks that share as little as they can are
    better: searches that were up to 5 % of NLL behind disjoint random masks came level with them (entries 6, 9 and 13
    of `benchmarks/search/README.md`; at ten times the price a quarter kept still shares 5 %).

    Args:
        trunk: Share of the dense MACs that members have in common, in [0, 1).
    """
    return PRICE_BEHIND_TRUNK if trunk > 0 else PRICE


def normalise(scores: Scores) -> Scores:
    """Divides the scores of a group by their mean, so that λ means the same in every group.

    Args:
        scores: `[member, channel]`, at least 0.

    Returns:
        float64 of the same shape with mean 1; zeros stay zeros.
    """
    mean = float(scores.mean())
    return scores / mean if mean > 0 else scores.copy()


def pair_overlap(mask: Mask) -> NDArray[np.float64]:
    """Returns how many channels two members share, `[member, member]`; the diagonal holds their widths."""
    kept = mask.astype(np.float64)
    shared: NDArray[np.float64] = kept @ kept.T
    return shared


def overlap_penalty(mask: Mask) -> float:
    """Returns Σ_{k<l} φ(o_kl) of one group, at least 0."""
    shared = pair_overlap(mask)
    upper = shared[np.triu_indices_from(shared, k=1)]
    return float((upper**2).sum() / mask.shape[1])


def objective(scores: Scores, mask: Mask, lambda_overlap: float) -> float:
    """Returns the objective of one group, larger is better.

    Args:
        scores: Normalised scores `[member, channel]`.
        mask: Kept channels, bool `[member, channel]`.
        lambda_overlap: Weight λ of the overlap.
    """
    return float(scores[mask].sum()) - lambda_overlap * overlap_penalty(mask)
