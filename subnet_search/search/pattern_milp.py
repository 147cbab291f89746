"""The assignment as a mixed-integer program over patterns, for small groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_array, coo_array, csr_array, kron

from subnet_search.search.overlap import Mask, Scores
from subnet_search.search.patterns import Patterns, overlap_range

NODE_LIMIT = 2000  # a limit on nodes, not on time: the result must not depend on how busy the machine is


def solve_milp(
    scores: Scores, quotas: Sequence[int], lambda_overlap: float, patterns: Patterns
) -> tuple[Mask, float] | None:
    """Solves the assignment by branch and bound (HiGHS).

    One binary for each channel and pattern; the overlap of a pair is a sum of unit steps whose costs
    λ(2t − 1)/C rise, which is the convex penalty λ·o²/C itself at whole overlaps.

    Args:
        scores: Normalised scores `[member, channel]`.
        quotas: How many channels each member keeps.
        lambda_overlap: Weight λ of the overlap, at least 0.
        patterns: The patterns allowed.

    Returns:
        Mask and upper bound, or None where no assignment was found within the limit.
    """
    channels = scores.shape[1]
    members, count = patterns.members.shape[1], len(patterns.members)
    pairs = patterns.pairs.shape[1]
    _, highest = overlap_range(quotas, channels, patterns.pairs)
    steps = np.concatenate([np.arange(1, most + 1) for most in highest])
    owner = np.repeat(np.arange(pairs), highest)
    one_each = kron(csr_array(np.eye(channels)), np.ones((1, count)))
    places = kron(np.ones((1, channels)), csr_array(patterns.members.T))
    overlaps = kron(np.ones((1, channels)), csr_array(patterns.features[:, members:].T))
    counted = coo_array((-np.ones(steps.size), (owner, np.arange(steps.size))), shape=(pairs, steps.size))
    matrix = block_array([[one_each, None], [places, None], [overlaps, counted]]).tocsr()
    right = np.concatenate([np.ones(channels), np.asarray(quotas, dtype=np.float64), np.zeros(pairs)])
    cost = np.concatenate([-(scores.T @ patterns.members.T).ravel(), lambda_overlap * (2 * steps - 1) / channels])
    result = milp(
        cost,
        integrality=np.concatenate([np.ones(channels * count), np.zeros(steps.size)]),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, right, right),
        options={"mip_rel_gap": 0.0, "node_limit": NODE_LIMIT},
    )
    if result.x is None:
        return None
    chosen = result.x[: channels * count].reshape(channels, count).argmax(axis=1)
    return np.ascontiguousarray(patterns.members[chosen].T > 0), -float(result.mip_dual_bound)
