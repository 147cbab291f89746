"""The weights that write a group's channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from subnet_search.ensemble import MemberMask
from subnet_search.groups import ChannelGroup


@dataclass(frozen=True)
class Writer:
    """One weight that writes channels of a group.

    Attributes:
        weight: Of a convolution or a linear layer.
        axis: The axis of the weight that holds the outputs.
        rows: Positions on that axis that belong to the group, int64 `[row]`.
        channels: The channel of each row, int64 `[row]`.
    """

    weight: Tensor
    axis: int
    rows: Tensor
    channels: Tensor

    def squares(self, values: Tensor, width: int) -> Tensor:
        """Sums the squares of values of the weight's shape over each channel: float32 `[channel]`, `width` of them."""
        rows = values.movedim(self.axis, 0)[self.rows.to(values.device)].flatten(1).float().square().sum(dim=1)
        return rows.new_zeros(width).index_add_(0, self.channels.to(values.device), rows)


def writers(network: nn.Module, group: ChannelGroup) -> list[Writer]:
    """Finds the weights that write a group's channels: of convolutions, transposed or not, and linear layers."""
    found = []
    for part in group.slices:
        module = network.get_submodule(part.module)
        layer = module.layer if isinstance(module, MemberMask) else module
        if part.side == "out" and isinstance(layer, nn.Linear | _ConvNd):
            # transposed convolutions hold [in, out, ...]; depthwise ones [channel, 1, ...] either way
            transposed = isinstance(layer, _ConvTransposeNd) and layer.groups == 1
            rows = torch.tensor([place for places in part.index for place in places])
            channels = torch.tensor([c for c, places in enumerate(part.index) for _ in places])
            found.append(Writer(layer.weight, int(transposed), rows, channels))
    return found
