"""Normalisation by the statistics of a batch that the running ones do not follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


@contextmanager
def standing_statistics(network: nn.Module) -> Iterator[None]:
    """While open, normalisation layers in training mode normalise by the batch, and their running statistics stand still.

    For images that a network is trained to answer in some way, and not trained for: normalised by the running statistics,
    which lag behind the weights, they would pull on the scale of these instead.

    Args:
        network: The network that is run.
    """
    counts = [module.num_batches_tracked for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(count, count.clone()) for count in counts if count is not None]
    try:
        with _Standing():
            yield
    finally:
        for count, value in before:
            count.copy_(value)


class _Standing(TorchFunctionMode):
    """Takes the running statistics out of every normalisation in training mode, as in `SyncedNorms`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs the call, without running statistics where they would be changed."""
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Any,  # noqa: A002 - the names are those of torch.nn.functional.batch_norm
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """`F.batch_norm` that changes nothing."""
    mean, var = (None, None) if training else (running_mean, running_var)
    return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)
