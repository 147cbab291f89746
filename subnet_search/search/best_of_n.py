"""The best of several random mask sets, as a control."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet


def best_of_n(candidates: Sequence[MaskSet], measure: Callable[[MaskSet], float]) -> tuple[MaskSet, list[float]]:
    """Chooses the mask set that measures best; any search that claims a gain has to beat it.

    Args:
        candidates: The mask sets, at least one.
        measure: Gives a mask set's loss after the norms were recalibrated, lower is better. NaN counts as infinitely
            bad.

    Returns:
        The first of the best, and all measurements in order.

    Raises:
        SubnetSearchError: where no candidate has a finite measurement.
    """
    values = [float(measure(candidate)) for candidate in candidates]
    ranked = [value if math.isfinite(value) else math.inf for value in values]
    best = min(ranked)
    if math.isinf(best):
        raise SubnetSearchError(
            f"best-of-n: none of {len(values)} candidates has a finite measurement (got {values}); check the images and the weights for NaN"
        )
    return candidates[ranked.index(best)], values
