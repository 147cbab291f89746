"""Random changes of whole training batches, before normalisation."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from subnet_search.errors import SubnetSearchError

Augmentation = Literal["none", "crop-flip", "crop"]
"""The random changes that there are."""


def augment(images: Tensor, kind: Augmentation, generator: Generator) -> Tensor:
    """Changes each image of a batch at random.

    Args:
        images: `[batch, channels, H, W]`, any type.
        kind: `none` changes nothing. `crop-flip` shifts by up to 4 pixels each way, zeros moving in, and mirrors half
            of the images left to right (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section
            4.2). `crop` shifts by up to 1 pixel, for small images that must not be mirrored.
        generator: Source of the randomness; advanced by the same amount for the same `kind` and batch size.

    Returns:
        Images of the same shape and type.

    Raises:
        SubnetSearchError: where there is no such `kind`, or images are not `[batch, channels, H, W]`.
    """
    if kind not in get_args(Augmentation):
        raise SubnetSearchError(f"no augmentation {kind!r}, expected one of {', '.join(get_args(Augmentation))}")
    if kind == "none":
        return images
    if images.ndim != 4:
        raise SubnetSearchError(
            f"augmentation {kind!r} needs images [batch, channels, H, W], got shape {tuple(images.shape)}; use 'none'"
        )
    if kind == "crop":
        return _shift(images, 1, generator)
    return _flip(_shift(images, 4, generator), generator)


def _shift(images: Tensor, most: int, generator: Generator) -> Tensor:
    count, _, height, width = images.shape
    drawn = torch.randint(0, 2 * most + 1, (2, count), generator=generator, device=generator.device)
    down, right = drawn.to(images.device)
    windows = F.pad(images, (most,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, down, right]


def _flip(images: Tensor, generator: Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
