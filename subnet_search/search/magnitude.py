"""Pruning by weight magnitude, as a control."""

from __future__ import annotations

from collections.abc import Sequence

from subnet_search.search.draft import draft
from subnet_search.search.overlap import Mask, Scores


def magnitude(scores: Scores, quotas: Sequence[int], first: int = 0) -> Mask:
    """Drafts channels by the magnitude of their weights.

    Magnitudes are the same for all members (they share the weights), so the textbook rule "keep the largest" would
    make K identical members, which are useless as an ensemble. This control is therefore the draft of
    `subnet_search.search.draft` with magnitudes for scores: what relevance adds to the draft is its difference.

    Args:
        scores: Norms of each channel's weights `[member, channel]`.
        quotas: How many channels each member keeps, from 1 to the width.
        first: The member that has the first turn.

    Returns:
        bool `[member, channel]`, member k with exactly `quotas[k]` channels.
    """
    return draft(scores, quotas, first)
