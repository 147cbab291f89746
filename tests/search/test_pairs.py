from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.search.antirandom import antirandom
from subnet_search.search.overlap import normalise, pair_overlap
from subnet_search.search.pairs import pairs


def drawn(members: int, channels: int, seed: int = 0, own: float = 0.2) -> np.ndarray:
    """Scores of which a part is the member's own."""
    rng = np.random.default_rng(seed)
    shared = rng.gamma(1.0, size=channels)
    return normalise(np.abs(shared * (1 + own * rng.standard_normal((members, channels)))))


def welfare(scores: np.ndarray, mask: np.ndarray) -> float:
    """What two members with equal quotas are worth."""
    one, other = (scores * mask).sum(axis=1)
    return float(one + other - 0.5 * abs(one - other))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), channels=st.integers(1, 24), members=st.integers(2, 6), data=st.data())
def test_partners_share_as_little_as_they_can(seed, channels, members, data) -> None:
    quotas = data.draw(st.lists(st.integers(1, channels), min_size=members, max_size=members))
    mask = pairs(drawn(members, channels, seed), quotas, 1.0, cover=data.draw(st.booleans()))
    assert mask.sum(axis=1).tolist() == quotas
    shared = pair_overlap(mask)
    for k in range(0, members - 1, 2):
        assert shared[k, k + 1] == max(0, quotas[k] + quotas[k + 1] - channels)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), channels=st.integers(1, 24), members=st.integers(2, 6), data=st.data())
def test_cover_leaves_no_channel_out(seed, channels, members, data) -> None:
    quotas = data.draw(st.lists(st.integers(1, channels), min_size=members, max_size=members))
    mask = pairs(drawn(members, channels, seed), quotas, 1.0, cover=True)
    if sum(quotas) >= channels:
        assert mask.any(axis=0).all()


@pytest.mark.parametrize("members", [4, 6, 8, 14])
def test_with_equal_scores_any_two_of_different_pairs_share_a_quarter(members) -> None:
    mask = pairs(np.ones((members, 64)), [32] * members, 1.0)
    shared = pair_overlap(mask)
    for k, other in combinations(range(members), 2):
        assert shared[k, other] == (0 if k // 2 == other // 2 else 16)


@pytest.mark.parametrize("seed", range(8))
def test_two_members_come_close_to_the_best_of_all_splits(seed) -> None:
    scores = drawn(2, 8, seed)
    best = 0.0
    for chosen in combinations(range(8), 4):
        mask = np.zeros((2, 8), dtype=bool)
        mask[0, list(chosen)] = True
        mask[1] = ~mask[0]
        best = max(best, welfare(scores, mask))
    got = welfare(scores, pairs(scores, [4, 4], 1.0))
    assert best - 0.03 * best <= got <= best + 1e-9


def test_partners_get_equal_shares_where_chance_gives_one_of_them_more() -> None:
    def differences(mask: np.ndarray) -> np.ndarray:
        totals = (scores * mask).sum(axis=1)
        return np.abs(totals[::2] - totals[1::2])

    for seed in range(5):
        scores, quotas = drawn(4, 32, seed), [16] * 4
        lot = antirandom(32, quotas, np.random.default_rng(seed))
        fair = pairs(scores, quotas, 1.0)
        assert differences(fair).max() < 0.3
        assert differences(lot).max() > 4 * differences(fair).max()
        assert (scores * fair).sum() >= (scores * lot).sum()


def test_each_partner_gets_what_it_values_more() -> None:
    scores = np.ones((2, 8))
    scores[0, :4], scores[1, 4:] = 1.5, 1.5
    assert pairs(normalise(scores), [4, 4], 1.0).tolist() == [[True] * 4 + [False] * 4, [False] * 4 + [True] * 4]


def test_below_half_width_irrelevant_channels_go_first() -> None:
    scores = drawn(4, 64, own=0.05)
    mask = pairs(scores, [16] * 4, 1.0)
    ranked = np.argsort(-scores.mean(axis=0))
    assert mask[:, ranked[:16]].sum() > 3 * mask[:, ranked[32:]].sum()
    shared = pair_overlap(mask)
    assert shared[0, 1] == shared[2, 3] == 0
    assert 0 < shared[0, 2] < 16  # the pairs may want the same channels, and split them otherwise


def test_without_a_price_on_overlap_pairs_still_differ() -> None:
    scores = np.tile(drawn(1, 32), (4, 1))
    mask = pairs(scores, [16] * 4, 0.0)
    assert not (mask[0] == mask[2]).all()
    assert not (mask[0] == mask[3]).all()


def test_wide_groups_are_improved_too() -> None:
    scores = drawn(4, 400)
    mask = pairs(scores, [200] * 4, 1.0)
    totals = (scores * mask).sum(axis=1)
    assert abs(totals[0] - totals[1]) < 0.5
    assert totals.mean() > 200  # more than its share of the mean score, as each takes what it values more
