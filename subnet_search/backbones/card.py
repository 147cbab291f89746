"""What a network expects of its input and means by its output; travels with every export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError

Argument = int | float | str | bool


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

    Raises:
        SubnetSearchError: where a shape is not positive, classes are fewer than two or not distinct, or mean and std
            do not fit the channels.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    arguments: tuple[tuple[str, Argument], ...] = ()

    def __post_init__(self) -> None:
        if not self.input_shape or min(self.input_shape) < 1:
            raise SubnetSearchError(
                f"card {self.name!r}: input_shape is {self.input_shape}, expected positive numbers such as (3, 32, 32)"
            )
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise SubnetSearchError(
                f"card {self.name!r}: classes are {self.classes}, expected at least two distinct names in the order of the logits"
            )
        channels = self.input_shape[0]
        for label, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise SubnetSearchError(
                    f"card {self.name!r}: {label} has {len(values)} values, expected 1 or {channels} (one for each input channel)"
                )
            if not all(math.isfinite(value) for value in values):
                raise SubnetSearchError(f"card {self.name!r}: {label} is {values}, expected finite numbers")
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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, from which `from_dict` makes an equal card."""
        return {**{key: _listed(value) for key, value in asdict(self).items()}, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, content: Any, source: str = "card") -> Card:
        """Makes a card of JSON values.

        Args:
            content: What `to_dict` returned, as read back from JSON.
            source: Where it comes from, for the error message.

        Raises:
            SubnetSearchError: where keys are missing or unknown, or a value has another type.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(content, Mapping) or set(content) != set(names):
            found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise SubnetSearchError(
                f"{source}: found {found}, expected a mapping with exactly the keys {sorted(names)}"
            )
        arguments = content["arguments"]
        if not isinstance(content["name"], str):
            raise SubnetSearchError(f"{source}: name is {content['name']!r}, expected a string")
        if not isinstance(arguments, Mapping) or not all(isinstance(value, Argument) for value in arguments.values()):
            raise SubnetSearchError(
                f"{source}: arguments are {arguments!r}, expected a mapping to numbers, strings or booleans"
            )
        return cls(
            name=content["name"],
            input_shape=_tuple(content["input_shape"], int, f"{source}: input_shape"),
            classes=_tuple(content["classes"], str, f"{source}: classes"),
            mean=_tuple(content["mean"], float, f"{source}: mean"),
            std=_tuple(content["std"], float, f"{source}: std"),
            arguments=tuple(arguments.items()),
        )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuple(values: Any, kind: type, label: str) -> tuple[Any, ...]:
    """Returns `values` as a tuple of `kind`, integers standing for floats where those are asked for."""
    wanted = (int, float) if kind is float else kind
    if not isinstance(values, list | tuple) or not all(
        isinstance(v, wanted) and not isinstance(v, bool) for v in values
    ):
        raise SubnetSearchError(f"{label} is {values!r}, expected a list of {kind.__name__}")
    return tuple(kind(value) for value in values)
