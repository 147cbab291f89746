import numpy as np
import pytest

from subnet_search.search.draft import draft
from subnet_search.search.magnitude import magnitude
from subnet_search.search.overlap import pair_overlap


def test_turns_go_in_a_snake_and_each_takes_its_best_free_channel() -> None:
    scores = np.array([[9.0, 8, 7, 6, 5, 4], [9.0, 8, 7, 6, 5, 4]])
    # 0 takes 9, 1 takes 8, 1 takes 7, 0 takes 6, 0 takes 5, 1 takes 4
    assert draft(scores, (3, 3)).tolist() == [
        [True, False, False, True, True, False],
        [False, True, True, False, False, True],
    ]
    assert draft(scores, (3, 3), first=1).tolist() == draft(scores, (3, 3)).tolist()[::-1]


def test_when_all_are_taken_the_second_round_shares_with_whom_it_shares_least() -> None:
    rng = np.random.default_rng(0)
    mask = draft(rng.random((4, 48)), (24,) * 4)
    assert mask.sum(axis=0).tolist() == [2] * 48
    off_diagonal = pair_overlap(mask)[np.triu_indices(4, k=1)]
    assert off_diagonal.max() - off_diagonal.min() <= 2


def test_members_get_equal_relevance() -> None:
    scores = np.repeat(np.random.default_rng(1).exponential(size=(1, 256)), 4, axis=0)
    kept = (scores * draft(scores, (128,) * 4)).sum(axis=1)
    assert kept.std() / kept.mean() < 0.05


def test_unequal_quotas_are_met_and_full_ones_too() -> None:
    mask = draft(np.random.default_rng(2).random((3, 10)), (10, 1, 6))
    assert mask.sum(axis=1).tolist() == [10, 1, 6]


def test_magnitude_is_the_draft_and_does_not_make_members_equal() -> None:
    norms = np.repeat(np.random.default_rng(3).random((1, 32)), 2, axis=0)
    mask = magnitude(norms, (16, 16))
    assert np.array_equal(mask, draft(norms, (16, 16)))
    assert not mask.all(axis=0).any()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_first_turn_can_go_to_any_member(first: int) -> None:
    mask = draft(np.array([[3.0, 2, 1]] * 3), (1, 1, 1), first)
    assert mask[first, 0]
