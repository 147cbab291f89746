from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from subnet_search.data import ArrayDataset, batches, evenly, labels_of
from subnet_search.errors import SubnetSearchError

IMAGES = torch.randint(0, 256, (7, 1, 2, 2), dtype=torch.uint8)
LABELS = torch.tensor([3, 1, 4, 1, 5, 2, 6])


class Plain(Dataset[Any]):
    """A user's dataset that hands out whatever it was given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Counting(ArrayDataset):
    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read one by one")


DATASETS = {
    "array": ArrayDataset(IMAGES, LABELS),
    "whole batches only": Counting(IMAGES, LABELS),
    "plain": Plain([(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]),
    "tensor labels": TensorDataset(IMAGES, LABELS),
    "numpy labels": Plain([[image, np.int32(label)] for image, label in zip(IMAGES, LABELS, strict=True)]),
    "subset of an array": Subset(ArrayDataset(IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2)), range(7, 14)),
    "subset of tensors": Subset(TensorDataset(IMAGES, LABELS), range(7)),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("order", [None, torch.tensor([6, 0, 0, 3])])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_kind_of_dataset(name: str, order: torch.Tensor | None, batch_size: int) -> None:
    wanted = torch.arange(7) if order is None else order
    read = list(batches(DATASETS[name], batch_size, order))
    assert [len(labels) for _, labels in read] == [len(part) for part in wanted.split(batch_size)]
    assert torch.equal(torch.cat([images for images, _ in read]), IMAGES[wanted])
    labels = torch.cat([labels for _, labels in read])
    assert labels.dtype == torch.int64
    assert torch.equal(labels, LABELS[wanted])


@pytest.mark.parametrize("name", DATASETS)
def test_labels_of_every_kind(name: str) -> None:
    assert torch.equal(labels_of(DATASETS[name]), LABELS)


def test_labels_by_torchvisions_name_need_no_images() -> None:
    dataset = Plain([None, None])
    dataset.targets = [4, 2]  # type: ignore[attr-defined]
    assert labels_of(dataset).tolist() == [4, 2]
    assert labels_of(Subset(dataset, [1])).tolist() == [2]


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    list(batches(DATASETS["array"], 2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("image", 1)], r"Plain: an item is \(str, int\), expected \(image Tensor, label int\)"),
        ([IMAGES[0]], r"Plain: an item is \(Tensor\), expected"),
        ([(IMAGES[0], 1), (IMAGES[0, :, :1], 1)], r"shapes \[\(1, 1, 2\), \(1, 2, 2\)\], expected one shape"),
        ([(torch.full((1, 2, 2), float("nan")), 1)], "Plain: 1 of 1 images hold NaN"),
        ([(torch.full((1, 2, 2), -2.0), 1)], "range from -2 to -2, expected .* without normalisation"),
        ([(IMAGES[0], 0.5)], r"label 0\.5, expected a class index"),
        ([(IMAGES[0], "cat")], "label 'cat', expected a class index"),
    ],
)
def test_items_that_cannot_be_used(items: list[Any], message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        list(batches(Plain(items), 4))


def test_datasets_without_length() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([(IMAGES[0], 1)])

    with pytest.raises(SubnetSearchError, match="Stream has no length, expected a map-style dataset"):
        batches(Stream(), 4)


def test_samples_are_spread_over_sorted_classes() -> None:
    dataset = ArrayDataset(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(5).repeat_interleave(2))
    assert dataset.labels[evenly(dataset, 5)].tolist() == [0, 1, 2, 3, 4]
    assert evenly(dataset, 3).tolist() == [0, 3, 6]
    assert evenly(dataset, 99).tolist() == list(range(10))
    assert evenly(dataset, 0).tolist() == []
