"""Risk against coverage, by hand and against the average over all orders of tied samples."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.selective import augrc, aurc, coverage_at_risk, error_auroc, expected_risks

RIGHT, WRONG = False, True


def figures(function, confidence: list[float], errors: list[bool]):
    return function(torch.tensor(confidence, dtype=torch.float64), torch.tensor(errors))


def naive_aurc(confidence: list[float], errors: list[bool]) -> float:
    """Mean over every order that sorts by confidence; exponential."""
    areas = []
    for order in itertools.permutations(range(len(errors))):
        ranked = [confidence[i] for i in order]
        if ranked == sorted(ranked, reverse=True):
            risks = [sum(errors[i] for i in order[:n]) / n for n in range(1, len(order) + 1)]
            areas.append(sum(risks) / len(risks))
    return sum(areas) / len(areas)


def test_aurc_by_hand() -> None:
    # risks 0, 1/2, 1/3
    assert figures(aurc, [0.9, 0.8, 0.7], [RIGHT, WRONG, RIGHT]) == pytest.approx(5 / 18)


def test_aurc_of_a_tie_by_hand() -> None:
    # either order first: risks (0, 1/2) and (1, 1/2), on average (1/2, 1/2)
    assert figures(aurc, [0.9, 0.9], [RIGHT, WRONG]) == pytest.approx(0.5)


@settings(deadline=None, max_examples=40)
@given(samples=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_the_orders_of_ties(samples: list[tuple[int, bool]]) -> None:
    confidence, errors = [float(c) for c, _ in samples], [e for _, e in samples]
    assert figures(aurc, confidence, errors) == pytest.approx(naive_aurc(confidence, errors))


def test_risks_by_hand() -> None:
    # the tie brings half an error a sample
    found = figures(expected_risks, [0.9, 0.8, 0.8], [RIGHT, RIGHT, WRONG])
    assert found.tolist() == pytest.approx([0, 1 / 4, 1 / 3])


def test_augrc_by_hand() -> None:
    # (0, 0), (1/3, 0), (2/3, 1/3), (1, 1/3): 0 + 1/18 + 1/9
    assert figures(augrc, [0.9, 0.8, 0.7], [RIGHT, WRONG, RIGHT]) == pytest.approx(1 / 6)


def test_augrc_of_a_tie_by_hand() -> None:
    # (0, 0), (1, 1/2) joined by one line
    assert figures(augrc, [0.9, 0.9], [RIGHT, WRONG]) == pytest.approx(1 / 4)


@settings(deadline=None, max_examples=60)
@given(samples=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_augrc_equals_its_closed_form(samples: list[tuple[int, bool]]) -> None:
    confidence, errors = [float(c) for c, _ in samples], [e for _, e in samples]
    risk = sum(errors) / len(errors)
    detection = figures(error_auroc, confidence, errors)
    ranked = 0.0 if detection is None else (1 - detection) * (1 - risk) * risk
    assert figures(augrc, confidence, errors) == pytest.approx(ranked + risk**2 / 2, abs=1e-6)


def test_one_error_in_twenty_is_five_per_cent() -> None:
    assert figures(coverage_at_risk, [float(-i) for i in range(20)], [RIGHT] * 19 + [WRONG]) == 1.0
    assert figures(coverage_at_risk, [0.5] * 20, [RIGHT] * 19 + [WRONG]) == 1.0
    assert figures(coverage_at_risk, [0.5] * 19, [RIGHT] * 18 + [WRONG]) == 0.0


def test_coverage_takes_the_largest_threshold_that_keeps_the_risk() -> None:
    # the first sample is wrong: risk 1, 1/2, ... and 1/20 at the twentieth
    assert figures(coverage_at_risk, [float(-i) for i in range(21)], [WRONG] + [RIGHT] * 19 + [WRONG]) == pytest.approx(
        20 / 21
    )


def test_coverage_accepts_ties_together() -> None:
    # the right sample of the tie alone would be free of risk, but no threshold accepts it alone
    assert figures(coverage_at_risk, [0.9, 0.8, 0.8], [RIGHT, RIGHT, WRONG]) == pytest.approx(1 / 3)


def test_no_threshold_at_all_is_no_coverage() -> None:
    assert figures(coverage_at_risk, [0.9, 0.8], [WRONG, WRONG]) == 0.0


def test_error_auroc_by_hand() -> None:
    # wrong 0.6 against right 0.9 (told), 0.6 (tie), 0.5 (not told)
    assert figures(error_auroc, [0.9, 0.6, 0.5, 0.6], [RIGHT, RIGHT, RIGHT, WRONG]) == pytest.approx(1.5 / 3)


def test_without_errors_there_is_nothing_to_detect() -> None:
    assert figures(error_auroc, [0.9, 0.6], [RIGHT, RIGHT]) is None
    assert figures(error_auroc, [0.9, 0.6], [WRONG, WRONG]) is None
    assert figures(aurc, [0.9, 0.6], [RIGHT, RIGHT]) == 0.0
    assert figures(augrc, [0.9, 0.6], [RIGHT, RIGHT]) == 0.0
    assert figures(coverage_at_risk, [0.9, 0.6], [RIGHT, RIGHT]) == 1.0


def test_the_order_of_the_samples_is_irrelevant() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.randint(0, 50, (400,), generator=generator) / 50
    errors = torch.rand(400, generator=generator) < 0.2
    order = torch.randperm(400, generator=generator)
    for function in (aurc, augrc, coverage_at_risk, error_auroc):
        assert function(confidence, errors) == function(confidence[order], errors[order])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"expected \[sample\] and bool \[sample\], at least one"):
        aurc(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(SubnetSearchError, match="1 of 2 confidences are not finite"):
        augrc(torch.tensor([float("nan"), 1.0]), torch.tensor([True, False]))
