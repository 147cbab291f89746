"""The trunk: the first layers of a network, which the members of an ensemble can have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from subnet_search.groups.channel_group import GroupGraph
from subnet_search.groups.cost import layer_macs

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase)


@contextmanager
def noted_order(model: nn.Module, order: list[str]) -> Iterator[None]:
    """While open, notes the dotted name of every convolution, linear layer and norm that runs, each time it does."""
    hooks = [
        module.register_forward_pre_hook(_note(name, order))
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def trunk_layers(graph: GroupGraph, share: float) -> frozenset[str]:
    """Returns the first layers of a network, as many as a share of its multiply-accumulates pays for.

    All that runs before the first layer that is left to the members is part of the trunk: nothing in it can depend on
    a mask. Members that share their first layers branch like a tree (Lee et al. 2015, "Why M Heads are Better than One:
    Training a Diverse Ensemble of Deep Networks", section 3).

    Args:
        graph: The network's groups.
        share: MACs of the trunk / MACs of the dense network, at most, in [0, 1).

    Returns:
        Dotted names of convolutions, linear layers and norms; none where the first layer costs more than the share.
    """
    allowed = share * graph.dense_macs
    cost = 0
    trunk: list[str] = []
    for name in graph.order:
        node = ("layer", name)
        cost += graph.graph.nodes[node]["macs"] if node in graph.graph else 0
        # a layer that runs again reads what members have changed
        if cost > allowed or name == graph.head or graph.order.count(name) > 1:
            break
        trunk.append(name)
    weighted = any(("layer", name) in graph.graph for name in trunk)  # a norm of the input alone is no trunk
    return frozenset(trunk if weighted else ())


def trunk_macs(graph: GroupGraph, share: float, widths: Mapping[str, int] | None = None) -> int:
    """Returns the multiply-accumulates of the trunk for one sample, spent once for all members; see `trunk_layers`.

    Args:
        graph: The network's groups.
        share: MACs of the trunk / MACs of the dense network, at most, in [0, 1); what is cut of it changes no layer of it.
        widths: Group → channels that are kept; None keeps all of them.
    """
    trunk = trunk_layers(graph, share)
    return sum(cost for name, cost in layer_macs(graph, widths or {}).items() if name in trunk)


def trunk_groups(graph: GroupGraph, share: float) -> tuple[str, ...]:
    """Returns the groups that live in the trunk alone, inside its blocks: what is cut of them is cut for all members.

    Args:
        graph: The network's groups.
        share: MACs of the trunk / MACs of the dense network, at most, in [0, 1).
    """
    trunk = trunk_layers(graph, share)
    return tuple(
        group.name
        for group in graph.groups
        if group.kind == "inner" and all(place.module in trunk for place in group.slices)
    )


def trunk_shares(graph: GroupGraph) -> list[float]:
    """Returns the shares, growing, in (0, 1), at which a trunk gains a convolution or linear layer; see `trunk_layers`."""
    shares: list[float] = []
    cost = 0
    for name in graph.order:
        node = ("layer", name)
        if name == graph.head or graph.order.count(name) > 1:
            break
        if node in graph.graph:
            cost += graph.graph.nodes[node]["macs"]
            shares.append((cost + 0.5) / graph.dense_macs)  # half of one, so that rounding does not lose the layer
    return [share for share in shares if share < 1]


def _note(name: str, order: list[str]) -> Any:
    return lambda _module, _inputs: order.append(name)
