"""Patterns: the sets of members that may share one channel, and what such a set is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Patterns:
    """All sets S of members to which a channel can be given.

    Attributes:
        members: Membership, 0 or 1, float64 `[pattern, member]`.
        features: Membership, then for each pair k < l whether both are in S, float64 `[pattern, member + pair]`.
        pairs: The pairs (k, l) in the order of the features, int64 `[2, pair]`.
    """

    members: Floats
    features: Floats
    pairs: NDArray[np.int64]


def make_patterns(quotas: Sequence[int], channels: int, cover: bool) -> Patterns:
    """Lists the patterns, at most 2^K.

    Args:
        quotas: How many channels each member keeps; one that keeps all is in every pattern.
        channels: Width of the group.
        cover: Leave out the empty pattern (only where the quotas add up to the width; elsewhere it is needed).
    """
    count = len(quotas)
    numbers = np.arange(2**count)
    members = (numbers[:, None] >> np.arange(count)[None]) & 1
    allowed = np.ones(len(numbers), dtype=np.bool_)
    for member, quota in enumerate(quotas):
        if quota == channels:
            allowed &= members[:, member] == 1
    if cover and sum(quotas) >= channels:
        allowed &= members.any(axis=1)
    chosen = members[allowed].astype(np.float64)
    pairs = np.array(np.triu_indices(count, k=1), dtype=np.int64)
    both = chosen[:, pairs[0]] * chosen[:, pairs[1]]
    return Patterns(chosen, np.concatenate([chosen, both], axis=1), pairs)


def overlap_range(
    quotas: Sequence[int], channels: int, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the smallest and the largest overlap that each pair can have, int64 `[pair]` each."""
    quota = np.asarray(quotas, dtype=np.int64)
    first, second = quota[pairs[0]], quota[pairs[1]]
    return np.maximum(0, first + second - channels), np.minimum(first, second)
