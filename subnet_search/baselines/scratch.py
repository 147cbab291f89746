"""Networks as they were before their training."""

from __future__ import annotations

import copy

import torch
from torch import nn


def untrained(network: nn.Module, seed: int) -> nn.Module:
    """Returns a copy of a network with fresh weights.

    Every layer draws them as PyTorch does where it is made (`reset_parameters`), whatever the constructor of the
    network may do beside: before normalisation layers the scale is without effect.

    Args:
        network: The network; it is not changed.
        seed: Seed of the weights; the global random state is left as it was.

    Returns:
        The copy, in the same mode, on the CPU.
    """
    fresh = copy.deepcopy(network).cpu()  # an accelerator would draw other numbers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh
