"""Normalisation by the statistics of a batch that the running ones do not follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.ensemble.norm_calls import NormCalls


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
        with NormCalls(_batch_norm):
            yield
    finally:
        for count, value in before:
            count.copy_(value)


def _batch_norm(
    input: Tensor,  # noqa: A002 - the names are those of torch.nn.functional.batch_norm
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` that changes nothing."""
    mean, var = (None, None) if training else (running_mean, running_var)
    return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)
