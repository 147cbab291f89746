"""Bringing images to the shape that a network expects, or saying why they do not have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from subnet_search.errors import SubnetSearchError


def fit_images(images: Tensor, input_shape: Sequence[int], source: str, resize: bool = False) -> Tensor:
    """Returns the images in the network's shape.

    Args:
        images: `[N, C, H, W]`, uint8 or floating point.
        input_shape: `(channels, height, width)` of the network.
        source: Where the images come from, for the error message.
        resize: Whether to change what does not fit: bilinear resizing with antialiasing, and grey repeated to RGB or
            RGB averaged to grey. Otherwise another shape is an error.

    Returns:
        `[N, *input_shape]` of the same type.

    Raises:
        SubnetSearchError: where the shape differs and may not or cannot be changed.
    """
    shape = tuple(images.shape[1:])
    if shape == tuple(input_shape):
        return images
    wanted = f"{source}: images have shape {shape} (channels, height, width), the network expects {tuple(input_shape)}"
    if not resize:
        raise SubnetSearchError(f"{wanted}; resize them, or ask for it with resize=True (--resize)")
    if (
        len(shape) != 3
        or len(input_shape) != 3
        or (shape[0] != input_shape[0] and {shape[0], input_shape[0]} != {1, 3})
    ):
        raise SubnetSearchError(f"{wanted}; this cannot be resized, only height, width and grey to RGB or back can")
    changed = images.float()
    if shape[0] != input_shape[0]:
        changed = changed.expand(-1, 3, -1, -1) if shape[0] == 1 else changed.mean(dim=1, keepdim=True)
    if shape[1:] != tuple(input_shape[1:]):
        changed = F.interpolate(changed, size=tuple(input_shape[1:]), mode="bilinear", antialias=True)
    if images.dtype == torch.uint8:
        return changed.round().clamp(0, 255).to(torch.uint8)
    return changed.clamp(0, 1).to(images.dtype)
