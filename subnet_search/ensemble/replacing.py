"""Puts other layers in the place of those of a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def replace_layers(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Replaces layers under every name that they have, so that one layer with several names stays one.

    `named_modules` tells a single name of each layer, while the network's code may call it by another.

    Args:
        network: The network; it is changed.
        others: Layer of the network → what comes in its place.
    """
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module in others:
            network.set_submodule(name, others[module])
