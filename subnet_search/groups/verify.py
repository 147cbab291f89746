"""Checks that masking a group's channels and cutting them out give the same network.

The index maps are derived from a trace, and a trace may mislead; numbers do not. Every statistic, affine parameter and
bias is randomised first, as many of them are trivial (0 or 1) in some network or other and would hide an error.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.errors import first_line
from subnet_search.groups.channel_group import ChannelGroup, GroupGraph
from subnet_search.groups.rows import misplaced_rows
from subnet_search.groups.slicing import slice_network

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest relative difference of the logits; float32 only for networks that do not run in float64."""

MISPLACED = "its rows are not those of the samples, one sample after the other: it has the batch on another axis than the first, or several inputs joined along it"
"""Why members cannot be told apart at a layer."""


@contextmanager
def masked(model: nn.Module, graph: GroupGraph, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, multiplies the channels that are not kept by zero at the groups' sites.

    Args:
        model: The network.
        graph: Its groups.
        kept: Group → `[channel]`, bool, or numbers by which to multiply each channel; groups not named are whole.
    """
    layers = dict(model.named_modules())
    hooks = []
    for group in graph.groups:
        for site in group.sites if group.name in kept else ():
            layer = layers[site.module]
            places = torch.tensor([p for places in site.index for p in places])
            owner = torch.tensor([c for c, places in enumerate(site.index) for _ in places])
            hooks.append(layer.register_forward_hook(_gate(places, owner, kept[group.name])))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _gate(places: Tensor, owner: Tensor, gates: Tensor) -> Any:
    """A forward hook that multiplies position `places[i]` by `gates[owner[i]]`."""

    def apply(module: nn.Module, _: Any, result: Tensor) -> Tensor:
        axis = result.ndim - 1 if isinstance(module, nn.Linear) else 1
        factor = torch.ones(result.shape[axis], dtype=result.dtype, device=result.device)
        factor = factor.index_put((places.to(result.device),), gates.to(factor)[owner.to(gates.device)])
        return result * factor.view(-1, *[1] * (result.ndim - 1 - axis))

    return apply


def randomised(model: nn.Module, example: Tensor, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Returns a copy in eval mode whose norms and biases are random, with activations of ordinary size.

    Args:
        model: The network; it is not changed.
        example: Input `[batch, ...]`.
        seed: Seed of the numbers drawn.
        dtype: Floating-point type of the copy.

    Returns:
        The copy, on the CPU.
    """
    twin = copy.deepcopy(model).cpu().to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=dtype) * (high - low) + low

    norms = [m for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for layer in twin.modules():
            bias, weight = getattr(layer, "bias", None), getattr(layer, "weight", None)
            if isinstance(bias, Tensor):
                bias.copy_(bias + draw(bias, -0.5, 0.5))
            if layer in norms and isinstance(weight, Tensor):
                weight.copy_(draw(weight, 0.5, 1.5))
            elif isinstance(weight, Tensor) and not weight.any():
                weight.copy_(draw(weight, -0.5, 0.5))
        for norm in norms:
            norm.momentum = 1.0
            norm.train(norm.track_running_stats)
        twin(torch.randn(4, *example.shape[1:], generator=generator, dtype=dtype))
        for norm in norms:
            norm.eval()
            if norm.running_mean is not None and norm.running_var is not None:
                spread = norm.running_var.sqrt() + 1e-3
                norm.running_mean.add_(spread * draw(spread, -0.5, 0.5))
                norm.running_var.copy_((spread * draw(spread, 0.7, 1.5)).square())
    return twin


class Verifier:
    """Compares masked and sliced networks on random masks.

    Args:
        model: The network; it is not changed.
        graph: Its candidate groups.
        example: Input `[batch, ...]`.
        seed: Seed of statistics, inputs and masks.

    Attributes:
        misplaced: Of the layers that members can have of their own (sites, batch norms, the head), those whose rows are
            not those of the samples, one sample after the other: rows would be taken for another member's.
    """

    def __init__(self, model: nn.Module, graph: GroupGraph, example: Tensor, seed: int = 0) -> None:
        self.graph = graph
        self.dtype = torch.float64
        try:
            self.twin = randomised(model, example, seed)
        except RuntimeError:  # a forward that converts to float32 itself
            self.dtype = torch.float32
            self.twin = randomised(model, example, seed, self.dtype)
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.input = torch.randn(2, *example.shape[1:], generator=self.generator, dtype=self.dtype)
        sites = [site.module for group in graph.groups for site in group.sites]
        own = [*sites, *(b.site for b in graph.branches), *graph.norms, *([graph.head] if graph.head else [])]
        generator = torch.Generator().manual_seed(seed + 2)
        batch = torch.randn(4, *example.shape[1:], generator=generator, dtype=self.dtype)
        self.misplaced = misplaced_rows(self.twin, own, batch, TOLERANCES[self.dtype])

    def refuted(self) -> dict[str, str]:
        """Returns the groups that cannot be masked, or for which masked and sliced networks differ, with the reason.

        All groups are cut at once first; where that fails, halves of them, down to the single group at fault.
        """
        reasons = self._without_effect()
        for group in self.graph.groups:
            found = next((site.module for site in group.sites if site.module in self.misplaced), None)
            if found is not None:
                reasons.setdefault(group.name, f"it cannot be masked at {found!r} for each member: {MISPLACED}")
        sound = self._sound([g for g in self.graph.groups if g.name not in reasons], reasons)
        while sound:
            # Groups that pass alone may still disturb each other.
            if not self.difference(sound):
                break
            reasons[sound[-1].name] = f"cutting it together with {sound[0].name!r} changes the logits"
            sound = sound[:-1]
        return reasons

    def _sound(self, groups: Sequence[ChannelGroup], reasons: dict[str, str]) -> list[ChannelGroup]:
        if not groups:
            return []
        reason = self.difference(groups)
        if not reason:
            return list(groups)
        if len(groups) == 1:
            reasons[groups[0].name] = reason
            return []
        half = len(groups) // 2
        return self._sound(groups[:half], reasons) + self._sound(groups[half:], reasons)

    def difference(self, groups: Sequence[ChannelGroup]) -> str:
        """Says how masked and sliced networks differ when random channels of these groups are cut; empty if not."""
        # The second often leaves a single channel. The others leave other groups whole, so that of any two groups one is
        # cut without the other: code that divides channels by their number (`x[:, : x.shape[1] // 2]`) is right where
        # each part happens to keep as many.
        bits = range(max(1, (len(groups) - 1).bit_length()))
        halves = [[g for i, g in enumerate(groups) if (i >> bit) % 2 == side] for bit in bits for side in (0, 1)]
        for share, cut in ((0.5, groups), (0.1, groups), *((0.0, half) for half in halves if half)):
            kept = {group.name: self._mask(group.width, share) for group in cut}
            try:
                with torch.no_grad():
                    with masked(self.twin, self.graph, kept):
                        expected = self.twin(self.input)
                    got = slice_network(self.twin, self.graph, kept)(self.input)
            except Exception as error:  # whatever a user's forward raises when its layers shrink is a reason to stop
                return f"the network does not run without some of its channels ({first_line(error)})"
            if got.shape != expected.shape:
                return f"cutting it changes the shape of the logits to {tuple(got.shape)}"
            error_size = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
            if not error_size <= TOLERANCES[self.dtype]:
                return f"cutting it changes the logits by {error_size:.2g} relative to masking it: something between its layers mixes or counts its channels"
        return ""

    def _without_effect(self) -> dict[str, str]:
        """Groups whose channels do not reach the logits: for them the comparison would prove nothing."""
        gates = {g.name: torch.ones(g.width, dtype=self.dtype, requires_grad=True) for g in self.graph.groups}
        if not gates:
            return {}
        with torch.enable_grad(), masked(self.twin, self.graph, gates):
            logits = self.twin(self.input)
            weights = torch.randn(logits.shape, generator=self.generator, dtype=logits.dtype)
            slopes = torch.autograd.grad((logits * weights).sum(), list(gates.values()), allow_unused=True)
        return {
            name: "masking it does not change the logits"
            for name, slope in zip(gates, slopes, strict=True)
            if slope is None or not slope.any()
        }

    def _mask(self, width: int, share: float) -> Tensor:
        """A random mask that keeps one channel at least and cuts one at least, where there are two."""
        kept = torch.rand(width, generator=self.generator) < share
        order = torch.randperm(width, generator=self.generator)
        kept[order[0]] = True
        if width > 1:
            kept[order[1]] = False
        return kept
