"""Which channel positions of a network belong together.

Every position of every tensor and of every side of every layer is a node; operations and layers join nodes. A connected
component is an atom: the places of one channel, to be kept or cut as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from subnet_search.groups.channel_maps import Link, Mapped, Opaque, Operand, channel_map
from subnet_search.groups.trace import Op, Trace

Ids = NDArray[np.int64]
Holder = tuple[Literal["result"], int, int] | tuple[Literal["out", "in"], str, int]
"""What has channel positions: `("result", op, number)`, or a side of a layer, `("out", module, 0)`."""


@dataclass
class Atoms:
    """The channel positions of a network and what joins them.

    Attributes:
        trace: The forward pass.
        start: Holder → number of its first position.
        size: Holder → how many positions it has.
        axes: `(op, result number)` → channel axis of that tensor; absent where it is not followed.
        maps: Operation → where the channels of its operands go.
        atom: For each position the number of its atom.
        reasons: Atom → why it has to stay whole.
        fixed: Atoms of the network's input channels and of its logits.
    """

    trace: Trace
    start: dict[Holder, int] = field(default_factory=dict)
    size: dict[Holder, int] = field(default_factory=dict)
    axes: dict[tuple[int, int], int] = field(default_factory=dict)
    maps: dict[int, Mapped] = field(default_factory=dict)
    atom: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    reasons: dict[int, str] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)

    def positions(self, holder: Holder) -> Ids:
        """Returns the numbers of a holder's positions, int64 `[channel]`."""
        return np.arange(self.start[holder], self.start[holder] + self.size[holder], dtype=np.int64)

    def holders(self) -> Iterator[tuple[Holder, Ids]]:
        """Yields every holder with the atoms of its positions, in order of execution."""
        for holder in self.start:
            yield holder, self.atom[self.positions(holder)]


def is_depthwise(layer: nn.Module) -> bool:
    """Returns whether a layer is a convolution with one group for each input channel."""
    return isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups == layer.in_channels


def find_atoms(trace: Trace) -> Atoms:
    """Joins the channel positions of a forward pass.

    Args:
        trace: The forward pass.

    Returns:
        Every position's atom, with the reasons why some have to stay whole.
    """
    return _Joiner(trace).run()


class _Joiner:
    """Follows the operations in order and collects what they join."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.atoms = Atoms(trace)
        self.count = 0
        self.edges: list[tuple[Ids, Ids]] = []
        self.whole: list[tuple[Ids, str]] = []
        self.fixed: list[Ids] = []

    def run(self) -> Atoms:
        for i, op in enumerate(self.trace.ops):
            if op.kind == "input":
                self.atoms.axes[i, 0] = 1
                self.fixed.append(self.holder(("result", i, 0), op.shapes[0][1]))
            elif op.layer is not None:
                self.layer(i, op, op.layer)
            else:
                self.operation(i, op)
        if self.trace.output in self.atoms.axes:
            self.fixed.append(self.atoms.positions(("result", *self.trace.output)))
        return self.finish()

    def holder(self, holder: Holder, size: int) -> Ids:
        """The positions of a holder, made on first use."""
        if holder not in self.atoms.start:
            self.atoms.start[holder], self.atoms.size[holder] = self.count, size
            self.count += size
        return self.atoms.positions(holder)

    def operand(self, source: tuple[int, int] | None) -> Operand:
        if source is None:
            return Operand(None, None)
        shapes = self.trace.ops[source[0]].shapes
        return Operand(shapes[source[1]] if source[1] < len(shapes) else None, self.atoms.axes.get(source))

    def read(self, source: tuple[int, int]) -> Ids:
        return self.atoms.positions(("result", *source))

    def operation(self, i: int, op: Op) -> None:
        """Joins operands and results of what is no layer, or leaves them whole."""
        operands = [self.operand(source) for source in op.inputs]
        if all(operand.axis is None for operand in operands):
            return
        try:
            axis, links = channel_map(op, operands)
        except Opaque as reason:
            for source in op.inputs:
                if source in self.atoms.axes and source is not None:
                    self.whole.append((self.read(source), str(reason)))
            return
        self.atoms.maps[i] = (axis, links)
        for number, shape in enumerate(op.shapes):
            self.holder(("result", i, number), shape[axis])
            self.atoms.axes[i, number] = axis
        for link in links:
            source = op.inputs[link.operand]
            assert source is not None  # a link starts at an operand with channels
            targets = self.atoms.positions(("result", i, link.result))
            self.edges.append((self.read(source)[link.source], targets[link.target]))

    def layer(self, i: int, op: Op, layer: nn.Module) -> None:
        """Joins a layer's sides to the tensors that it reads and writes."""
        shape, source = op.shapes[0], op.inputs[0]
        operand = self.operand(source)
        axis = len(shape) - 1 if isinstance(layer, nn.Linear) else 1
        if isinstance(layer, nn.LayerNorm) and operand.axis is not None:
            axis = operand.axis
        self.atoms.axes[i, 0] = axis
        result = self.holder(("result", i, 0), shape[axis])
        known: Ids | None = None
        if source is not None and operand.axis is not None:
            known = self.read(source)
            if operand.axis != axis:
                self.whole.append((known, f"{op} works along another axis than the channels'"))
                known = None
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            self.writer(op, layer, known, result)
            return
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or (
            isinstance(layer, nn.PReLU) and layer.num_parameters > 1
        ):
            self.edges.append((self.holder(("out", op.module, 0), shape[axis]), result))
        elif not isinstance(layer, nn.PReLU):
            self.whole.append((result, f"{op} works on several channels at once"))
        if known is None:
            self.whole.append((result, f"{op} reads a tensor whose channels cannot be followed"))
        else:
            self.edges.append((known, result))
            size = shape[axis]
            everything = np.arange(size, dtype=np.int64)
            self.atoms.maps[i] = (axis, [Link(0, 0, everything, everything)])

    def writer(self, op: Op, layer: nn.Linear | nn.modules.conv._ConvNd, known: Ids | None, result: Ids) -> None:
        """Joins the rows and columns of a weight."""
        convolution = layer if isinstance(layer, nn.modules.conv._ConvNd) else None
        size = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        inside, outside = self.holder(("in", op.module, 0), size), self.holder(("out", op.module, 0), len(result))
        self.edges.append((outside, result))
        if known is not None:
            self.edges.append((known, inside))
        if is_depthwise(layer):
            self.edges.append((inside.repeat(len(result) // size), outside))
        elif convolution is not None and convolution.groups > 1:
            reason = f"{op} is a grouped convolution"
            self.whole += [(inside, reason), (outside, reason)]

    def finish(self) -> Atoms:
        edges = np.concatenate([np.stack(edge) for edge in self.edges], axis=1) if self.edges else np.zeros((2, 0), int)
        joined = coo_matrix((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(self.count, self.count))
        self.atoms.atom = connected_components(joined, directed=False)[1].astype(np.int64)
        for positions, reason in self.whole:
            for atom in np.unique(self.atoms.atom[positions]).tolist():
                self.atoms.reasons.setdefault(atom, reason)
        for positions in self.fixed:
            self.atoms.fixed.update(np.unique(self.atoms.atom[positions]).tolist())
        return self.atoms
