"""Networks that leave parts of themselves out at random, in training and in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from subnet_search.baselines.rewired import RewiredEnsemble
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.ensemble.row_share import drawn_rows
from subnet_search.errors import SubnetSearchError

Unit = Literal["channel", "branch"]


class Sampled(nn.Module):
    """A layer whose output channels, or whose whole output, is left out at random.

    In training every row draws anew; in use each member has one draw for good, so that its answer is one function of
    the image. What stays is divided by its probability, which keeps the expectation (Srivastava et al. 2014, section 10).

    Args:
        layer: The layer.
        width: Number of its output channels.
        rate: Probability of being left out, in [0, 1).
        unit: Whether channels are left out one by one (Tompson et al. 2015), or all of them (Huang et al. 2016).
        members: Number of draws for use.
        seed: Seed of all draws.
    """

    draws: Tensor
    step: Tensor

    def __init__(self, layer: nn.Module, width: int, rate: float, unit: Unit, members: int, seed: int) -> None:
        super().__init__()
        self.layer = layer
        self.rate = rate
        self.seed = seed
        self.channel_axis = int(getattr(layer, "channel_axis", 1))
        self.units = width if unit == "channel" else 1
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("draws", torch.rand(members, self.units, generator=generator) >= rate)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layer on member-major rows and leaves a part of its output out."""
        out: Tensor = self.layer(x)
        if self.rate == 0.0:
            return out
        if self.training:
            # a seed for each step, so that a resumed training draws what the undisturbed one would have drawn
            generator = torch.Generator(out.device).manual_seed(1_000_003 * self.seed + int(self.step) + 1)
            kept = drawn_rows(len(out), self.units, len(self.draws), generator) >= self.rate
            self.step += 1
        else:
            kept = self.draws.repeat_interleave(len(out) // len(self.draws), dim=0)
        shape = [len(out)] + [1] * (out.ndim - 1)
        shape[self.channel_axis] = self.units
        return out * (kept.to(out.dtype) / (1.0 - self.rate)).view(shape)


class SampledEnsemble(RewiredEnsemble):
    """An ensemble whose members leave out channels or residual branches at random, which saves no work.

    Args:
        ensemble: The ensemble; taken over and changed, so make one for this.
        rates: Name of a layer in the ensemble's network → probability that its output is left out.
        unit: What is left out as one.
        seed: Seed of all draws.

    Raises:
        SubnetSearchError: where there is no layer to leave out.
    """

    def __init__(self, ensemble: SubnetEnsemble, rates: Mapping[str, float], unit: Unit, seed: int) -> None:
        if not rates:
            raise SubnetSearchError(
                f"the network {ensemble.card.name!r} has no {unit} to leave out at random; use another method"
            )
        super().__init__(ensemble, {"unit": unit, "rates": dict(rates), "seed": seed})
        for number, (name, rate) in enumerate(rates.items()):
            layer = self.network.get_submodule(name)
            mask = layer.mask
            assert isinstance(mask, Tensor)
            own = Sampled(layer, mask.shape[1], rate, unit, self.members, 7_919 * seed + number)
            replace_layers(self.network, {layer: own})
