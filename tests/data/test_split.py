import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

from subnet_search.data import ArrayDataset, split
from subnet_search.data.split import split_indices
from subnet_search.errors import SubnetSearchError


@given(
    labels=st.lists(st.integers(0, 4), min_size=10, max_size=200),
    fraction=st.floats(0.1, 0.9),
    seed=st.integers(0, 2**32),
)
def test_parts_are_disjoint_complete_and_stratified(labels: list[int], fraction: float, seed: int) -> None:
    kept, held_out = split_indices(torch.tensor(labels), fraction, seed)
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(len(labels)))
    assert len(held_out) == int(len(labels) * fraction + 1e-9)
    assert held_out.tolist() == sorted(held_out.tolist())
    for label in range(5):
        found = sum(labels[index] == label for index in held_out.tolist())
        assert abs(found - fraction * labels.count(label)) < 1 + 1e-6


def test_seed_decides() -> None:
    labels = torch.arange(100) % 4
    assert torch.equal(split_indices(labels, 0.3, 1)[1], split_indices(labels, 0.3, 1)[1])
    assert not torch.equal(split_indices(labels, 0.3, 1)[1], split_indices(labels, 0.3, 2)[1])


def test_every_sample_can_be_held_out() -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    seen = {index for seed in range(60) for index in split_indices(labels, 0.2, seed)[1].tolist()}
    assert seen == set(range(10))


def test_arrays_give_arrays_and_others_give_subsets() -> None:
    images, labels = torch.rand(20, 1, 2, 2), torch.arange(20) % 2
    train, held_out = split(ArrayDataset(images, labels), 0.25, seed=3)
    assert isinstance(train, ArrayDataset)
    assert isinstance(held_out, ArrayDataset)
    assert (len(train), len(held_out)) == (15, 5)
    other_train, other_held_out = split(TensorDataset(images, labels), 0.25, seed=3)
    assert isinstance(other_train, Subset)
    assert isinstance(other_held_out, Subset)
    assert torch.equal(torch.stack([image for image, _ in other_held_out]), held_out.images)
    assert torch.equal(torch.stack([image for image, _ in other_train]), train.images)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.05, float("nan")])
def test_refuses_an_empty_part(fraction: float) -> None:
    with pytest.raises(SubnetSearchError, match=rf"a fraction of {fraction} of 10 samples: expected"):
        split_indices(torch.zeros(10, dtype=torch.int64), fraction, 0)
