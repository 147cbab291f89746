"""How activations and weights lie in memory while a network is trained."""

from __future__ import annotations

import logging

import torch

from subnet_search.ensemble import Predictor
from subnet_search.ensemble.modes import eval_mode
from subnet_search.errors import first_line

log = logging.getLogger("subnet_search")


def lay_out(ensemble: Predictor) -> torch.memory_format:
    """Puts the weights of a network of images channels-last, which CPUs and GPUs run faster, where it runs like that.

    Code such as `x.view(len(x), -1)` behind a convolution does not, so it is tried.

    Args:
        ensemble: Changed in place, on the device where it is to be trained.

    Returns:
        How its input has to lie in memory.
    """
    shape = ensemble.card.input_shape
    if len(shape) != 3:
        return torch.contiguous_format
    like = next(ensemble.parameters())
    x = torch.zeros(2, *shape, dtype=like.dtype, device=like.device).to(memory_format=torch.channels_last)
    ensemble.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # the stubs know only devices
    try:
        with eval_mode(ensemble), torch.no_grad():
            ensemble(x)
    except RuntimeError as problem:
        log.info("trained with contiguous tensors, as the network does not run channels-last: %s", first_line(problem))
        ensemble.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # the same
        return torch.contiguous_format
    return torch.channels_last
