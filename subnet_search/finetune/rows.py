"""The images of an epoch, step by step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from subnet_search.data import Augmentation, augment, batches
from subnet_search.data.array_dataset import check_labels
from subnet_search.ensemble import Predictor
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune.config import FinetuneConfig
from subnet_search.finetune.order import order_of_epoch
from subnet_search.finetune.shared_steps import SharedSteps


def rows_of_epoch(
    ensemble: Predictor,
    dataset: Dataset[tuple[Tensor, int]],
    config: FinetuneConfig,
    epoch: int,
    images: int,
    steps: SharedSteps,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields prepared images and labels of each step.

    Args:
        ensemble: Gives the number of members, and the card.
        dataset: Training images, of which only those of this process are read.
        config: Order, repetitions and changes of the images.
        epoch: Number of the epoch, from 0.
        images: Number of training images.
        steps: Which rows this process computes.
        device: Where they are put.

    Yields:
        Member-major rows `[member * row, ...]` of this process, with labels `[member, row]` of all; where all members
        see the same images, these once, `[row, ...]` and `[1, row]`, so that they are read and changed once and the
        members answer to the same.

    Raises:
        SubnetSearchError: where labels are missing or outside the classes.
    """
    order = order_of_epoch(config, images, ensemble.members, epoch, ensemble.inputs)
    if seen_by_all(config) and ensemble.inputs == 1:
        order = order[:, :1]
    changes = torch.Generator().manual_seed(15_485_863 * config.seed + epoch)
    repeated = ensemble.inputs > 1 or config.batch_repetition > 1
    places = steps.part(torch.arange(order[0].numel()).view(order.shape[1:])).flatten()
    own = order.flatten(1)[:, places]
    for step, (rows, labels) in zip(order, batches(dataset, len(places), own.flatten()), strict=True):
        everyones = steps.whole(labels.to(device).view(order.shape[1], -1))
        check_labels(everyones, len(ensemble.card.classes), "finetune")
        if int(everyones.min()) < 0:
            raise SubnetSearchError("finetune: some images have no label (−1), expected labels for all of them")
        # an image that is repeated is the same image, so it is changed as where it stands first
        drawn_at = _first_places(step.flatten())[places] if repeated else places
        changed = _changed(rows, drawn_at, step.numel(), config.augment, changes)
        yield ensemble.card.prepare(changed.to(device, non_blocking=True)), everyones


def seen_by_all(config: FinetuneConfig) -> bool:
    """Returns whether all members see the same images in a step."""
    return config.mode == "repeat" and not config.bagging


def _changed(rows: Tensor, places: Tensor, count: int, kind: Augmentation, changes: torch.Generator) -> Tensor:
    """Changes images as what is drawn for their places in a step of `count` images says."""
    if kind == "none" or torch.equal(places, torch.arange(count)):
        return augment(rows, kind, changes)
    step = rows.new_zeros(count, *rows.shape[1:])
    step[places] = rows
    return augment(step, kind, changes)[places]


def _first_places(indices: Tensor) -> Tensor:
    """For each element the first place at which its value stands: [7, 5, 7] → [0, 1, 0]."""
    values, inverse = indices.unique(return_inverse=True)
    places = torch.arange(len(indices))
    first = torch.full((len(values),), len(indices)).scatter_reduce(0, inverse, places, "amin")
    return first[inverse]
