import numpy as np
import pytest

from subnet_search.search.core import core, core_size
from subnet_search.search.draft import draft

SCORES = np.random.default_rng(0).random((4, 40))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_core_is_the_most_relevant_on_average_and_the_rest_is_drafted(share: float) -> None:
    mask = core(SCORES, (20,) * 4, share)
    size = round(share * 20)
    best = np.argsort(-SCORES.mean(axis=0))[:size]
    assert mask[:, best].all()
    others = np.setdiff1d(np.arange(40), best)
    assert np.array_equal(mask[:, others], draft(SCORES[:, others], (20 - size,) * 4))


def test_without_a_core_it_is_the_draft() -> None:
    assert np.array_equal(core(SCORES, (20,) * 4, 0.0), draft(SCORES, (20,) * 4))


def test_the_smallest_quota_sets_the_core_and_all_quotas_are_met() -> None:
    mask = core(SCORES, (4, 40, 20, 10), 1.0)
    assert mask.sum(axis=1).tolist() == [4, 40, 20, 10]
    assert mask.all(axis=0).sum() == 4


def test_cover_shrinks_the_core_as_far_as_needed() -> None:
    quotas = (12,) * 4
    assert not core(SCORES, quotas, 1.0).any(axis=0).all()
    assert core(SCORES, quotas, 1.0, cover=True).any(axis=0).all()
    assert core_size(40, quotas, 1.0, cover=True) == 2  # 2 + 4 · 10 = 42 ≥ 40, and 3 + 4 · 9 = 39 is not
    assert core_size(40, (5,) * 4, 1.0, cover=True) == 5  # 20 places cannot cover 40 channels in any case
