"""Curves against the figures that sum them up."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.curves import Reliability, RiskCoverage, reliability, risk_coverage
from subnet_search.evaluate.figures import prediction_figures
from subnet_search.evaluate.outputs import Outputs


def outputs(samples: int, seed: int, levels: int = 1000) -> Outputs:
    """Three members; with few levels of probability many confidences tie."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randint(1, levels, (3, samples, 4), generator=generator).float()
    return Outputs(parts / parts.sum(dim=2, keepdim=True), torch.randint(0, 4, (samples,), generator=generator))


def two_classes(confidences: list[float], right: list[bool]) -> Outputs:
    first = torch.tensor(confidences, dtype=torch.float64)
    return Outputs(torch.stack([first, 1 - first], dim=1)[None], (~torch.tensor(right)).long())


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 200), seed=st.integers(0, 2**31))
def test_the_weighted_gap_is_the_calibration_error(samples: int, seed: int) -> None:
    given_outputs = outputs(samples, seed)
    curve = reliability(given_outputs)
    filled = [cell for cell in zip(curve.count, curve.confidence, curve.accuracy, strict=True) if cell[0]]
    gap = sum(count * abs(accuracy - confidence) for count, confidence, accuracy in filled) / samples
    assert len(curve.count) == 15
    assert sum(curve.count) == samples
    assert gap == pytest.approx(prediction_figures(given_outputs)["cal/ECE"], abs=1e-5)


def test_reliability_by_hand() -> None:
    curve = reliability(two_classes([0.91, 0.92, 0.55], [True, False, True]))
    empty = [None] * 15
    assert curve.count == [0] * 8 + [1] + [0] * 4 + [2] + [0]  # 0.55 in [8/15, 9/15), 0.91 and 0.92 in [13/15, 14/15)
    assert curve.confidence == [*empty[:8], pytest.approx(0.55), *empty[:4], pytest.approx(0.915), None]
    assert curve.accuracy == [*empty[:8], 1.0, *empty[:4], 0.5, None]


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 60), seed=st.integers(0, 2**31), levels=st.sampled_from([2, 3, 1000]))
def test_the_mean_of_the_full_curve_is_its_area(samples: int, seed: int, levels: int) -> None:
    given_outputs = outputs(samples, seed, levels)
    curve = risk_coverage(given_outputs, points=60)
    assert curve.coverage == pytest.approx([n / samples for n in range(1, samples + 1)])
    assert sum(curve.risk) / samples == pytest.approx(prediction_figures(given_outputs)["sc/AURC"], abs=1e-12)


def test_fifty_points_come_close_to_the_area_and_end_at_the_error_rate() -> None:
    given_outputs = outputs(5000, 0)
    figures, curve = prediction_figures(given_outputs), risk_coverage(given_outputs)
    assert curve.coverage == pytest.approx([n / 50 for n in range(1, 51)])
    assert curve.risk[-1] == pytest.approx(1 - figures["cls/Acc"])
    assert sum(curve.risk) / 50 == pytest.approx(figures["sc/AURC"], abs=0.01)


def test_risk_coverage_by_hand() -> None:
    found = two_classes([0.9, 0.8, 0.8, 0.7], [True, True, False, True])
    assert risk_coverage(found) == RiskCoverage([0.25, 0.5, 0.75, 1.0], [0.0, 0.25, pytest.approx(1 / 3), 0.25])
    assert risk_coverage(found, points=2) == RiskCoverage([0.5, 1.0], [0.25, 0.25])
    assert risk_coverage(found, points=3).coverage == [0.5, 0.75, 1.0]  # a third and two thirds, rounded up


def test_both_survive_json() -> None:
    given_outputs = outputs(40, 1)
    for kind, curve in ((Reliability, reliability(given_outputs)), (RiskCoverage, risk_coverage(given_outputs))):
        assert kind(**json.loads(json.dumps(dataclasses.asdict(curve), allow_nan=False))) == curve


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match="points is 0, expected at least 1"):
        risk_coverage(outputs(4, 0), points=0)
    unlabelled = Outputs(torch.full((1, 2, 2), 0.5), torch.tensor([-1, 0]))
    for curve in (reliability, risk_coverage):
        with pytest.raises(SubnetSearchError, match=r"1 of 2 labels are outside 0\.\.1"):
            curve(unlabelled)
