"""The one call in which every batch normalisation layer ends, and another function in its place.

So no layer of a user's network or of ours needs a second form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NormCalls(TorchFunctionMode):
    """While open, calls of `torch.nn.functional.batch_norm` go to another function.

    Args:
        instead: Takes the same arguments.
    """

    def __init__(self, instead: Callable[..., Tensor]) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs the call, or the other function in its place."""
        return (self.instead if func is F.batch_norm else func)(*args, **(kwargs or {}))
