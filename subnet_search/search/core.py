"""A core of the most relevant channels that all members share; the rest is drafted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subnet_search.search.draft import draft
from subnet_search.search.overlap import Mask, Scores


def core_size(channels: int, quotas: Sequence[int], share: float, cover: bool) -> int:
    """Returns the number of channels in the core: `share` of the smallest quota, rounded.

    Args:
        channels: Width C of the group.
        quotas: How many channels each member keeps.
        share: Share of the quota that is shared by all, in [0, 1].
        cover: Shrink the core until what is left of the quotas covers the other channels, where they can at all.
    """
    size = int(share * min(quotas) + 0.5)
    if cover and sum(quotas) >= channels and len(quotas) > 1:
        # the drafted channels must suffice: Σ q − K·n ≥ C − n
        size = min(size, (sum(quotas) - channels) // (len(quotas) - 1))
    return size


def core(scores: Scores, quotas: Sequence[int], share: float, first: int = 0, cover: bool = False) -> Mask:
    """Gives all members the channels of the highest mean relevance and drafts the others.

    Args:
        scores: `[member, channel]` on one scale for all members.
        quotas: How many channels each member keeps, from 1 to the width.
        share: Share of the smallest quota that lies in the core, in [0, 1].
        first: The member that has the first turn in the draft.
        cover: Shrink the core where the members could not use all channels otherwise.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    members, channels = scores.shape
    size = core_size(channels, quotas, share, cover)
    ranked = np.argsort(-scores.mean(axis=0), kind="stable")
    mask = np.zeros((members, channels), dtype=np.bool_)
    mask[:, ranked[:size]] = True
    if size < channels:
        rest = np.sort(ranked[size:])
        mask[:, rest] = draft(scores[:, rest], [quota - size for quota in quotas], first)
    return mask
