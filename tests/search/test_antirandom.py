import numpy as np
import pytest

from subnet_search.search.antirandom import antirandom


def test_partners_are_complements_at_half_and_pairs_differ() -> None:
    mask = antirandom(32, (16,) * 4, np.random.default_rng(0))
    assert np.array_equal(mask[0], ~mask[1])
    assert np.array_equal(mask[2], ~mask[3])
    assert not np.array_equal(mask[0], mask[2])
    assert not np.array_equal(mask[0], mask[3])


@pytest.mark.parametrize("quotas", [(3, 4), (10, 20), (20, 20), (20, 7, 5)])
def test_partners_overlap_as_little_as_the_width_allows(quotas: tuple[int, ...]) -> None:
    mask = antirandom(20, quotas, np.random.default_rng(1))
    assert tuple(mask.sum(axis=1)) == quotas
    assert (mask[0] & mask[1]).sum() == max(0, quotas[0] + quotas[1] - 20)


def test_cover_lets_pairs_use_what_is_left() -> None:
    mask = antirandom(20, (5,) * 4, np.random.default_rng(2), cover=True)
    assert mask.sum(axis=0).tolist() == [1] * 20
