"""Calls with a number of channels written into the code, found by their place in the forward pass.

`F.pad(x, (0, 0, 0, 0, 8, 8))` or `x.split([16, 16], dim=1)` say how many channels there are. A sliced network runs the
same Python code, so these numbers are replaced while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from subnet_search.groups.channel_group import ResizeCall

PADS = (F.pad,)
SPLITS = (torch.split, Tensor.split, torch.chunk, Tensor.chunk)


def resizes(func: Callable[..., Any]) -> bool:
    """Whether a function is one of those that are counted."""
    return any(func is known for known in PADS + SPLITS)


class CallRecorder(TorchFunctionMode):
    """Notes the autograd node that every padding or splitting call of a forward pass makes, in order of execution.

    Attributes:
        nodes: One autograd node for each call; None where the result needs no gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs the call and notes it."""
        result = func(*args, **(kwargs or {}))
        if resizes(func):
            first = result if isinstance(result, Tensor) else result[0]
            self.nodes.append(first.grad_fn)
        return result


Plans = Mapping[int, tuple[ResizeCall, list[int]]]
"""Number of a call → the call, and the channels that it is to pad or to split into."""


def plans_of(resizes: Sequence[ResizeCall], kept: Mapping[str, Tensor]) -> Plans:
    """Counts what the calls of a sliced network have to pad, or to split into.

    Args:
        resizes: The calls to change.
        kept: Group name → bool `[channel]`; groups not named are whole.
    """
    alive = {name: mask.tolist() for name, mask in kept.items()}
    return {resize.number: (resize, _counts(resize, alive)) for resize in resizes}


class ResizedCalls(TorchFunctionMode):
    """Replaces the numbers of channels in the padding and splitting calls of one forward pass.

    Args:
        plans: What `plans_of` says; counted before, so that no tensor is asked for it in the forward pass.
    """

    def __init__(self, plans: Plans) -> None:
        super().__init__()
        self.plans = plans
        self.number = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs the call, with other numbers where it is one of those to change."""
        named = dict(kwargs or {})
        if not resizes(func):
            return func(*args, **named)
        plan = self.plans.get(self.number)
        self.number += 1
        if plan is None:
            return func(*args, **named)
        resize, counts = plan
        tensor: Tensor = args[0] if args else named.pop("input" if "input" in named else "tensor")
        if any(func is known for known in SPLITS):
            return torch.split(tensor, counts, dim=resize.axis)
        amounts = list(args[1] if len(args) > 1 else named.pop("pad"))
        place = 2 * (tensor.ndim - 1 - resize.axis)
        amounts[place : place + 2] = counts
        return func(tensor, amounts, *args[2:], **named)


def _counts(resize: ResizeCall, alive: Mapping[str, list[bool]]) -> list[int]:
    """Kept channels: of each result of a split, or of the left and the right region of a padding."""

    def count(labels: Sequence[tuple[str, int] | None]) -> int:
        return sum(label is None or label[0] not in alive or alive[label[0]][label[1]] for label in labels)

    if resize.left or resize.right:
        (labels,) = resize.labels
        return [count(labels[: resize.left]), count(labels[len(labels) - resize.right :])]
    return [count(labels) for labels in resize.labels]
