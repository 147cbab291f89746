"""Hypervolume: how much of the objectives' space a set of points dominates, the one figure of a whole front.

Optuna computes it too, but not in public: its public function draws it. The tests compare the two.

Zitzler and Thiele 1998, "Multiobjective Optimization Using Evolutionary Algorithms"; by slices: While et al. 2006, "A
Faster Algorithm for Calculating Hypervolume".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subnet_search.errors import SubnetSearchError

Array = NDArray[np.float64]


def hypervolume(points: Array, reference: Array) -> float:
    """Returns the volume between the points and a reference point, exactly.

    Args:
        points: `[point, objective]`, lower is better in every column. A point that is not below the reference in every
            objective adds nothing.
        reference: `[objective]`, the worst that counts.

    Returns:
        The volume, at least 0, in the product of the objectives' units.

    Raises:
        SubnetSearchError: where the shapes do not fit or a value is not finite.
    """
    points, reference = np.asarray(points, dtype=float), np.asarray(reference, dtype=float)
    if points.ndim != 2 or reference.shape != points.shape[1:] or not len(reference):
        raise SubnetSearchError(
            f"hypervolume: got points of shape {points.shape} and a reference of shape {reference.shape}, expected "
            "[point, objective] and [objective]"
        )
    if not (np.isfinite(points).all() and np.isfinite(reference).all()):
        raise SubnetSearchError("hypervolume: a point or the reference is not finite; leave such points out")
    return _volume(points, reference)


def hypervolume_history(points: Sequence[Array | None], reference: Array) -> Array:
    """Returns the hypervolume after each trial.

    Args:
        points: For each trial its objectives, `[objective]`, lower is better; None for a trial that counts as spent
            but has no say, because it stopped early or is not feasible.
        reference: As for `hypervolume`.

    Returns:
        `[trial]`, never falling.
    """
    volumes: list[float] = []
    front = np.empty((0, len(reference)))
    for point in points:
        if point is not None and not (front <= point).all(axis=1).any():
            front = np.vstack([front[(front < point).any(axis=1)], point])
            volumes.append(hypervolume(front, reference))
        else:
            volumes.append(volumes[-1] if volumes else 0.0)
    return np.array(volumes)


def _volume(points: Array, reference: Array) -> float:
    """Adds up slices along the last objective; in each, the points below it dominate what they do without it."""
    points = points[(points < reference).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - points.min())
    points = points[points[:, -1].argsort(kind="stable")]
    thick = np.diff(np.append(points[:, -1], reference[-1]))
    return sum(
        float(thick[k]) * _volume(points[: k + 1, :-1], reference[:-1]) for k in range(len(points)) if thick[k] > 0
    )
