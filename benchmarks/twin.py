"""The shuffled twin of a search, as a run of its own: the same masks on channels drawn by lot."""

from __future__ import annotations

from subnet_search.pipeline import RunResult
from subnet_search.search import shuffled


def take_twin(result: RunResult, seed: int) -> None:
    """Puts the shuffled twin of a run's masks in their place, before anything is trained.

    Args:
        result: Of a run until `search`; one that has its twin already stays as it is.
        seed: Seed of the lot.
    """
    assert result.masks is not None
    if not result.masks.algorithm.endswith("+shuffled"):
        result.folder.save_masks(shuffled(result.masks, seed))
