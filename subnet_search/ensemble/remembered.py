"""What members compute alike from what they have in common, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_REMEMBERED: frozenset[Callable[..., Any]] = frozenset(
    {
        *(F.relu, F.relu6, F.leaky_relu, F.elu, F.silu, F.gelu, F.hardtanh, F.hardswish, F.hardsigmoid, F.pad),
        *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
        *(torch.relu, torch.sigmoid, torch.tanh, torch.add, torch.mul, torch.cat, torch.flatten),
        *(Tensor.relu, Tensor.sigmoid, Tensor.tanh, Tensor.add, Tensor.mul, Tensor.flatten, Tensor.__getitem__),
        *(Tensor.__add__, Tensor.__radd__, Tensor.__mul__, Tensor.__rmul__),
    }
)
"""Functions without a state, without chance and without weights. Any other is computed again, which is right as well."""


class Remembered(TorchFunctionMode):
    """While open, functions of known tensors alone return what they returned before for the same tensors.

    What they return is known in turn, so that everything which follows from a trunk is computed once however many
    members ask for it, and its gradient comes back once. A tensor that was changed in place since counts as another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, Tensor] = {}  # by identity; held, so that no other tensor takes the same one
        self.results: dict[tuple[Any, ...], tuple[Tensor, int]] = {}

    def know(self, tensor: Tensor) -> None:
        """Declares a tensor the same for all members."""
        self.known[id(tensor)] = tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs a function, or remembers what it has returned."""
        named = dict(kwargs or {})
        key = self._key(func, (*args, *sorted(named.items()))) if func in _REMEMBERED else None
        if key is None:
            return func(*args, **named)
        if key in self.results:
            result, version = self.results[key]
            if result._version == version:
                return result
        result = func(*args, **named)
        if isinstance(result, Tensor) and not result.is_inference():
            self.know(result)
            self.results[key] = result, result._version
        return result

    def _key(self, func: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What is computed from what; None where it depends on tensors that are not known."""
        try:
            return func, torch.is_grad_enabled(), *(self._part(argument) for argument in arguments)
        except (KeyError, TypeError):
            return None

    def _part(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return "tensor", id(self.known[id(argument)]), argument._version
        if isinstance(argument, tuple | list):
            return type(argument), *map(self._part, argument)
        if isinstance(argument, slice):  # has no hash before Python 3.12
            return "slice", argument.start, argument.stop, argument.step
        hash(argument)
        return type(argument), argument
