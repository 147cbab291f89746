import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.masks import MaskSet
from subnet_search.search.balanced import balanced


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 40), seed=st.integers(0, 1000), data=st.data())
def test_quotas_are_exact_and_channels_are_used_equally_often(channels: int, seed: int, data: st.DataObject) -> None:
    quotas = data.draw(st.lists(st.integers(0, channels), min_size=2, max_size=6))
    mask = balanced(channels, quotas, np.random.default_rng(seed))
    assert mask.sum(axis=1).tolist() == quotas
    used = mask.sum(axis=0)
    assert used.max() - used.min() <= 1


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0.5, 0.195, 0.21), (0.53, 0.22, 0.25)])
def test_four_members_with_half_of_the_channels_share_a_fifth(share: float, lowest: float, highest: float) -> None:
    quota = round(share * 128)
    mask = balanced(128, (quota,) * 4, np.random.default_rng(0))
    iou = MaskSet({"g": torch.from_numpy(mask)}, "random").iou()[torch.triu(torch.ones(4, 4), 1) > 0]
    assert iou.mean() >= lowest
    assert iou.mean() <= highest
    assert iou.max() - iou.min() < 0.03


@pytest.mark.parametrize("members", [3, 5, 8])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_pairs_share_alike(members: int, share: float) -> None:
    quota = int(share * 240)
    mask = balanced(240, (quota,) * members, np.random.default_rng(1)).astype(int)
    shared = (mask @ mask.T)[np.triu_indices(members, k=1)]
    assert shared.max() - shared.min() <= 0.15 * 240 * share


def test_each_channel_is_equally_likely() -> None:
    total = sum(balanced(6, (2, 3), np.random.default_rng(seed)).astype(int) for seed in range(600))
    assert abs(total[0] / 600 - 2 / 6).max() < 0.08
    assert abs(total[1] / 600 - 3 / 6).max() < 0.08
