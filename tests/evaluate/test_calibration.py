"""Calibration error by hand, and temperatures that are known beforehand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subnet_search.evaluate.calibration import bins_of, expected_calibration_error, fit_temperature, scale
from subnet_search.evaluate.classification import negative_log_likelihood


def binary(confidences: list[float]) -> Tensor:
    first = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([first, 1 - first], dim=1)


def naive_ece(probabilities: Tensor, labels: Tensor, bins: int) -> float:
    """The definition, bin by bin: closed below, the last one closed on both sides."""
    confidence, predicted = (part.numpy() for part in probabilities.max(dim=1))
    right = predicted == labels.numpy()
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(
        abs(right[place == b].sum() - confidence[place == b].sum()) for b in range(bins) if (place == b).any()
    ) / len(right)


def test_two_bins_by_hand() -> None:
    # at 0.9 one of two is right (gap 0.4), at 0.62 both are (gap 0.38)
    labels = torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(binary([0.9, 0.9, 0.62, 0.62]), labels) == pytest.approx(0.39, abs=1e-6)


def test_gaps_of_one_bin_cancel() -> None:
    # both in [13/15, 14/15): accuracy 1/2, confidence 0.9; their own gaps, 0.12 and 0.92, do not count
    assert expected_calibration_error(binary([0.88, 0.92]), torch.tensor([0, 1])) == pytest.approx(0.4, abs=1e-6)


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    # in one bin: |1/2 − 0.975|; torchmetrics alone would give 1.0 a sixteenth bin, and 0.525
    assert expected_calibration_error(binary([1.0, 0.95]), torch.tensor([1, 0])) == pytest.approx(0.475, abs=1e-6)


def test_bins_by_hand() -> None:
    # bins of a half: 0.5 belongs to the upper one, and so does what rounding left above 1
    labels = torch.tensor([0, 0, 1, 0])
    probabilities = torch.tensor(
        [[0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.75, 0.25, 0.0], [1.0 + 1e-12, 0.0, 0.0]]
    ).double()
    top, predicted = probabilities.max(dim=1)
    samples, confidence, right = bins_of(top, predicted == labels, 2)
    assert (samples.tolist(), right.tolist()) == ([1, 3], [1, 2])
    assert confidence.tolist() == pytest.approx([0.4, 2.25])


def test_rounding_above_one_is_no_logit() -> None:
    probabilities = torch.tensor([[1.0 + 1e-12, 0.0]], dtype=torch.float64)
    assert expected_calibration_error(probabilities, torch.tensor([0])) == pytest.approx(0.0, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), bins=st.integers(1, 20))
def test_equals_its_naive_twin(seed: int, bins: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(200, 5, generator=generator, dtype=torch.float64)).softmax(dim=1)
    labels = torch.randint(0, 5, (200,), generator=generator)
    ours = expected_calibration_error(probabilities, labels, bins)
    assert ours == pytest.approx(naive_ece(probabilities, labels, bins), abs=1e-5)


def test_temperature_by_hand() -> None:
    # logits ±log 3 (p = 3/4) with 90 % right: the best is p = 0.9, so T = log 3 / log 9 = 1/2
    labels = torch.tensor([0] * 9 + [1])
    assert fit_temperature(binary([0.75] * 10), labels) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("known", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_recovered(known: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    overconfident = (logits * known).softmax(dim=1)
    assert fit_temperature(overconfident, labels) == pytest.approx(known, rel=0.03)


def test_scaling_undoes_itself_and_keeps_the_ranking() -> None:
    probabilities = torch.randn(30, 6, generator=torch.Generator().manual_seed(1)).double().softmax(dim=1)
    there = scale(probabilities, 3.0)
    torch.testing.assert_close(scale(there, 1 / 3.0), probabilities)
    assert torch.equal(there.argmax(dim=1), probabilities.argmax(dim=1))
    torch.testing.assert_close(scale(probabilities, 1.0), probabilities)


def test_scaling_one_network_is_scaling_its_logits() -> None:
    logits = 5 * torch.randn(10, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(scale(logits.softmax(dim=1), 2.0), (logits / 2).softmax(dim=1))


def test_without_errors_the_temperature_stops_at_its_bound() -> None:
    assert fit_temperature(binary([0.6, 0.7]), torch.tensor([0, 0])) == pytest.approx(0.05, rel=0.01)


def test_a_fitted_temperature_is_never_worse_where_it_was_fitted() -> None:
    generator = torch.Generator().manual_seed(3)
    probabilities = (4 * torch.randn(500, 3, generator=generator)).softmax(dim=1)
    probabilities[0] = torch.tensor([1.0, 0.0, 0.0])  # an underflow
    labels = torch.randint(0, 3, (500,), generator=generator)
    labels[0] = 1
    scaled = scale(probabilities, fit_temperature(probabilities, labels))
    after = negative_log_likelihood(scaled, labels)
    assert math.isfinite(after)
    assert after < negative_log_likelihood(probabilities, labels)
