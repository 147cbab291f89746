"""From which score on an image is refused: a limit that most images like those of the training keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from subnet_search.ensemble.uncertainty import Uncertainty, decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import SCORES, Score, limit_key
from subnet_search.evaluate.outputs import Outputs

ANSWERED = 0.95
"""Share of held-out images that keep a limit."""
LEAST: frozenset[Score] = frozenset({"max_probability"})
"""Scores of which more is better: images below the limit are refused, of all others those above it."""


def limits(outputs: Outputs, answered: float = ANSWERED) -> Mapping[str, float | None]:
    """Computes the limit of each score of `keys.SCORES` on images that the network has not seen.

    Args:
        outputs: What the members say of images like those that will be asked about; labels are not used.
        answered: Share of them that is to keep the limit, in (0, 1].

    Returns:
        Score → limit, half-way between the last image that keeps it and the next, so that rounding moves none of them
        across; None of the mutual information with one member, and of the energy where only probabilities are known.

    Raises:
        SubnetSearchError: where there are no images, the share is something else, or a score is not finite.
    """
    if not 0.0 < answered <= 1.0 or len(outputs.labels) == 0:
        raise SubnetSearchError(
            f"limits: got a share of {answered} of {len(outputs.labels)} images, expected one in (0, 1] of at least one image"
        )
    parts = decompose(outputs.member_probabilities)
    found: dict[str, float | None] = {}
    for name in SCORES:
        scores: Tensor | None = outputs.energy if name == "energy" else getattr(parts, name)
        if scores is None or (name == "epistemic" and outputs.members == 1):
            found[name] = None
            continue
        if not bool(scores.isfinite().all()):
            raise SubnetSearchError(f"limits: {name} is NaN or infinite for some images, expected finite scores")
        ordered = scores.double().sort(descending=name in LEAST).values
        kept = math.ceil(answered * len(ordered))
        found[name] = float(ordered[kept - 1 : kept + 1].mean())
    return MappingProxyType(found)


def known_limits(metrics: Mapping[str, float | None], scores: Sequence[str] | None = None) -> dict[str, float]:
    """Returns the limits that are among the figures of a network, by score.

    Args:
        metrics: The figures, such as those of `export.read_manifest`.
        scores: Those that are asked for; None for all that there are.

    Returns:
        Score → limit.

    Raises:
        SubnetSearchError: where there is no limit of a score that was asked for by name.
    """
    found: dict[str, float] = {name: value for name in SCORES if (value := metrics.get(limit_key(name))) is not None}
    if scores is None:
        return found
    if missing := [score for score in scores if score not in found]:
        known = f"expected some of {', '.join(found)}" if found else "none are known"
        raise SubnetSearchError(
            f"the network has no limit of {', '.join(missing)}, {known}; evaluate its run again, with test images beside the validation images"
        )
    return {score: found[score] for score in scores}


def refused(uncertainty: Uncertainty, score: str, limit: float) -> Tensor:
    """Tells which images are beyond a limit.

    Args:
        uncertainty: What the network said.
        score: One of `keys.SCORES`.
        limit: Its limit.

    Returns:
        bool `[batch]`; true where a score is NaN.

    Raises:
        SubnetSearchError: where there is no such score.
    """
    if score not in SCORES:
        raise SubnetSearchError(f"there is no score {score!r} to refuse images by, expected one of {', '.join(SCORES)}")
    values: Tensor | None = getattr(uncertainty, score)
    if values is None:
        raise SubnetSearchError(
            f"{score} is not known of probabilities alone; take what `predict` or `uncertainty_of` returns"
        )
    return ~(values >= limit if score in LEAST else values <= limit)
