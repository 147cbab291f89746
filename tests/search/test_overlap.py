import numpy as np
import pytest

from subnet_search.search.overlap import normalise, objective, overlap_penalty, pair_overlap

MASK = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]]) > 0


def test_pairs_are_counted_by_hand() -> None:
    assert pair_overlap(MASK).tolist() == [[3, 2, 2], [2, 2, 1], [2, 1, 3]]
    assert overlap_penalty(MASK) == pytest.approx((4 + 4 + 1) / 4)


def test_the_objective_by_hand() -> None:
    scores = np.arange(12.0).reshape(3, 4)
    assert objective(scores, MASK, 2.0) == pytest.approx((0 + 1 + 2) + (5 + 6) + (8 + 9 + 11) - 2 * 9 / 4)


def test_penalty_is_free_of_scale() -> None:
    assert overlap_penalty(np.tile(MASK, 5)) == pytest.approx(5 * overlap_penalty(MASK))


def test_normalised_scores_have_mean_one_and_zeros_stay() -> None:
    assert normalise(np.array([[1.0, 3.0], [4.0, 0.0]])).tolist() == [[0.5, 1.5], [2.0, 0.0]]
    assert normalise(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]
