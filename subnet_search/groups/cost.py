"""What a member costs: multiply-accumulates as a function of the widths of its groups.

Only convolutions and linear layers are counted, and only their multiply-accumulates; norms, activations, pooling and
biases are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import networkx as nx
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups.atoms import is_depthwise
from subnet_search.groups.channel_group import ChannelGroup, GroupGraph


@contextmanager
def counted_macs(model: nn.Module, counts: Counter[str]) -> Iterator[None]:
    """While open, adds the multiply-accumulates for one sample of every convolution and linear layer that runs.

    Args:
        model: The network.
        counts: Dotted layer name → multiply-accumulates; layers that run several times are added up.
    """
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: Any, result: Tensor) -> None:
        if isinstance(module, nn.Linear):
            counts[names[module]] += result[0].numel() * module.in_features
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            counts[names[module]] += inputs[0][0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.modules.conv._ConvNd):
            counts[names[module]] += result[0].numel() * module.weight[0].numel()

    weighted = (nn.Linear, nn.modules.conv._ConvNd)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, weighted)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def cost_graph(model: nn.Module, groups: tuple[ChannelGroup, ...], counts: Mapping[str, int]) -> nx.DiGraph:
    """Builds the graph of groups and layers that `GroupGraph.graph` describes.

    Args:
        model: The network.
        groups: Its searchable groups.
        counts: Dotted layer name → dense multiply-accumulates for one sample.

    Returns:
        The graph; `macs` of a layer is proportional to its kept output channels times its kept input channels (of a
        depthwise convolution to its output channels alone).
    """
    graph = nx.DiGraph()
    layers = dict(model.named_modules())
    for name, macs_of_layer in counts.items():
        layer = layers[name]
        out, inside = _channels(layer)
        graph.add_node(("layer", name), macs=macs_of_layer, out=out, **{"in": inside}, depthwise=is_depthwise(layer))
    for group in groups:
        graph.add_node(("group", group.name), width=group.width)
        for place in group.slices:
            node = ("layer", place.module)
            if node not in graph:
                continue
            positions = sum(map(len, place.index))
            if place.side == "in":
                graph.add_edge(("group", group.name), node, positions=positions)
            else:
                graph.add_edge(node, ("group", group.name), positions=positions)
    return graph


def macs(graph: GroupGraph, widths: Mapping[str, int], without: Collection[str] = ()) -> int:
    """Returns the multiply-accumulates of one member for one sample, summed over its layers; see `layer_macs`."""
    return sum(layer_macs(graph, widths, without).values())


def layer_macs(graph: GroupGraph, widths: Mapping[str, int], without: Collection[str] = ()) -> dict[str, int]:
    """Returns the multiply-accumulates of each layer of one member for one sample.

    Args:
        graph: The network's groups.
        widths: Group → number of channels kept, 0 to the group's width; groups not named are whole.
        without: Sites of the branches that are left out.

    Returns:
        Name of each convolution and linear layer → its multiply-accumulates, exact, in order of execution.

    Raises:
        SubnetSearchError: where a group or branch is unknown or a width out of range.
    """
    full = graph.widths
    branches = {branch.site: branch.layers for branch in graph.branches}
    if not set(without) <= set(branches):
        raise SubnetSearchError(
            f"branches {sorted(set(without) - set(branches))} are unknown, expected some of {sorted(branches)}"
        )
    idle = {layer for site in without for layer in branches[site]}
    for name, width in widths.items():
        if name not in full:
            raise SubnetSearchError(f"widths name group {name!r}; the network's groups are {sorted(full)}")
        if not 0 <= width <= full[name]:
            raise SubnetSearchError(f"width of group {name!r} is {width}, expected 0 to {full[name]}")
    found: dict[str, int] = {}
    for layer, unit, out, inside, rows, columns in graph.layer_costs:
        for name, times in rows:
            out -= times * (full[name] - widths.get(name, full[name]))
        for name, times in columns:
            inside -= times * (full[name] - widths.get(name, full[name]))
        found[layer] = 0 if layer in idle else unit * out * inside
    return found


def _channels(layer: nn.Module) -> tuple[int, int]:
    """Output and input channels of a convolution or linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.out_channels, layer.in_channels
