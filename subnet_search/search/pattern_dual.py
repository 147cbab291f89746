"""The Lagrangian dual of the assignment: prices, a bound that no assignment exceeds, and a nearly integral optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnet_search.search.overlap import Scores
from subnet_search.search.patterns import Floats, Patterns, overlap_range

COLDEST = 0.001  # last temperature, for scores with mean 1
COOLING = 0.316  # from one temperature to the next
NEWTON_STEPS = 30  # at most, for each temperature; 2 to 5 are usual
BACKTRACKS = 30


@dataclass(frozen=True)
class DualSolution:
    """What the dual tells.

    Attributes:
        bound: No assignment has a larger objective.
        probabilities: How much of each channel goes to each pattern in the (smoothed) relaxation, `[channel, pattern]`.
    """

    bound: float
    probabilities: Floats


@dataclass(frozen=True)
class _State:
    """The smoothed dual at one point."""

    theta: Floats
    value: float
    hard: float
    probabilities: Floats


def solve_dual(scores: Scores, quotas: Sequence[int], lambda_overlap: float, patterns: Patterns) -> DualSolution:
    """Minimises the dual function by Newton's method on a smoothed sequence.

    With a price μ_k for each place of member k and π_kl for each channel that k and l share, channels no longer
    depend on each other: each takes its best pattern S. For all prices

        Σ_c max_S [ Σ_{k∈S} (R[k, c] − μ_k) − Σ_{k<l∈S} π_kl ] + Σ_k μ_k q_k + Σ_{k<l} max_o [π_kl·o − λ·o²/C]

    is an upper bound (weak duality; Geoffrion 1974). There are only K + K(K − 1)/2 prices, so the linear relaxation
    has few fractional channels (Shapley–Folkman) and the bound is tight for wide groups. The maximum is smoothed by
    temperature · log Σ exp, which also shares out ties, and the temperature falls step by step.

    Args:
        scores: Normalised scores `[member, channel]`.
        quotas: How many channels each member keeps.
        lambda_overlap: Weight λ of the overlap, above 0.
        patterns: The patterns allowed.

    Returns:
        The best bound met (with overlaps restricted to whole numbers that can occur), and the last probabilities.
    """
    members, channels = scores.shape
    features = patterns.features
    worth = scores.T @ patterns.members.T
    demand = np.zeros(features.shape[1])
    demand[:members] = quotas
    curvature = np.zeros(features.shape[1])
    curvature[members:] = channels / (2 * lambda_overlap)
    # overlaps of independent masks are a good first guess
    quota = np.asarray(quotas, dtype=np.float64)
    theta = np.zeros(features.shape[1])
    expected = quota[patterns.pairs[0]] * quota[patterns.pairs[1]] / channels
    theta[members:] = 2 * lambda_overlap * expected / channels
    theta[:members] = [np.quantile(row, 1 - q / channels) for row, q in zip(scores, quotas, strict=True)]

    def evaluate(theta: Floats, temperature: float) -> _State:
        """Value of the smoothed and the hard dual, and the patterns' probabilities."""
        probabilities = worth - features @ theta
        peak = probabilities.max(axis=1)
        probabilities -= peak[:, None]
        probabilities /= temperature
        np.exp(probabilities, out=probabilities)
        total = probabilities.sum(axis=1)
        probabilities /= total[:, None]
        smooth = float(theta @ demand + 0.5 * (curvature * theta**2).sum() + (peak + temperature * np.log(total)).sum())
        bound = float(theta[:members] @ quota + peak.sum()) + _conjugate(
            theta[members:], quotas, lambda_overlap, channels, patterns
        )
        return _State(theta, smooth, bound, probabilities)

    bound = np.inf
    # prices are of the size of λ: a start that is cold beside them would be hard to leave
    hottest = max(1.0, lambda_overlap) / 3
    for level in range(math.ceil(math.log(COLDEST / hottest) / math.log(COOLING)) + 1):
        temperature = max(COLDEST, hottest * COOLING**level)
        state = evaluate(theta, temperature)
        for _ in range(NEWTON_STEPS):
            bound = min(bound, state.hard)
            used = state.probabilities.sum(axis=0)
            gradient = demand + curvature * theta - used @ features
            # a whole channel is the unit of the answer: a quarter of one is accurate enough
            if np.abs(gradient).max() < 0.25:
                break
            mean = state.probabilities @ features
            hessian = ((features.T * used) @ features - mean.T @ mean) / temperature + np.diag(curvature)
            hessian[np.diag_indices_from(hessian)] += 1e-9 * channels / temperature
            step = -np.linalg.solve(hessian, gradient)
            slope = float(gradient @ step)
            length = 1.0
            for _ in range(BACKTRACKS):
                following = evaluate(theta + length * step, temperature)
                if following.value <= state.value + 1e-4 * length * slope + 1e-12 * abs(state.value):
                    break
                length /= 2
            else:
                break
            state, theta = following, following.theta
        bound = min(bound, state.hard)
    return DualSolution(bound, state.probabilities)


def _conjugate(
    prices: Floats, quotas: Sequence[int], lambda_overlap: float, channels: int, patterns: Patterns
) -> float:
    """Σ over pairs of max_o [π·o − λ·o²/C] over the whole overlaps that can occur."""
    lowest, highest = overlap_range(quotas, channels, patterns.pairs)
    best = prices * channels / (2 * lambda_overlap)
    # the maximum of a concave function over integers is beside that over the reals
    candidates = [np.clip(np.floor(best), lowest, highest), np.clip(np.ceil(best), lowest, highest)]
    values = [prices * o - lambda_overlap * o**2 / channels for o in candidates]
    return float(np.maximum(*values).sum())
