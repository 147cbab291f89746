"""Batches from any map-style dataset, as tensors."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from subnet_search.data.array_dataset import check_images
from subnet_search.errors import SubnetSearchError

Batch = tuple[Tensor, Tensor]


def batches(dataset: Dataset[Any], batch_size: int, order: Tensor | None = None) -> Iterator[Batch]:
    """Yields batches of raw images and labels.

    A dataset whose `__getitems__` returns a pair of tensors is read a batch at a time; from any other, items are
    read one by one and stacked. Nothing is drawn from the global random state.

    Args:
        dataset: Map-style dataset of (image tensor, int label).
        batch_size: Samples a batch; the last batch may be smaller.
        order: int64 `[n]`, indices to read, in this order; may be a part of the dataset or repeat samples. None
            reads everything in order.

    Yields:
        images `[batch, *input_shape]` (uint8, or floating point in [0, 1]) and labels int64 `[batch]`.

    Raises:
        SubnetSearchError: where an item is no pair of image tensor and integer, the labels of a batch are no whole
            numbers, one for each image, shapes differ, or images hold NaN, infinity or values outside [0, 1].
    """
    indices = range(length(dataset)) if order is None else order.tolist()
    places = [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
    source = source_of(dataset)

    def stack(items: Any) -> Batch:
        batched = isinstance(items, tuple) and len(items) == 2 and isinstance(items[0], Tensor)
        images, labels = (items[0], _batch_labels(items[0], items[1], source)) if batched else _stack(items, source)
        check_images(images, source)
        return images, labels

    # the loader draws a seed for its workers from this generator; without it, from the global state
    generator = torch.Generator()
    loader = DataLoader(dataset, batch_sampler=places, collate_fn=stack, generator=generator)
    return cast(Iterator[Batch], iter(loader))


def length(dataset: Dataset[Any]) -> int:
    """Returns the number of samples of a map-style dataset.

    Raises:
        SubnetSearchError: where it has no length, as an iterable-style dataset.
    """
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        raise SubnetSearchError(
            f"{type(dataset).__name__} has no length, expected a map-style dataset with __len__ and __getitem__"
        )
    return len(dataset)


def source_of(dataset: Dataset[Any]) -> str:
    """Returns where samples come from, for messages.

    Args:
        dataset: Any dataset; PyTorch's subsets do not know it, so that the whole is asked.

    Returns:
        Its `source`, the name of its class where it has none.
    """
    while isinstance(dataset, Subset) and not hasattr(dataset, "source"):
        dataset = dataset.dataset
    return str(getattr(dataset, "source", type(dataset).__name__))


def evenly(dataset: Dataset[Any], samples: int) -> Tensor:
    """Returns the indices of samples that lie evenly over a dataset: where it is sorted by class, of every class.

    Args:
        dataset: Map-style dataset; images that are read from folders come class by class.
        samples: How many are wanted, at least 0; all where there are fewer.

    Returns:
        int64 `[min(samples, N)]`, ascending, each once.

    Raises:
        SubnetSearchError: as `length` does.
    """
    count = length(dataset)
    taken = min(samples, count)
    return torch.arange(taken) * count // max(taken, 1)


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Returns all labels of a dataset: int64 `[N]`.

    They are taken from an attribute `labels` or `targets` (torchvision's name) that holds a whole number for each
    sample; without one, as where it holds names of the classes, every sample is read once.

    Args:
        dataset: Samples and labels.

    Raises:
        SubnetSearchError: as `batches` does.
    """
    count = length(dataset)
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    for name in ("labels", "targets"):
        labels = _vector(getattr(dataset, name, None), (count,))
        if labels is not None:
            return labels
    return torch.cat([labels for _, labels in batches(dataset, 256)])


def _stack(items: Sequence[Any], source: str) -> Batch:
    images, labels = [], []
    for item in items:
        if not (isinstance(item, Sequence) and len(item) == 2 and isinstance(item[0], Tensor)):
            parts = (
                ", ".join(type(part).__name__ for part in item) if isinstance(item, Sequence) else type(item).__name__
            )
            raise SubnetSearchError(
                f"{source}: an item is ({parts}), expected (image Tensor, label int); convert the images to tensors"
            )
        images.append(item[0])
        labels.append(_index(item[1], source))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise SubnetSearchError(
            f"{source}: images have shapes {sorted(shapes)}, expected one shape; resize or crop them first"
        )
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def _batch_labels(images: Tensor, labels: Any, source: str) -> Tensor:
    found = _vector(labels, images.shape[:1])
    if found is None:
        raise SubnetSearchError(
            f"{source}: a batch of {len(images)} images has the labels {' '.join(reprlib.repr(labels).split())}, expected a class index (int) for each; "
            "let __getitems__ return them as int64 [batch]"
        )
    return found


def _vector(labels: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Labels of several samples as int64, whole ones of floating point among them; None where they are something else."""
    try:
        found = torch.as_tensor(labels)
    except Exception:  # names of classes, rows of different lengths; a user's attribute can be anything
        return None
    if found.shape != shape or found.is_complex():
        return None
    if found.is_floating_point() and not bool((found.frac() == 0).all()):  # false for NaN and infinity as well
        return None
    return found.to(torch.int64)


def _index(label: Any, source: str) -> int:
    try:
        return operator.index(label)  # takes integers of Python, NumPy and PyTorch, and rounds nothing
    except TypeError as error:
        raise SubnetSearchError(
            f"{source}: an item has the label {label!r}, expected a class index (int); let __getitem__ return the index of the class"
        ) from error
