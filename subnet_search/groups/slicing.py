"""Cuts channels out of a network for good."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups.atoms import is_depthwise
from subnet_search.groups.channel_group import GroupGraph, ResizeCall
from subnet_search.groups.resizing import ResizedCalls, plans_of


class SlicedNetwork(nn.Module):
    """A network without the channels that were cut.

    Args:
        network: The network with smaller layers.
        resizes: Calls with a number of channels written into the code, which this module changes while it runs.
        kept: Group → bool `[channel]`.
    """

    def __init__(self, network: nn.Module, resizes: tuple[ResizeCall, ...], kept: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.resizes = resizes
        self.plans = plans_of(resizes, kept)
        self.train(network.training)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits `[batch, class]` of prepared images `[batch, ...]`."""
        if not self.resizes:
            return self.network(x)  # type: ignore[no-any-return]
        # A compiler would cut the count of calls in pieces; torch.export is not affected. Not a decorator, which would
        # load the compiler wherever this package is imported.
        return torch.compiler.disable(self._resized)(x)  # type: ignore[no-untyped-call, no-any-return]

    def _resized(self, x: Tensor) -> Tensor:
        with ResizedCalls(self.plans):
            return self.network(x)  # type: ignore[no-any-return]


def slice_network(model: nn.Module, graph: GroupGraph, kept: Mapping[str, Tensor]) -> SlicedNetwork:
    """Returns a physically smaller copy of a network.

    Its output is that of the network with the cut channels masked at the groups' sites.

    Args:
        model: The network; it is not changed.
        graph: Its groups.
        kept: Group → bool `[channel]`, true for channels that stay; groups not named are whole.

    Returns:
        The copy, its `network` attribute with the same module names and smaller tensors, on the same device and in
        the same mode.

    Raises:
        SubnetSearchError: where a group is unknown, a mask is not a bool vector of the group's width, or it keeps
            nothing.
    """
    for name, mask in kept.items():
        if name not in graph.widths:
            raise SubnetSearchError(f"the mask is for group {name!r}; the network's groups are {sorted(graph.widths)}")
        expected = (graph.widths[name],)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise SubnetSearchError(
                f"mask of group {name!r}: got {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape {expected}"
            )
        if not mask.any():
            raise SubnetSearchError(f"mask of group {name!r} keeps no channel, expected at least one")
    small = copy.deepcopy(model)
    layers = dict(small.named_modules())
    # Asked before anything is cut: with one channel left, a depthwise convolution looks like any other.
    depthwise = {name for name, layer in layers.items() if is_depthwise(layer)}
    for (module, side), cut in _cut_positions(graph, kept).items():
        _cut(layers[module], side, cut, module in depthwise)
    return SlicedNetwork(small, graph.resizes, {name: mask.detach().cpu() for name, mask in kept.items()})


def _cut_positions(graph: GroupGraph, kept: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """`(module, side)` → positions to cut, int64, sorted."""
    cut: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for group in graph.groups:
        if group.name in kept:
            for place in group.slices:
                cut[place.module, place.side].append(place.positions(~kept[group.name]))
    return {key: torch.cat(parts).sort().values for key, parts in cut.items()}


def _cut(layer: nn.Module, side: str, cut: Tensor, depthwise: bool) -> None:
    """Removes positions from one side of a layer."""
    if isinstance(layer, nn.Linear):
        layer.weight = _without(layer.weight, 0 if side == "out" else 1, cut)
        if side == "out":
            layer.bias = _without(layer.bias, 0, cut)
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.conv._ConvNd):
        _cut_convolution(layer, side, cut, depthwise)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.weight, layer.bias = _without(layer.weight, 0, cut), _without(layer.bias, 0, cut)
        layer.running_mean = _without(layer.running_mean, 0, cut)
        layer.running_var = _without(layer.running_var, 0, cut)
        layer.num_features -= len(cut)
    elif isinstance(layer, nn.PReLU):
        layer.weight = _without(layer.weight, 0, cut)
        layer.num_parameters -= len(cut)
    else:
        raise TypeError(f"no rule to slice {type(layer).__name__}")


def _cut_convolution(layer: nn.modules.conv._ConvNd, side: str, cut: Tensor, depthwise: bool) -> None:
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    if side == "in":
        layer.in_channels -= len(cut)
        if not depthwise:
            layer.weight = _without(layer.weight, 0 if transposed else 1, cut)
            return
        layer.groups = layer.in_channels
        if transposed:
            layer.weight = _without(layer.weight, 0, cut)
        return
    layer.out_channels -= len(cut)
    layer.bias = _without(layer.bias, 0, cut)
    if not (depthwise and transposed):
        layer.weight = _without(layer.weight, 1 if transposed else 0, cut)


def _without(tensor: Tensor | None, axis: int, cut: Tensor) -> Any:
    """The tensor without some positions of an axis; a parameter stays a parameter, None stays None."""
    if tensor is None:
        return None
    stays = torch.ones(tensor.shape[axis], dtype=torch.bool)
    stays[cut] = False
    small = tensor.detach().index_select(axis, stays.nonzero().flatten().to(tensor.device))
    return nn.Parameter(small, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small
