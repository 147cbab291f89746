"""The data that describe which channels belong together, and where they live in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import networkx as nx
import torch
from torch import Tensor

Side = Literal["out", "in"]
Kind = Literal["inner", "stream"]
LayerCost = tuple[str, int, int, int, tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class Slice:
    """The place of a group's channels on one side of one module.

    Attributes:
        module: Dotted name of the module, as in `model.named_modules()`.
        side: `out` for the rows that the module writes (output channels of a convolution, features of a norm),
            `in` for the columns that it reads.
        index: One tuple for each channel of the group: the positions of that channel on this side, usually one,
            several where a flatten turns a channel into many features.
    """

    module: str
    side: Side
    index: tuple[tuple[int, ...], ...]

    def positions(self, kept: Tensor) -> Tensor:
        """Returns the sorted positions, int64 `[n]`, on this side of the channels where `kept` (bool `[channel]`)."""
        chosen = [p for keep, places in zip(kept.tolist(), self.index, strict=True) if keep for p in places]
        return torch.tensor(sorted(chosen), dtype=torch.int64)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels with the same footprint: each is kept or cut as one, and each costs the same.

    Attributes:
        name: Name of the group: the first module that writes it, with a suffix where one module's channels fall
            into several groups.
        width: Number of channels.
        kind: `inner` where one layer alone writes the channels, `stream` where several layers write them into
            one sum (a residual stream).
        slices: Every side of every module with parameters in which the channels live.
        sites: The `out` sides at which a mask has to be applied for the masked network to equal the sliced one.
    """

    name: str
    width: int
    kind: Kind
    slices: tuple[Slice, ...]
    sites: tuple[Slice, ...]


@dataclass(frozen=True)
class LeftWhole:
    """Channels that the search leaves alone, and the reason told to the user.

    Attributes:
        name: The module that writes them.
        width: How many they are.
        reason: What stands in the way.
    """

    name: str
    width: int
    reason: str


@dataclass(frozen=True)
class Branch:
    """A residual branch, which a member can leave out as a whole.

    Attributes:
        site: The layer that writes the branch's result, a norm or, without one, a convolution or linear layer: where
            it is masked. It names the branch.
        layers: The convolutions and linear layers of the branch, which cost nothing where it is left out.
    """

    site: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ResizeCall:
    """A call with numbers of channels written into the code (`F.pad`, `split`, `chunk`), and what lives in its result.

    Attributes:
        number: How many calls of these functions a forward pass makes before this one.
        axis: Channel axis of the tensor that is padded or split.
        left: Channels that a padding adds below channel 0; 0 for a split.
        right: Channels that a padding adds above the last; 0 for a split.
        labels: For each tensor of the result and each of its channel positions the `(group, channel)` that lives
            there, None where the position is whole.
    """

    number: int
    axis: int
    left: int
    right: int
    labels: tuple[tuple[tuple[str, int] | None, ...], ...]


@dataclass(frozen=True)
class GroupGraph:
    """What can be searched in a network, what cannot, and what every choice costs.

    Attributes:
        groups: The searchable groups, in order of first use.
        left_whole: What is not searchable and why.
        graph: Directed graph. Nodes `("group", name)` have `width`; nodes `("layer", module)` have `macs` (dense
            multiply-accumulates for one sample), `out` and `in` (channels) and `depthwise`. Edges run group →
            layer where the layer reads the group and layer → group where it writes it, with `positions` (how many
            channels of that side belong to the group). Convolutions and linear layers only.
        norms: Names of all normalisation layers with batch statistics, searchable or not.
        head: Name of the linear layer that writes the logits, or None where there is none.
        classes: Number of classes.
        example_shape: Shape of one input sample, without the batch axis.
        resizes: The calls of a forward pass that a sliced network has to make with other numbers of channels.
        branches: The residual branches, in order of execution.
        order: Names of convolutions, linear layers and norms in order of execution; one that runs twice is there twice.
    """

    groups: tuple[ChannelGroup, ...]
    left_whole: tuple[LeftWhole, ...]
    graph: nx.DiGraph
    norms: tuple[str, ...]
    head: str | None
    classes: int
    example_shape: tuple[int, ...]
    resizes: tuple[ResizeCall, ...] = ()
    branches: tuple[Branch, ...] = ()
    order: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ChannelGroup:
        """Returns the group of that name; KeyError where there is none."""
        return {group.name: group for group in self.groups}[name]

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of each searchable group, in order."""
        return {group.name: group.width for group in self.groups}

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the whole network for one sample (convolutions and linear layers only)."""
        return sum(data["macs"] for node, data in self.graph.nodes(data=True) if node[0] == "layer")

    @cached_property
    def layer_costs(self) -> tuple[LayerCost, ...]:
        """For each layer `(name, unit, out, in, rows, columns)`: its cost is unit × kept rows × kept columns.

        `rows` and `columns` name the groups on that side and how many positions each of their channels has there.
        For layers whose cost does not depend on their input channels (depthwise) or on any (grouped), those are 1.
        """
        widths = self.widths
        costs: list[LayerCost] = []
        for node, data in self.graph.nodes(data=True):
            if node[0] != "layer":
                continue
            written, read = self.graph.out_edges(node, data=True), self.graph.in_edges(node, data=True)
            rows = tuple((group[1], edge["positions"] // widths[group[1]]) for _, group, edge in written)
            columns = tuple((group[1], edge["positions"] // widths[group[1]]) for group, _, edge in read)
            out, inside = data["out"], 1 if data["depthwise"] else data["in"]
            if data["macs"] % (out * inside):  # a grouped convolution, which is whole on both sides
                out, inside = 1, 1
            unit = data["macs"] // (out * inside)
            costs.append((node[1], unit, out, inside, rows, () if data["depthwise"] else columns))
        return tuple(costs)
