"""What a network expects of its input and means by its output; travels with every export."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError


@dataclass(frozen=True)
class Card:
    """The contract between a network and the images it is given.

    Attributes:
        name: Name or `module:callable` from which the network is built.
        input_shape: Shape of one sample, `(channels, height, width)` for images.
        classes: Class names in the order of the logits.
        mean: Per-channel mean that is subtracted from values in [0, 1].
        std: Per-channel standard deviation that divides what is left.
        arguments: Keyword arguments with which the network is built.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    arguments: tuple[tuple[str, int | float | str | bool], ...] = ()

    def __post_init__(self) -> None:
        channels = self.input_shape[0]
        for label, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise SubnetSearchError(
                    f"card {self.name!r}: {label} has {len(values)} values, expected 1 or {channels} (one for each input channel)"
                )
        if min(self.std) <= 0:
            raise SubnetSearchError(f"card {self.name!r}: std is {self.std}, expected positive numbers")

    def prepare(self, images: Tensor) -> Tensor:
        """Turns raw images into the network's input.

        Args:
            images: `[batch, *input_shape]`, uint8 in 0..255 or floating point in [0, 1].

        Returns:
            float32 of the same shape, normalised.

        Raises:
            SubnetSearchError: where the shape is not the card's.
        """
        if tuple(images.shape[1:]) != tuple(self.input_shape):
            raise SubnetSearchError(
                f"images have shape {tuple(images.shape[1:])}, the network {self.name!r} expects {tuple(self.input_shape)}; resize or pad them first"
            )
        scaled = images.float().div(255.0) if images.dtype == torch.uint8 else images.float()
        broadcast = (-1,) + (1,) * (len(self.input_shape) - 1)
        mean = torch.tensor(self.mean, device=images.device).view(broadcast)
        std = torch.tensor(self.std, device=images.device).view(broadcast)
        return (scaled - mean) / std
