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


@pytest.mark.parametrize(
    "targets",
    [[4.0, 2.0], np.array([4.0, 2.0]), torch.tensor([4, 2], dtype=torch.float16), np.array([4, 2], dtype=np.uint16)],
    ids=["floats", "numpy floats", "half", "unsigned"],
)
def test_whole_numbers_are_labels_whatever_their_type(targets: Any) -> None:
    dataset = Plain([None, None])
    dataset.targets = targets  # type: ignore[attr-defined]
    labels = labels_of(dataset)
    assert (labels.dtype, labels.tolist()) == (torch.int64, [4, 2])


@pytest.mark.parametrize(
    "targets",
    [
        [0.0, 1.7],
        [float("nan"), float("inf")],
        ["cat", "dog"],
        [[0, 1], [1]],
        torch.zeros(2, 1),
        [1j, 1j],
        torch.tensor(2),
        [1],
        {0: 3, 1: 1},
    ],
    ids=["broken", "not finite", "names", "ragged", "column", "complex", "scalar", "too few", "mapping"],
)
def test_samples_tell_the_labels_where_the_attribute_does_not(targets: Any) -> None:
    dataset = Plain([(IMAGES[0], 3), (IMAGES[1], 1)])
    dataset.targets = targets  # type: ignore[attr-defined]
    assert labels_of(dataset).tolist() == [3, 1]


class Whole(Plain):
    """Hands out batches, and labels as they are."""

    def __init__(self, labels: Any) -> None:
        super().__init__([None, None])
        self.of_a_batch = labels

    def __getitems__(self, indices: list[int]) -> Any:
        return IMAGES[indices], self.of_a_batch


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0.9, 1.0]), torch.tensor([[4], [2]]), torch.tensor([4]), ["cat", "dog"], None],
    ids=["broken", "column", "too few", "names", "none"],
)
def test_labels_of_a_batch_are_not_rounded(labels: Any) -> None:
    with pytest.raises(
        SubnetSearchError, match=r"^Whole: a batch of 2 images has the labels .*, expected a class index"
    ):
        next(batches(Whole(labels), 2))
    assert next(batches(Whole(torch.tensor([4.0, 2.0])), 2))[1].tolist() == [4, 2]


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


def test_a_subset_is_named_after_what_it_is_a_part_of() -> None:
    whole = Plain([(IMAGES[0], 0.5)])
    with pytest.raises(SubnetSearchError, match=r"^Plain: an item has the label"):
        next(batches(Subset(Subset(whole, [0]), [0]), 1))
    whole.source = "data cats.zip"  # type: ignore[attr-defined]
    with pytest.raises(SubnetSearchError, match=r"^data cats\.zip: an item has the label"):
        next(batches(Subset(Subset(whole, [0]), [0]), 1))


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
