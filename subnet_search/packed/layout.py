"""Where the member axis of a tensor is, in a network that computes all members side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from subnet_search.packed.program import aten

Layout = Literal["shared", "folded", "apart"]


@dataclass(frozen=True)
class Value:
    """A tensor of the grouped network.

    Attributes:
        node: What computes it.
        layout: `shared` is `[batch, channel, ...]` for all members alike, `folded` is
            `[batch, member * channel, ...]`, member-major, and `apart` is `[batch, member, channel, ...]`.
        shape: Its shape for one member, without the batch axis.
    """

    node: fx.Node
    layout: Layout
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Many:
    """The results of an operation that returns several tensors, all in one layout."""

    node: fx.Node
    layout: Layout


@dataclass(frozen=True)
class Weights:
    """A tensor that belongs to the network: one for each member, all of one shape."""

    name: str
    tensors: tuple[Tensor, ...]

    @property
    def same(self) -> bool:
        """Whether it has the same bits for all members."""
        first, *others = self.tensors
        return all(torch.equal(first, other) for other in others)


class Builder:
    """Writes the operations of the grouped network.

    Args:
        members: Number of members K.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}

    def tensor(self, name: str, tensor: Tensor) -> fx.Node:
        """Adds a tensor of the network and reads it."""
        while name in self.tensors:
            name += "_"
        self.tensors[name] = tensor.detach()
        return self.graph.get_attr(name)

    def value(
        self, target: Any, operands: Mapping[str, Any] | Sequence[Any], layout: Layout, shape: tuple[int, ...] | None
    ) -> Value | Many:
        """Adds an operation, with its arguments by name or in order.

        `shape` is that of its result for one member, None where it returns several.
        """
        args, named = tuple(operands), {}
        if isinstance(operands, Mapping):
            keyword = {a.name: a.default_value for a in target._schema.arguments if a.kwarg_only}
            args = tuple(value for name, value in operands.items() if name not in keyword)
            named = {name: operands[name] for name in keyword if operands[name] != keyword[name]}
        node = self.graph.call_function(target, args, named)
        if shape is None:
            return Many(node, layout)
        node.meta["shape"] = self.physical(layout, shape)
        return Value(node, layout, shape)

    def physical(self, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape in memory, without the batch axis, of a tensor with that shape for one member."""
        if layout == "shared":
            return shape
        if layout == "apart":
            return (self.members, *shape)
        return (self.members * shape[0], *shape[1:])

    def folded(self, value: Value) -> fx.Node:
        """Returns the tensor as `[batch, member * channel, ...]`."""
        if value.layout == "folded":
            return value.node
        if value.layout == "apart":
            return self._move(aten.flatten.using_ints, (value.node, 1, 2), "folded", value.shape)
        return self._move(aten.cat.default, ([value.node] * self.members, 1), "folded", value.shape)

    def apart(self, value: Value, broadcast: bool = False) -> fx.Node:
        """Returns the tensor as `[batch, member, channel, ...]`; a shared one has a member axis of 1 if `broadcast`."""
        if value.layout == "apart":
            return value.node
        if value.layout == "folded":
            sizes = [self.members, value.shape[0]]
            return self._move(aten.unflatten.int, (value.node, 1, sizes), "apart", value.shape)
        single = self.graph.call_function(aten.unsqueeze.default, (value.node, 1))
        single.meta["shape"] = (1, *value.shape)
        if broadcast:
            return single
        return self._move(aten.expand.default, (single, [-1, self.members, *value.shape]), "apart", value.shape)

    def _move(self, target: Any, args: tuple[Any, ...], layout: Layout, shape: tuple[int, ...]) -> fx.Node:
        node = self.graph.call_function(target, args)
        node.meta["shape"] = self.physical(layout, shape)
        return node
