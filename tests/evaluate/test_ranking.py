"""AUROC, average precision and FPR at 95 % TPR, with ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.ranking import auroc, average_precision, fpr_at_tpr


def case(positives: list[float], negatives: list[float]) -> tuple[Tensor, Tensor]:
    scores = torch.tensor(positives + negatives, dtype=torch.float64)
    return scores, torch.arange(len(scores)) < len(positives)


def test_auroc_counts_pairs_and_ties_one_half() -> None:
    # pairs: 3>2, 3>1, 2=2 (one half), 2>1
    assert auroc(*case([3, 2], [2, 1])) == pytest.approx(3.5 / 4)


def test_scores_that_a_sigmoid_would_merge_stay_distinct() -> None:
    assert auroc(*case([1000.0, 1001.0], [998.0, 999.0])) == 1.0
    assert auroc(*case([-1000.0], [-999.0])) == 0.0


def test_scores_of_any_scale_give_the_same() -> None:
    scores, positive = case([0.1, 0.4, 0.35], [0.2, 0.8, 0.4])
    assert auroc(scores, positive) == auroc(1e-9 * scores, positive) == auroc(1e9 * scores - 5, positive)


def test_average_precision_by_hand() -> None:
    # recall 1/2 at precision 1, recall 1 at precision 2/3
    assert average_precision(*case([0.9, 0.7], [0.8])) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_average_precision_of_a_constant_is_the_share_of_positives() -> None:
    assert average_precision(*case([1.0] * 3, [1.0] * 7)) == pytest.approx(0.3)


def test_average_precision_lets_ties_enter_together() -> None:
    # at 2: one of two is right, recall 1/2; at 1: both are found among three
    assert average_precision(*case([2, 1], [2])) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)


def test_fpr95_by_hand() -> None:
    # 19 of 20 positives are needed: the threshold is 2, and of the negatives 2 and 3 reach it
    assert fpr_at_tpr(*case([float(i) for i in range(1, 21)], [0, 1, 2, 3])) == 0.5


def test_fpr95_needs_exactly_95_of_100() -> None:
    # the threshold is 6 (scores 6 to 100); 0.95 * 100 must not be rounded up to 96
    assert fpr_at_tpr(*case([float(i) for i in range(1, 101)], [5.5, 6.0])) == 0.5


def test_fpr95_with_few_positives_needs_them_all() -> None:
    assert fpr_at_tpr(*case([5, 1], [0, 2, 3])) == pytest.approx(2 / 3)


def test_fpr95_of_a_constant_flags_everything() -> None:
    assert fpr_at_tpr(*case([1, 1], [1, 1, 1])) == 1.0


def test_fpr95_of_separated_scores_is_zero() -> None:
    assert fpr_at_tpr(*case([3, 4], [1, 2])) == 0.0


@settings(deadline=None, max_examples=60)
@given(
    positives=st.lists(st.integers(0, 6), min_size=1, max_size=25),
    negatives=st.lists(st.integers(0, 6), min_size=1, max_size=25),
    percent=st.integers(1, 100),
)
def test_all_equal_their_naive_twins(positives: list[int], negatives: list[int], percent: int) -> None:
    scores, positive = case([float(v) for v in positives], [float(v) for v in negatives])
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-5)

    best, area, recall = 1.0, 0.0, 0.0
    for threshold in sorted(set(positives + negatives), reverse=True):
        hits, alarms = sum(p >= threshold for p in positives), sum(n >= threshold for n in negatives)
        area += (hits / len(positives) - recall) * hits / (hits + alarms)
        recall = hits / len(positives)
        if 100 * hits >= percent * len(positives):
            best = min(best, alarms / len(negatives))
    assert average_precision(scores, positive) == pytest.approx(area, abs=1e-5)
    assert fpr_at_tpr(scores, positive, percent) == pytest.approx(best)


def test_one_kind_only_has_no_figure() -> None:
    for figure in (auroc, average_precision, fpr_at_tpr):
        assert figure(torch.rand(3), torch.tensor([True] * 3)) is None
        assert figure(torch.rand(3), torch.tensor([False] * 3)) is None


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match="2 of 3 scores are not finite"):
        auroc(torch.tensor([float("nan"), 1.0, float("inf")]), torch.tensor([True, False, True]))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"expected \[sample\] and bool \[sample\]"):
        average_precision(torch.rand(3), torch.tensor([1, 0, 1]))
    with pytest.raises(SubnetSearchError, match="percent is 0, expected 1 to 100"):
        fpr_at_tpr(torch.rand(2), torch.tensor([True, False]), 0)
