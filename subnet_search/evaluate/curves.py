"""Curves behind two of the figures, for drawing: what the ECE and the AURC sum up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.answers import Answers
from subnet_search.evaluate.calibration import bins_of
from subnet_search.evaluate.classification import check
from subnet_search.evaluate.outputs import Outputs
from subnet_search.evaluate.selective import expected_risks


@dataclass(frozen=True)
class Reliability:
    """How often predictions of some confidence are right (DeGroot and Fienberg 1983), in bins of equal width of [0, 1].

    Attributes:
        count: Number of samples in each bin.
        confidence: Mean probability of the predicted class, in [0, 1]; None in an empty bin.
        accuracy: Share of right predictions, in [0, 1]; None in an empty bin.
    """

    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


@dataclass(frozen=True)
class RiskCoverage:
    """What refusing the least confident samples is worth (El-Yaniv and Wiener 2010).

    Attributes:
        coverage: Share of the samples that are accepted, rising, in (0, 1]; the last is 1.
        risk: Error rate among them, in [0, 1].
    """

    coverage: list[float]
    risk: list[float]


def reliability(outputs: Outputs | Answers) -> Reliability:
    """Draws the averaged probabilities against the truth, in the 15 bins of `cal/ECE`.

    The mean of |accuracy − confidence|, weighted with the counts, is the ECE.

    Args:
        outputs: Labelled samples.

    Returns:
        The 15 bins, from the lowest confidence up.

    Raises:
        SubnetSearchError: where there are no samples or a label is outside the classes.
    """
    certainty, errors = _confidence(outputs)
    samples, confidence, right = (part.tolist() for part in bins_of(certainty, ~errors))
    return Reliability(
        count=samples,
        confidence=[total / n if n else None for total, n in zip(confidence, samples, strict=True)],
        accuracy=[hits / n if n else None for hits, n in zip(right, samples, strict=True)],
    )


def risk_coverage(outputs: Outputs | Answers, points: int = 50) -> RiskCoverage:
    """Draws the error rate of the averaged probabilities against the share of samples that are not refused.

    Confidence is the largest mean probability, as in `sc/AURC`, and ties are treated as there; with at least as many
    points as samples the mean of `risk` is the AURC.

    Args:
        outputs: Labelled samples.
        points: Most points of the curve, at equal steps of coverage up to the next whole sample.

    Returns:
        At most `points` points, and no more than samples.

    Raises:
        SubnetSearchError: where `points` is less than 1, there are no samples or a label is outside the classes.
    """
    if points < 1:
        raise SubnetSearchError(f"risk-coverage curve: points is {points}, expected at least 1")
    risks = expected_risks(*_confidence(outputs))
    samples = len(risks)
    accepted = np.unique(-(-np.arange(1, points + 1) * samples // points))  # rounded up, in integers
    return RiskCoverage((accepted / samples).tolist(), risks[accepted - 1].tolist())


def _confidence(outputs: Outputs | Answers) -> tuple[Tensor, Tensor]:
    """Probability of the predicted class, `[sample]`, and whether it is wrong, bool `[sample]`."""
    if isinstance(outputs, Answers):
        return outputs.confidence, outputs.errors
    probabilities = decompose(outputs.member_probabilities).probabilities
    check(probabilities, outputs.labels)
    confidence, predicted = probabilities.max(dim=1)
    return confidence, predicted != outputs.labels
