"""Which member sees which image when: the only place where the training modes differ."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune.config import FinetuneConfig, Mode


def steps_of_epoch(config: FinetuneConfig, images: int, members: int, inputs: int = 1) -> int:
    """Returns the number of steps of one epoch; an incomplete last step is left out where there is another.

    Args:
        config: Mode, batch size and repetitions.
        images: Number of training images.
        members: Number of members, all inputs counted.
        inputs: Images that a network takes in at once; `members` is a multiple of it.

    Raises:
        SubnetSearchError: where there are fewer images than networks to split them over.
    """
    _, steps = _rows(config, images, members // inputs)
    return steps


def order_of_epoch(config: FinetuneConfig, images: int, members: int, epoch: int, inputs: int = 1) -> Tensor:
    """Draws the images of an epoch.

    The draw depends on seed and epoch alone, so that a resumed run continues as if nothing had happened.

    Args:
        config: Mode, batch size, repetitions, bagging and seed.
        images: Number of training images.
        members: Number of members, all inputs counted.
        epoch: Number of the epoch, from 0.
        inputs: Images that a network takes in at once; `members` is a multiple of it.

    Returns:
        Indices of images, int64 `[step, member, row]`.
    """
    networks = members // inputs
    rows, steps = _rows(config, images, networks)
    distinct = rows // _repetition(config, rows)
    wanted = distinct * steps
    generator = torch.Generator().manual_seed(1_000_003 * config.seed + epoch)
    if config.bagging:
        dealt = torch.stack([_bootstrap(config, images, network, generator)[:wanted] for network in range(networks)])
    elif config.mode == "repeat":
        dealt = torch.randperm(images, generator=generator)[:wanted].expand(networks, wanted)
    elif config.mode == "independent":
        dealt = torch.stack([torch.randperm(images, generator=generator)[:wanted] for _ in range(networks)])
    else:
        dealt = torch.randperm(images, generator=generator)[: networks * wanted].view(networks, wanted)
    order = dealt.view(networks, steps, distinct).transpose(0, 1).repeat(1, 1, rows // distinct)
    return order if inputs == 1 else _inputs(order, inputs, config.input_repetition, generator)


def _inputs(order: Tensor, inputs: int, repetition: float, generator: torch.Generator) -> Tensor:
    """Shuffles the rows of each step anew for each input, but for a share in which all inputs see one image.

    Havasi et al. 2021, section 3.2 and appendix; `[step, network, row]` → `[step, network * input, row]`.
    """
    rows = order.shape[2]
    common = round(repetition * rows)
    shuffled = []
    for _ in range(inputs):
        keys = torch.rand(order.shape, generator=generator)
        keys[..., :common] = torch.arange(common) - float(rows)  # below all others, in their present order
        shuffled.append(order.gather(2, keys.argsort(dim=2)))
    return torch.stack(shuffled, dim=2).flatten(1, 2)


def _rows(config: FinetuneConfig, images: int, networks: int) -> tuple[int, int]:
    """Rows of each network in a step, and steps in an epoch."""
    if config.mode is None:
        raise SubnetSearchError(
            f"finetune.mode is None, expected one of {', '.join(get_args(Mode))}: only a run can choose it"
        )
    share = images // networks if config.mode == "split" else images
    if share == 0:
        raise SubnetSearchError(
            f"finetune: {images} training images cannot be split over {networks} members, expected at least one each; give more images, or use finetune.mode=repeat"
        )
    rows = max(1, config.batch_size // networks) if config.mode == "split" else config.batch_size
    rows = min(rows, share)
    repetition = _repetition(config, rows)
    rows = rows // repetition * repetition
    return rows, share // rows


def _repetition(config: FinetuneConfig, rows: int) -> int:
    """How often an image can stand in a step of so many rows."""
    return min(config.batch_repetition, rows)


def _bootstrap(config: FinetuneConfig, images: int, network: int, generator: torch.Generator) -> Tensor:
    """The network's own bootstrap, the same in every epoch, in an order of this epoch."""
    own = torch.Generator().manual_seed(7_919 * config.bootstrap_seed + network + 1)
    drawn = torch.randint(images, (images,), generator=own)
    return drawn[torch.randperm(images, generator=generator)]
