"""An ensemble whose masks are undecided: gates are ranked in every step, and the best of each member are open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.ensemble import Predictor, SubnetEnsemble
from subnet_search.relevance import gated

AJAR = 1e-4  # what a closed gate lets through: at exactly 0 a ReLU behind it would have no gradient to tell


class Gates(nn.Module):
    """The gates of one group: a place in the ranking for each member and channel.

    In training, noise is added and exactly the quotas of the ranking are open, so that the members that are trained are
    such as will be kept. Gradients go straight through to a sigmoid at the border (Bengio et al. 2013, section 4), whose
    noise makes it the binary concrete distribution (Maddison et al. 2017; Louizos et al. 2018).

    The gradient in one state misleads: a trained channel that is open is at a stationary point, and does not show what
    its absence would cost. What moves a gate is the mean of its gradients when it is open and when it is closed, which
    is the trapezoid rule for the change of the loss on the way from one to the other, as in `subnet_search.relevance`.
    Both are running averages, as a step says little, and divided by the mean magnitude in the group: like the scores of
    a search they are then 1 on average, and the price of an overlap is on the same scale
    (`subnet_search.search.overlap`).

    Args:
        start: Masks at the beginning, bool `[member, channel]`.
        scores: Relevance `[member, channel]`, which ranks channels that are open, and those that are not.
        noise: Scale of the noise and of the sigmoid, in widths of the group.
        speed: How far the gate of a channel at the border moves under a gradient of 1 at a learning rate of 1, in
            widths of the group.
        memory: Weight of what is new in the running averages, in (0, 1].
        lambda_overlap: Price of the overlap of pairs.
    """

    averages: Tensor
    quotas: Tensor

    def __init__(
        self, start: Tensor, scores: Tensor, noise: float, speed: float, memory: float, lambda_overlap: float
    ) -> None:
        super().__init__()
        self.register_buffer("quotas", start.sum(dim=1, keepdim=True), persistent=False)
        self.noise, self.speed, self.memory, self.lambda_overlap = noise, speed, memory, lambda_overlap
        # open ones behind all others; of equal scores the lower channel is the better one
        order = torch.where(start, scores.max() + 1 + scores, scores).flip(1).argsort(dim=1, stable=True)
        ranks = order.argsort(dim=1).flip(1).float()
        width = start.shape[1]
        # named as other factors of the members are, so that the training loop does not let them decay
        self.alpha = nn.Parameter((ranks + 0.5 - (width - start.sum(dim=1, keepdim=True))) / width)
        self.register_buffer("averages", torch.zeros(2, *start.shape))  # closed, open

    def kept(self) -> Tensor:
        """Returns the channels that are open without noise, bool `[member, channel]`."""
        return self._ranked(self.alpha.detach())[0]

    def forward(self, uniform: Tensor) -> Tensor:
        """Draws the gates of a step.

        Args:
            uniform: The noise, uniform in (0, 1), `[member, channel]`.

        Returns:
            1 or (nearly) 0 `[member, channel]`, differentiable as described.
        """
        places = self.alpha + self.noise * torch.logit(uniform, eps=1e-6)
        hard, border = self._ranked(places.detach())
        soft = torch.sigmoid((places - border) / self.noise)
        gate = hard.to(soft.dtype).clamp(min=AJAR) + soft - soft.detach()
        if gate.requires_grad:
            drawn = soft.detach()
            gate.register_hook(lambda gradient: self._pull(gradient, hard, drawn))
        return gate

    def _ranked(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The best of each member, and the border between them and the rest, `[member, 1]`."""
        ordered, order = places.sort(dim=1, descending=True, stable=True)
        hard = order.argsort(dim=1) < self.quotas
        lowest = ordered.gather(1, self.quotas - 1)
        highest = ordered.gather(1, self.quotas.clamp(max=places.shape[1] - 1))
        # a member that keeps everything has no border: it is far below
        border = torch.where(self.quotas < places.shape[1], (lowest + highest) / 2, lowest - 1e6)
        return hard, border

    @torch.no_grad()
    def _pull(self, gradient: Tensor, hard: Tensor, soft: Tensor) -> Tensor:
        """What moves the gates, from the gradient of the loss: smoothed, on the scale of scores, with the overlap's."""
        states = torch.stack([~hard, hard])
        self.averages.lerp_(torch.where(states, gradient.to(self.averages.dtype), self.averages), self.memory)
        pull = self.averages.mean(dim=0)
        pull /= pull.abs().mean().clamp(min=1e-30)
        shared = soft @ soft.T
        shared.fill_diagonal_(0.0)
        overlap = 2 * self.lambda_overlap / soft.shape[1] * (shared @ soft)
        # a sigmoid rises by 1 / (4 · noise) at the border
        return (pull + overlap) * (4 * self.noise * self.speed)


class GatedEnsemble(Predictor):
    """An ensemble with gates at the sites of its masks.

    Args:
        ensemble: Its masks have to be open wherever there are gates; its weights are those that are trained.
        gates: Group → its gates.
        seed: Seed of the noise.
        described: What else decides the course of the training, plain JSON values.
    """

    shareable = False  # gates are moved by the gradients of all rows of a step
    step: Tensor

    def __init__(
        self, ensemble: SubnetEnsemble, gates: Mapping[str, Gates], seed: int, described: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.members, self.card = ensemble.members, ensemble.card
        self.groups: Sequence[str] = tuple(gates)
        self.gates = nn.ModuleList(gates.values())
        self.seed, self.described = seed, dict(described)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`."""
        rows = len(x) if repeat else len(x) // self.members
        opened = {name: gate.repeat_interleave(rows, dim=0) for name, gate in self._drawn().items()}
        with gated(self.ensemble, opened):
            logits: Tensor = self.ensemble(x, repeat)
        return logits

    def _drawn(self) -> dict[str, Tensor]:
        """The gates of this step; in use those without noise."""
        found: dict[str, Tensor] = {}
        # a seed for each step, so that a resumed training draws what the undisturbed one would have drawn
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + int(self.step) + 1)
        for name, gates in zip(self.groups, self.gates, strict=True):
            assert isinstance(gates, Gates)
            if self.training:
                found[name] = gates(torch.rand(gates.alpha.shape, generator=generator).to(gates.alpha.device))
            else:
                found[name] = gates.kept().to(gates.alpha.dtype)
        if self.training:
            self.step += 1
        return found

    def kept(self) -> dict[str, Tensor]:
        """Returns the channels that the members keep of each group with gates: bool `[member, channel]`."""
        return {name: gates.kept() for name, gates in zip(self.groups, self.gates, strict=True)}  # type: ignore[operator] # a list of modules knows no kinds

    def macs(self) -> int:
        """Returns the multiply-accumulates of all members together for one image, of which nothing is cut yet."""
        return self.ensemble.macs()

    def identity(self) -> Mapping[str, Any]:
        """Returns what the ensemble is made of, and what the gates start from."""
        return {**self.ensemble.identity(), "gates": {**self.described, "seed": self.seed}}
