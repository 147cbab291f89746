"""The data that describe which channels belong together, and where they live in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import networkx as nx
import torch
from torch import Tensor

Side = Literal["out", "in"]
Kind = Literal["inner", "stream"]


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
    """Channels that the search leaves alone, and the reason told to the user."""

    name: str
    width: int
    reason: str


@dataclass(frozen=True)
class GroupGraph:
    """What can be searched in a network, what cannot, and what every choice costs.

    Attributes:
        groups: The searchable groups, in order of first use.
        left_whole: What is not searchable and why.
        graph: Directed graph. Nodes `("group", name)` have `width`; nodes `("layer", module)` have `macs` (dense
            multiply-accumulates for one sample). Edges run group → layer where the layer reads the group and
            layer → group where it writes it, with `positions` (how many channels on that side).
        norms: Names of all normalisation layers with batch statistics, searchable or not.
        head: Name of the linear layer that writes the logits, or None where there is none.
        classes: Number of classes.
        example_shape: Shape of one input sample, without the batch axis.
        padded: For each channel-padding call (`F.pad`) of a forward pass, in order of execution: for each output
            position the `(group, channel)` that lives there, None where it is whole.
    """

    groups: tuple[ChannelGroup, ...]
    left_whole: tuple[LeftWhole, ...]
    graph: nx.DiGraph
    norms: tuple[str, ...]
    head: str | None
    classes: int
    example_shape: tuple[int, ...]
    padded: tuple[tuple[tuple[str, int] | None, ...], ...] = ()

    def __getitem__(self, name: str) -> ChannelGroup:
        """Returns the group of that name; KeyError where there is none."""
        return {group.name: group for group in self.groups}[name]

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of each searchable group, in order."""
        return {group.name: group.width for group in self.groups}
