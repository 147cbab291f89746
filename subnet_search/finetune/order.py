"""Which member sees which image when: the only place where the training modes differ."""

from __future__ import annotations

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune.config import FinetuneConfig


def steps_of_epoch(config: FinetuneConfig, images: int, members: int) -> int:
    """Returns the number of steps of one epoch; an incomplete last step is left out where there is another.

    Raises:
        SubnetSearchError: where there are fewer images than members, in `split`.
    """
    _, total = _rows(config, images, members)
    return total


def order_of_epoch(config: FinetuneConfig, images: int, members: int, epoch: int) -> Tensor:
    """Draws the images of an epoch.

    The draw depends on seed and epoch alone, so that a resumed run continues as if nothing had happened.

    Args:
        config: Mode, batch size, bagging and seed.
        images: Number of training images.
        members: Number of members.
        epoch: Number of the epoch, from 0.

    Returns:
        Indices of images, int64 `[step, member, row]`.
    """
    rows, steps = _rows(config, images, members)
    generator = torch.Generator().manual_seed(1_000_003 * config.seed + epoch)
    wanted = rows * steps
    if config.bagging:
        dealt = torch.stack([_bootstrap(config, images, member, generator)[:wanted] for member in range(members)])
    elif config.mode == "repeat":
        dealt = torch.randperm(images, generator=generator)[:wanted].expand(members, wanted)
    else:
        dealt = torch.randperm(images, generator=generator)[: members * wanted].view(members, wanted)
    return dealt.view(members, steps, rows).transpose(0, 1)


def _rows(config: FinetuneConfig, images: int, members: int) -> tuple[int, int]:
    """Rows of each member in a step, and steps in an epoch."""
    share = images // members if config.mode == "split" else images
    if share == 0:
        raise SubnetSearchError(
            f"finetune: {images} training images cannot be split over {members} members, expected at least one each; give more images, or use finetune.mode=repeat"
        )
    rows = max(1, config.batch_size // members) if config.mode == "split" else config.batch_size
    rows = min(rows, share)
    return rows, share // rows


def _bootstrap(config: FinetuneConfig, images: int, member: int, generator: torch.Generator) -> Tensor:
    """The member's own bootstrap, the same in every epoch, in an order of this epoch."""
    own = torch.Generator().manual_seed(7_919 * config.seed + member + 1)
    drawn = torch.randint(images, (images,), generator=own)
    return drawn[torch.randperm(images, generator=generator)]
