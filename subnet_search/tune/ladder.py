"""The ladder of fidelities: cheap measurements decide which trials are worth the training.

Optuna's pruners judge by one objective. This is asynchronous successive halving (Li et al. 2020, "A System for Massively
Parallel Hyperparameter Tuning", algorithm 2, in the form that stops trials instead of pausing them) for any number: in
place of the one value stands the place in the non-dominated sorting, among equals the one in crowding distance (Deb et
al. 2002, sections III-A and III-B), as Schmucker et al. 2021 ("Multi-objective Asynchronous Successive Halving")
compare both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def epochs_of_rungs(epochs: int, rungs: Sequence[float]) -> list[int]:
    """Returns how many epochs each rung trains, from the beginning; the last is all of them.

    Args:
        epochs: Epochs of the trial in full.
        rungs: Growing shares of them, the last is 1.

    Returns:
        For each rung a number, never smaller than the one before; none after the first that is all epochs.
    """
    whole = [math.ceil(share * epochs - 1e-9) for share in rungs]
    return whole[: whole.index(epochs) + 1]


def goes_on(own: Sequence[float], others: Sequence[Sequence[float]], eta: int) -> bool:
    """Decides whether a trial is among the best 1 / eta of those that have reached its rung.

    Args:
        own: What the trial has reached there, lower is better.
        others: What the others have.
        eta: The reduction factor.

    Returns:
        True for at least one of any number, so that the first always goes on; equals go on together.
    """
    losses = np.array([own, *others], dtype=np.float64)
    return ahead(losses) < max(1, len(losses) // eta)


def ahead(losses: Array) -> int:
    """Returns how many rows of `[trial, objective]` come before the first one."""
    ranks = non_dominated_ranks(losses)
    peers = np.flatnonzero(ranks == ranks[0])  # the first trial is the first of them
    distances = crowding_distances(losses[peers])
    return int((ranks < ranks[0]).sum() + (distances > distances[0]).sum())


def non_dominated_ranks(losses: Array) -> NDArray[np.int64]:
    """Sorts trials into fronts: 0 for those that no other dominates, 1 for those that only these do, and so on.

    Args:
        losses: `[trial, objective]`, lower is better.

    Returns:
        int64 `[trial]`.
    """
    no_worse: NDArray[np.bool_] = np.all(losses[:, None] <= losses[None], axis=2)
    dominates: NDArray[np.bool_] = no_worse & ~no_worse.T
    ranks = np.full(len(losses), -1, dtype=np.int64)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        ranks[left & ~dominates[left].any(axis=0)] = rank
        rank += 1
    return ranks


def crowding_distances(losses: Array) -> Array:
    """Returns how far apart the neighbours of each trial are, added up over the objectives, each by its own range.

    Args:
        losses: Trials of one front, `[trial, objective]`.

    Returns:
        float64 `[trial]`; infinite at the ends of an objective. Of trials with the same values all are as crowded.
    """
    unique, inverse = np.unique(losses, axis=0, return_inverse=True)
    distances = np.zeros(len(unique))
    for column in unique.T:
        order = column.argsort(kind="stable")
        values = column[order]
        span = values[-1] - values[0]
        ends = (column == values[0]) | (column == values[-1])
        if span > 0:
            distances[order[1:-1]] += (values[2:] - values[:-2]) / span
            distances[ends] = np.inf
    found: Array = distances[inverse.reshape(-1)]
    return found
