"""What an ensemble is compared with in PyTorch, and in which layouts of memory."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.formats import to_masksembles

Dtype = Literal["fp32", "bf16"]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


class Converting(nn.Module):
    """A network that gets its input in another type and layout of memory, as its weights have them.

    Args:
        network: The network; it is copied and stays as it was.
        dtype: `fp32`, or `bf16` for weights and activations in bfloat16.
        layout: One of `LAYOUTS`.
    """

    def __init__(self, network: nn.Module, dtype: Dtype, layout: str = "contiguous") -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        self.layout = LAYOUTS[layout]
        self.network = copy.deepcopy(network).eval()
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(self.dtype)
                if tensor.ndim == 4:
                    tensor.data = tensor.data.contiguous(memory_format=self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the network returns."""
        x = x.to(self.dtype)
        out: Tensor = self.network(x.contiguous(memory_format=self.layout) if x.ndim == 4 else x)
        return out


class Repeated(nn.Module):
    """A network of member-major rows that is given each image once for every member.

    Args:
        network: Rows `[member * batch, ...]` → logits `[member * batch, class]`.
        members: Number of members K.
    """

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits `[member, batch, class]` of a prepared input `[batch, ...]`."""
        logits: Tensor = self.network(x.repeat(self.members, *[1] * (x.ndim - 1)))
        return torch.unflatten(logits, 0, (self.members, -1))


def official_network(network: nn.Module, ensemble: SubnetEnsemble) -> nn.Module:
    """Builds the ensemble as the official package has it: norms shared, and K passes of the dense network.

    Args:
        network: The dense network, on the CPU.
        ensemble: Its ensemble, on the CPU, whose masks are taken.

    Returns:
        Prepared input `[batch, ...]` → logits `[member, batch, class]`.

    Raises:
        SubnetSearchError: where the package masksembles is missing, or its layers cannot mask what is masked.
    """
    shared = SubnetEnsemble(network, ensemble.graph, ensemble.masks, ensemble.card, EnsembleConfig(norm="shared"))
    return Repeated(to_masksembles(shared), ensemble.members)
