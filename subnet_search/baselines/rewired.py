"""A masked ensemble some of whose layers are replaced: what is left of it when its masks cannot be read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from subnet_search.ensemble import Predictor, SubnetEnsemble


class RewiredEnsemble(Predictor):
    """The network of an ensemble, for subclasses to replace layers in.

    Args:
        ensemble: The ensemble; taken over and changed, so make one for this.
        described: What the subclass changes, plain JSON values.
    """

    def __init__(self, ensemble: SubnetEnsemble, described: Mapping[str, Any]) -> None:
        super().__init__()
        self.members, self.card = ensemble.members, ensemble.card
        self._macs, self._identity = ensemble.macs(), {**ensemble.identity(), **described}
        self.network = ensemble.network

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`."""
        logits: Tensor = self.network(self._rows(x, repeat))
        return torch.unflatten(logits, 0, (self.members, -1))

    def macs(self) -> int:
        """Returns the multiply-accumulates of the ensemble as it was: those of all passes together for one image."""
        return self._macs

    def identity(self) -> Mapping[str, Any]:
        """Returns what the ensemble was made of, and what was changed."""
        return self._identity
