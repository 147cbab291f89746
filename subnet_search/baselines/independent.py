"""K networks side by side: Deep Ensembles, and a single network as the ensemble of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import Predictor
from subnet_search.errors import SubnetSearchError


class IndependentEnsemble(Predictor):
    """Networks that share nothing (Lakshminarayanan et al. 2017).

    Args:
        networks: K networks, each from prepared images to logits `[batch, class]`; taken as they are, not copied.
        card: What they expect and mean.
        macs: Multiply-accumulates of all of them together for one image.

    Raises:
        SubnetSearchError: where there is no network.
    """

    def __init__(self, networks: Sequence[nn.Module], card: Card, macs: int) -> None:
        super().__init__()
        if not networks:
            raise SubnetSearchError("an ensemble of independent networks got none, expected at least one")
        self.networks = nn.ModuleList(networks)
        self.members = len(networks)
        self.card = card
        self._macs = macs

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`."""
        rows = [x] * self.members if repeat else self._rows(x, repeat).chunk(self.members)
        return torch.stack([network(part) for network, part in zip(self.networks, rows, strict=True)])

    def macs(self) -> int:
        """Returns the multiply-accumulates of all networks together for one image."""
        return self._macs

    def identity(self) -> Mapping[str, Any]:
        """Returns the number of networks; all else is in their weights."""
        return {"independent": self.members}
