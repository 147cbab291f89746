"""What a network is worth that may refuse: risk against coverage, and the detection of its own errors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.ranking import auroc


def aurc(confidence: Tensor, errors: Tensor) -> float:
    """Area under the risk-coverage curve: the mean over n of the error rate among the n most confident samples.

    Geifman et al. (2019). Where confidences tie the result is the exact expectation over all orders
    of the tied samples: of a tie with error rate e, the first j samples bring j · e errors.

    Args:
        confidence: Finite, `[sample]`, higher = more certain.
        errors: bool `[sample]`, true where the prediction is wrong.

    Returns:
        In [0, 1], lower is better.

    Raises:
        SubnetSearchError: for wrong shapes, no samples or confidences that are not finite; so do all figures here.
    """
    return float(np.mean(expected_risks(confidence, errors)))


def expected_risks(confidence: Tensor, errors: Tensor) -> NDArray[np.float64]:
    """The risk-coverage curve: the error rate among the n most confident samples, for every n.

    Its mean is `aurc`, which says what ties do. Arguments as there.

    Returns:
        `[sample]`, for n = 1 to the number of samples, each in [0, 1].
    """
    sizes, wrong = _by_confidence(confidence, errors)
    position = np.arange(1, sizes.sum() + 1)
    before = np.repeat(np.cumsum(sizes) - sizes, sizes)
    expected = np.repeat(np.cumsum(wrong) - wrong, sizes) + (position - before) * np.repeat(wrong / sizes, sizes)
    return np.asarray(expected / position)


def augrc(confidence: Tensor, errors: Tensor) -> float:
    """Area under the generalised risk-coverage curve: the mean risk of undetected failures (Traub et al. 2024).

    The generalised risk at a threshold is the share of *all* samples that are accepted and wrong. The
    curve starts at (0, 0), has one point for each distinct confidence and straight lines between them, which is
    the expectation over the orders of tied samples. Equal to (1 − AUROC of error detection) · acc · (1 − acc) +
    (1 − acc)² / 2. Arguments as in `aurc`.

    Returns:
        In [0, 1/2], lower is better.
    """
    sizes, wrong = _by_confidence(confidence, errors)
    samples = sizes.sum()
    coverage = np.concatenate([[0.0], np.cumsum(sizes) / samples])
    risk = np.concatenate([[0.0], np.cumsum(wrong) / samples])
    return float(trapezoid(risk, coverage))


def coverage_at_risk(confidence: Tensor, errors: Tensor, risk: float = 0.05) -> float:
    """The largest share of samples that can be accepted with an error rate of at most `risk`.

    Only what a threshold can do counts: samples of equal confidence are accepted or refused together. Arguments
    as in `aurc`.

    Returns:
        In [0, 1], higher is better; 0 where no threshold keeps the risk.
    """
    sizes, wrong = _by_confidence(confidence, errors)
    accepted = np.cumsum(sizes)
    kept = np.cumsum(wrong) <= risk * accepted + 1e-9  # the tolerance lets exactly 1 error in 20 be 5 %
    return float(np.max(accepted, where=kept, initial=0) / sizes.sum())


def error_auroc(confidence: Tensor, errors: Tensor) -> float | None:
    """AUROC of telling wrong (positive) from right predictions by low confidence (Hendrycks and Gimpel 2017).

    Arguments as in `aurc`.

    Returns:
        In [0, 1], higher is better; None where all predictions are right, or all are wrong.
    """
    _by_confidence(confidence, errors)
    return auroc(-confidence, errors)


def _by_confidence(confidence: Tensor, errors: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of samples and of errors at each distinct confidence, from the highest down."""
    if confidence.ndim != 1 or confidence.shape != errors.shape or errors.dtype != torch.bool or len(errors) == 0:
        raise SubnetSearchError(
            f"got confidence {tuple(confidence.shape)} and errors {errors.dtype} {tuple(errors.shape)}, expected [sample] and bool [sample], at least one"
        )
    if not bool(torch.isfinite(confidence).all()):
        raise SubnetSearchError(
            f"{int((~torch.isfinite(confidence)).sum())} of {len(errors)} confidences are not finite"
        )
    _, place, sizes = torch.unique(-confidence, sorted=True, return_inverse=True, return_counts=True)
    wrong = torch.bincount(place[errors], minlength=len(sizes))
    return sizes.cpu().numpy(), wrong.cpu().numpy()
