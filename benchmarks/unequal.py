"""Members of unequal sizes at the same cost, as a run of its own: a large one, a small one, and two between."""

from __future__ import annotations

from collections.abc import Sequence

from subnet_search.pipeline import RunResult
from subnet_search.search import search_masks

SHARES = (0.4, 0.3, 0.2, 0.1)
"""What each of four members has of the channels that equal ones have together."""


def take_unequal(result: RunResult) -> None:
    """Puts masks of unequal widths, searched in the same way, in the place of a run's masks, before anything is trained.

    What all members keep whole stays; for whole trunks. The cost stays where it is linear in the widths, inside blocks, and
    where members keep little: what the largest cannot hold is lost.

    Args:
        result: Of a run of four members until `search`; one whose members are unequal already stays as it is.
    """
    assert result.masks is not None
    widths = result.masks.widths
    if any(len(set(kept)) > 1 for kept in widths.values()):
        return
    sizes = {name: mask.shape[1] for name, mask in result.masks.masks.items()}
    quotas = {name: unequal(kept, sizes[name]) if kept[0] < sizes[name] else kept for name, kept in widths.items()}
    relevance = result.folder.relevance()
    config = result.folder.config()
    scores = None if relevance is None else relevance.scores
    result.folder.save_masks(search_masks(scores, sizes, quotas, config.seeded("search")))


def unequal(kept: Sequence[int], size: int) -> tuple[int, ...]:
    """Deals the channels that members keep out in unequal parts, of at least one and at most all channels each."""
    total = sum(kept)
    parts = [min(size, max(1, round(share * total))) for share in SHARES]
    parts[0] = min(size, parts[0] + total - sum(parts))
    return tuple(parts)
