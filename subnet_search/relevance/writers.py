"""The weights that write a group's channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subnet_search.ensemble import MemberMask
from subnet_search.groups import ChannelGroup


def writers(network: nn.Module, group: ChannelGroup) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
    """Finds the weights that write a group's channels.

    Returns:
        For each writing convolution or linear layer its weight, the rows that belong to the group, int64 `[row]`,
        and the channel of each row.
    """
    found = []
    for part in group.slices:
        module = network.get_submodule(part.module)
        layer = module.layer if isinstance(module, MemberMask) else module
        weight = getattr(layer, "weight", None)
        if (
            part.side == "out"
            and isinstance(weight, nn.Parameter)
            and isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
        ):
            rows = torch.tensor([place for places in part.index for place in places])
            channels = torch.tensor([c for c, places in enumerate(part.index) for _ in places])
            found.append((weight, rows, channels))
    return found
