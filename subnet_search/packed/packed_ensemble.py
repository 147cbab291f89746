"""An ensemble in the form in which it runs fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import Predictor
from subnet_search.errors import SubnetSearchError

Shape = Literal["sliced", "grouped", "merged"]


@dataclass(frozen=True)
class Form:
    """How an ensemble is computed.

    Attributes:
        shape: `sliced` runs K thin networks one after the other, `grouped` one network with the members side by side in
            its channels, `merged` the same with narrow groups of its convolutions joined (`merge_groups`).
        shared_stem: Whether the layers before the members' first norms are computed once for all, their norms then
            not being folded.
        channels_last: Whether activations lie channels-last in memory.
        precision: `bf16` computes with weights and activations in bfloat16.
        compiled: Whether `torch.compile` has worked on it.
    """

    shape: Shape
    shared_stem: bool = False
    channels_last: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        """Returns its name in tables, such as `grouped, channels-last`."""
        extras = {
            "shared stem": self.shared_stem,
            "channels-last": self.channels_last,
            "bf16": self.precision == "bf16",
            "compiled": self.compiled,
        }
        return ", ".join([self.shape, *(name for name, given in extras.items() if given)])


@dataclass(frozen=True)
class PackingReport:
    """What was found out when an ensemble was packed.

    Attributes:
        timings_ms: Form → median milliseconds a batch, measured in turns, the fastest first.
        batch: Size of that batch.
        difference: Largest difference of the logits from the masked network's, relative to each member's largest
            logit: that of the form chosen.
        unavailable: Form → why it is not offered.
    """

    timings_ms: Mapping[str, float]
    batch: int
    difference: float
    unavailable: Mapping[str, str]


class PackedEnsemble(Predictor):
    """The same function as a `SubnetEnsemble`, physically small and for inference only; `pack` makes it.

    Args:
        network: Prepared input `[batch, ...]` → logits `[member, batch, class]`, on its device and in its precision.
        form: How it computes.
        report: What was measured.
        members: Number of members.
        card: What the network expects and means.
        macs: Multiply-accumulates of all members together for one image.
        identity: Masks and settings of the ensemble.
    """

    def __init__(
        self,
        network: nn.Module,
        form: Form,
        report: PackingReport,
        members: int,
        card: Card,
        macs: int,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.network, self.form, self.report = network, form, report
        self.members, self.card = members, card
        self._macs, self._identity = macs, dict(identity)
        super().train(False)

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`.

        Without `repeat` every member sees all rows, and each keeps its own: K times the work.
        """
        if not repeat:
            answers = self(self._rows(x, repeat)).unflatten(1, (self.members, -1))
            return torch.stack([answers[k, k] for k in range(self.members)])
        if self.form.precision == "bf16":
            x = x.bfloat16()
        if self.form.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(x)
        return logits.float() if self.form.precision == "bf16" else logits

    def train(self, mode: bool = True) -> PackedEnsemble:
        """Refuses to train, as norms are folded and weights are copies; `eval()` is allowed.

        Args:
            mode: Whether training is asked for.

        Returns:
            The ensemble, in eval mode.

        Raises:
            SubnetSearchError: where `mode` is true.
        """
        if mode:
            raise SubnetSearchError(
                "a packed ensemble cannot be trained; train the SubnetEnsemble that it was made from and pack that"
            )
        return super().train(False)

    def macs(self) -> int:
        """Returns the multiply-accumulates of all members together for one image, without padding."""
        return self._macs

    def identity(self) -> dict[str, Any]:
        """Returns masks and settings of the ensemble, and the form."""
        return {**self._identity, "form": str(self.form)}
