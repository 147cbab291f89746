"""Whether the stated confidence is the observed accuracy, before and after temperature scaling."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from subnet_search.evaluate.classification import SMALLEST, check

BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below 1: torchmetrics puts a confidence of exactly 1 in a bin of its own."""

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature: on a validation set without errors the likelihood would drive it to 0."""

BINS = 15
"""Bins of the confidence in [0, 1], as usual since Guo et al. (2017)."""


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean over the samples of |accuracy − confidence| of their bin, top label (Guo et al. 2017, eq. 3).

    Computed by torchmetrics, in float32, over the bins of `bins_of`.

    Args:
        probabilities: `[sample, class]`.
        labels: int64 `[sample]`.
        bins: Number of bins.

    Returns:
        In [0, 1], lower is better.

    Raises:
        SubnetSearchError: for wrong shapes, no samples or labels outside the classes.
    """
    check(probabilities, labels)
    inside = probabilities.clamp(0.0, BELOW_ONE)  # outside [0, 1], by rounding, torchmetrics would take a softmax
    error = multiclass_calibration_error(inside, labels, probabilities.shape[1], bins, "l1", validate_args=False)
    return float(error)


def bins_of(
    confidence: Tensor, right: Tensor, bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Sorts samples by their confidence: what torchmetrics sums up to an ECE and does not hand out.

    The bins have equal width and are closed below, the last one on both sides: [0, 1/15), ..., [14/15, 1].

    Args:
        confidence: Probability of the top label, `[sample]`.
        right: Whether that label is right, bool `[sample]`.
        bins: Number of bins.

    Returns:
        For each bin, `[bin]`: the number of samples, the sum of their confidences, and how many of them are right.
    """
    inside = confidence.cpu().double().clamp(0.0, 1.0).numpy()  # rounding may leave [0, 1], where nothing is counted
    hit = right.cpu().numpy()
    samples, _ = np.histogram(inside, bins, (0.0, 1.0))
    total, _ = np.histogram(inside, bins, (0.0, 1.0), weights=inside)
    hits, _ = np.histogram(inside[hit], bins, (0.0, 1.0))
    return samples, total, hits


def scale(probabilities: Tensor, temperature: float) -> Tensor:
    """Returns softmax(log p / T), float64 `[sample, class]`: for one network that is softmax(logits / T)."""
    return torch.softmax(probabilities.double().clamp(min=SMALLEST).log() / temperature, dim=1)


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """Finds the temperature of the averaged probabilities that has the least NLL (Guo et al. 2017).

    The ensemble's averaged probabilities are scaled, not the members' logits ("pool, then calibrate": Rahaman and
    Thiery 2021). The NLL is convex in 1 / T, so the bounded scalar search on log T finds the one minimum.

    Args:
        probabilities: `[sample, class]` on validation data, never on the test set.
        labels: int64 `[sample]`.

    Returns:
        T in [0.05, 20]: above 1 where the network is overconfident.

    Raises:
        SubnetSearchError: for wrong shapes, no samples or labels outside the classes.
    """
    check(probabilities, labels)
    logits = probabilities.double().clamp(min=SMALLEST).log()

    def loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), labels))

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))
