"""Networks as they were before their training."""

from __future__ import annotations

import copy

import torch
from torch import nn

from subnet_search.errors import SubnetSearchError


def untrained(network: nn.Module, seed: int) -> nn.Module:
    """Returns a copy of a network with fresh weights.

    Every layer draws them as PyTorch does where it is made (`reset_parameters`), whatever the constructor of the
    network may do beside. Before normalisation layers another scale changes no answer, but the size of a step beside the
    weights: a ResNet's own weights are 2.4 times as large.

    Args:
        network: The network; it is not changed.
        seed: Seed of the weights; the global random state is left as it was.

    Returns:
        The copy, in the same mode, on the CPU.

    Raises:
        SubnetSearchError: where a layer with weights has no `reset_parameters`.
    """
    fresh = copy.deepcopy(network).cpu()  # an accelerator would draw other numbers
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too, for good
        for name, module in fresh.named_modules():
            # attention hides the method behind an underscore
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise SubnetSearchError(
                    f"module {name!r} ({type(module).__name__}) has no reset_parameters(), so its weights would stay trained; give it that method, or compare methods that start from the backbone"
                )
    return fresh
