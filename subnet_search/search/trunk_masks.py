"""Masks of a trunk, the same for all members: which of them are worth most to the members together."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping

import numpy as np
from torch import Tensor

from subnet_search.search.balanced import balanced
from subnet_search.search.config import SearchConfig
from subnet_search.search.overlap import Mask, normalise


def trunk_masks(
    scores: Mapping[str, Tensor] | None,
    widths: Mapping[str, int],
    quotas: Mapping[str, tuple[int, ...]],
    groups: Collection[str],
    config: SearchConfig,
) -> dict[str, Mask]:
    """Decides which channels of the named groups stay, the same for all members.

    What is in a trunk is computed once, so that sharing costs nothing there and is no question: this is the pruning of
    one network, by the mean of what a channel is worth to each member.

    Args:
        scores: Group → relevance `[member, channel]`, normalised here; None draws the channels by lot.
        widths: Group → number of channels.
        quotas: Group → number of channels that each member keeps, the same for all.
        groups: Names of the groups.
        config: Its seed draws the lots.

    Returns:
        Group → bool `[member, channel]` with equal rows.
    """
    masks: dict[str, Mask] = {}
    for name in groups:
        members, kept = len(quotas[name]), quotas[name][0]
        if scores is None:
            rng = np.random.default_rng([config.seed, 0, zlib.crc32(name.encode())])
            row = balanced(widths[name], (kept,), rng)[0]
        else:
            values = normalise(scores[name].detach().cpu().double().numpy()).mean(axis=0)
            row = np.zeros(widths[name], dtype=np.bool_)
            row[np.argsort(-values, kind="stable")[:kept]] = True
        masks[name] = np.tile(row, (members, 1))
    return masks
