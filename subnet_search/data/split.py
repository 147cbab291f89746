"""Dividing data into parts that share no sample and have the same mix of classes."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.data.batches import labels_of
from subnet_search.errors import SubnetSearchError

VALIDATION_FRACTION = 0.2
"""Default share of the training data that is held out."""

D = TypeVar("D", bound=Dataset[Any])


def split(dataset: D, fraction: float = VALIDATION_FRACTION, seed: int = 0) -> tuple[D, D]:
    """Splits training data into the part that is trained on and the part that is held out.

    Args:
        dataset: Any map-style dataset of (image tensor, int label).
        fraction: Share that is held out, in (0, 1).
        seed: Which split; the same seed gives the same one.

    Returns:
        (train, validation): two `ArrayDataset`s where one was given, else two `torch.utils.data.Subset`s.

    Raises:
        SubnetSearchError: where `fraction` leaves one of the parts empty.
    """
    parts = split_indices(labels_of(dataset), fraction, seed)
    if isinstance(dataset, ArrayDataset):
        return cast(tuple[D, D], tuple(dataset.subset(part) for part in parts))
    return cast(tuple[D, D], tuple(Subset(dataset, part.tolist()) for part in parts))


def split_indices(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divides sample indices, stratified by label.

    The samples are shuffled, sorted by label, and every 1 / `fraction`-th is held out, so each class gives its
    share up to one sample, and a class of one sample is no error.

    Args:
        labels: int64 `[N]`.
        fraction: Share of the second part, in (0, 1).
        seed: Seed of the shuffling.

    Returns:
        Two sorted int64 tensors, disjoint, together 0..N−1; the second has ⌊N · fraction⌋ entries.

    Raises:
        SubnetSearchError: where `fraction` leaves one of the parts empty.
    """
    count = len(labels)
    if not 0 < fraction < 1 or int(count * fraction + 1e-9) == 0:
        raise SubnetSearchError(
            f"cannot hold out a fraction of {fraction} of {count} samples: expected a fraction between 0 and 1 that leaves at least one sample on each side"
        )
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    grouped = shuffled[torch.argsort(labels[shuffled], stable=True)]
    steps = (torch.arange(count + 1, dtype=torch.float64) * fraction + 1e-9).floor()
    held_out = steps.diff() > 0
    return grouped[~held_out].sort().values, grouped[held_out].sort().values
