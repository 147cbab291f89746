"""How the epochs of a training are shared out, so that a training in parts sees as many samples as one that is whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from subnet_search.finetune import FinetuneConfig, order_of_epoch, steps_of_epoch

Part = tuple[FinetuneConfig, Tensor | None]
"""Settings of a training, and the training images that it is shown, int64 `[n]`; None shows all of them."""

SEEDS = 32_452_843  # apart from each other, and from what else is added to a seed


def epochs_of_search(config: FinetuneConfig, share: float) -> int:
    """Returns how many epochs a search takes of a training: `share` of them, rounded, but never the last one."""
    return max(0, min(config.epochs - 1, int(share * config.epochs + 0.5)))


def shared_out(config: FinetuneConfig, parts: int, images: int, members: int) -> list[Part]:
    """Divides a training into equal parts, each with a schedule of its own.

    Parts are whole epochs where there are enough of them, the later ones getting what is left over; else each goes once
    over images of its own drawing, as many as its steps take.

    Args:
        config: Settings of the whole training.
        parts: Number of parts.
        images: Number of training images.
        members: Number of members K.

    Returns:
        The parts, `reseeded`. Together they take exactly as many steps, and show as many samples, as the whole.
    """
    if config.epochs >= parts:
        ends = [config.epochs * number // parts for number in range(parts + 1)]
        return [
            (reseeded(replace(config, epochs=end - start), number), None)
            for number, (start, end) in enumerate(pairwise(ends))
        ]
    steps = config.epochs * steps_of_epoch(config, images, members)
    ends = [steps * number // parts for number in range(parts + 1)]
    return [
        _once(reseeded(config, number), end - start, images, members)
        for number, (start, end) in enumerate(pairwise(ends))
    ]


def reseeded(config: FinetuneConfig, number: int) -> FinetuneConfig:
    """Returns the settings of a later part: with a seed of its own, but for the bootstraps of bagging, which last."""
    later = replace(config, seed=config.seed + SEEDS * number)
    return replace(later, bootstraps=config.bootstrap_seed) if config.bagging else later


def shown_to_all(config: FinetuneConfig, images: int, members: int) -> Part:
    """Changes a training so that all members see the same images in a step, at the same number of steps and samples.

    A mode that splits the images over the members then shows fewer different ones.

    Args:
        config: Settings of the training.
        images: Number of training images.
        members: Number of members K.

    Returns:
        Settings in mode `repeat` without bagging, and the images to show.
    """
    rows = order_of_epoch(config, images, members, 0).shape[2]  # where the mode is left open, this raises
    common = replace(config, mode="repeat", bagging=False)
    if config.mode != "split" or config.epochs == 0:
        return common, None
    steps = config.epochs * steps_of_epoch(config, images, members)
    # the fewest passes that K times fewer images need, so that as many as possible are different
    passes = next(n for n in range(-(-config.epochs // members), config.epochs + 1) if steps % n == 0)
    chosen = _drawn(config.seed, images, steps // passes * rows)
    return replace(common, batch_size=rows, epochs=passes), chosen


def _once(config: FinetuneConfig, steps: int, images: int, members: int) -> Part:
    """One pass of so many steps, at most those of an epoch."""
    if steps == 0:
        return replace(config, epochs=0), None
    rows = order_of_epoch(config, images, members, 0).shape[2]
    count = steps * rows * (members if config.mode == "split" else 1)
    seed = config.bootstrap_seed if config.bagging else config.seed  # bootstraps are of what is shown
    return replace(config, epochs=1), _drawn(seed, images, count)


def _drawn(seed: int, images: int, count: int) -> Tensor:
    """So many of the images, without replacement."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:count].sort().values
