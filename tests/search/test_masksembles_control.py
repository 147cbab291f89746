import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masksembles.common import generation_wrapper

from subnet_search.search.masksembles import masksembles
from subnet_search.search.overlap import Mask


def _mean_iou(mask: Mask) -> float:
    kept = mask.astype(float)
    shared = kept @ kept.T
    sizes = shared.diagonal()
    iou = shared / (sizes[:, None] + sizes[None] - shared)
    return float(iou[np.triu_indices(len(mask), k=1)].mean())


@pytest.mark.parametrize(("width", "members", "scale"), [(32, 4, 2.0), (40, 3, 1.5), (64, 4, 3.0)])
def test_overlap_is_that_of_the_official_generator(width: int, members: int, scale: float) -> None:
    # the official code draws from the global state, which is put back afterwards
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        official = [generation_wrapper(width, members, scale) > 0 for _ in range(60)]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    quota = int(official[0].sum(axis=1)[0])
    rng = np.random.default_rng(0)
    ours = [masksembles(width, (quota,) * members, rng) for _ in range(200)]
    assert all(mask.shape == (members, width) and (mask.sum(axis=1) == quota).all() for mask in official)
    assert all(mask.any(axis=0).all() for mask in [*official, *ours])
    theirs, mine = np.array([_mean_iou(m) for m in official]), np.array([_mean_iou(m) for m in ours])
    error = np.hypot(theirs.std() / len(theirs) ** 0.5, mine.std() / len(mine) ** 0.5)
    assert abs(theirs.mean() - mine.mean()) < 4 * error + 1e-9


@pytest.mark.parametrize(("channels", "quotas"), [(4, (2, 2, 2)), (4, (1, 2, 2)), (5, (1, 1, 1))])
def test_all_covering_tuples_are_equally_likely(channels: int, quotas: tuple[int, ...]) -> None:
    choices = [list(itertools.combinations(range(channels), quota)) for quota in quotas]
    union = min(channels, sum(quotas))
    possible = [sets for sets in itertools.product(*choices) if len(set().union(*sets)) == union]
    rng = np.random.default_rng(0)
    draws = 20 * len(possible)
    counts = Counter(
        tuple(tuple(np.flatnonzero(row).tolist()) for row in masksembles(channels, quotas, rng)) for _ in range(draws)
    )
    assert set(counts) == set(possible)
    chi_square = sum((counts[sets] - 20) ** 2 / 20 for sets in possible)
    freedom = len(possible) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


@settings(max_examples=50, deadline=None)
@given(channels=st.integers(1, 60), seed=st.integers(0, 1000), data=st.data())
def test_any_width_and_quota_ends_with_exact_quotas_and_the_largest_union(
    channels: int, seed: int, data: st.DataObject
) -> None:
    quotas = data.draw(st.lists(st.integers(0, channels), min_size=1, max_size=6))
    mask = masksembles(channels, quotas, np.random.default_rng(seed))
    assert mask.sum(axis=1).tolist() == quotas
    assert mask.any(axis=0).sum() == min(channels, sum(quotas))


def test_a_wide_group_takes_no_rejection() -> None:
    # covering 2048 channels with 4 members that keep a quarter and one channel is a chance of about 1e-1000
    mask = masksembles(2048, (513,) * 4, np.random.default_rng(0))
    assert mask.any(axis=0).all()
