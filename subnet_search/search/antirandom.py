"""Complement pairs (Whitaker & Whitley 2022), as a control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subnet_search.search.overlap import Mask


def antirandom(channels: int, quotas: Sequence[int], rng: np.random.Generator, cover: bool = False) -> Mask:
    """Draws masks in pairs: the second takes what the first left out.

    "Prune and Tune Ensembles" (Whitaker & Whitley, AAAI 2022), section on anti-random pruning: members 2i and 2i + 1
    are complements at half of the channels. With other quotas two partners overlap as little as the width allows, in
    max(0, q + q' − C) channels; different pairs are independent. With an odd K the last member has no partner.

    Args:
        channels: Width of the group.
        quotas: How many channels each member keeps, from 0 to `channels`.
        rng: Source of randomness.
        cover: Let each pair start with the channels that no earlier pair uses, so that all channels are used where
            the quotas add up to the width.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    mask = np.zeros((len(quotas), channels), dtype=np.bool_)
    for start in range(0, len(quotas), 2):
        order = rng.permutation(channels)
        if cover:
            used = np.logical_or.reduce(mask, axis=0)
            order = order[np.argsort(used[order], kind="stable")]
        position = 0
        for member in range(start, min(start + 2, len(quotas))):
            places = np.arange(position, position + quotas[member]) % channels
            mask[member, order[places]] = True
            position += quotas[member]
    return mask
