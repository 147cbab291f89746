"""Modes that networks are put into for a while, and come back from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Puts every module of some networks into eval mode, and back into its own mode afterwards."""
    with own_modes(*networks):
        for network in networks:
            network.eval()
        yield


@contextmanager
def own_modes(*networks: nn.Module) -> Iterator[None]:
    """Puts every module of some networks back into its own mode afterwards, whatever happens in between."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
