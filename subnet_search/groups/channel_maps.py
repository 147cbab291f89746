"""Where the channels of an operation's operands are in its results.

One rule for each kind of operation, derived from shapes and settings that autograd recorded; an operation without a
rule is opaque, and channels that pass through it are left whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subnet_search.groups.operation_kinds import (
    MOVES,
    PRODUCTS,
    REDUCTIONS,
    SPATIAL,
    SPLITS,
    SUMS,
    ZERO_KEEPING,
    ZERO_LOSING,
)
from subnet_search.groups.trace import Op, Shape

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Operand:
    """A tensor as an operation sees it.

    Attributes:
        shape: Its shape, None where unknown (constants).
        axis: Its channel axis, None where it has no channels that we follow.
    """

    shape: Shape | None
    axis: int | None


@dataclass(frozen=True)
class Link:
    """Position `source[i]` of operand `operand` is position `target[i]` of result `result`."""

    operand: int
    result: int
    source: Positions
    target: Positions


class Opaque(Exception):  # noqa: N818  # not an error: the channels are left whole and the message is the reason
    """Raised by a rule that cannot follow the channels; the message completes 'X and Y meet in ...'."""


Mapped = tuple[int, list[Link]]
Rule = Callable[[Op, list[Operand]], Mapped]


def channel_map(op: Op, operands: list[Operand]) -> Mapped:
    """Returns where the channels of an operation's operands go.

    Args:
        op: The operation, not a layer.
        operands: One for each of its inputs, at least one with a channel axis.

    Returns:
        The channel axis of the results, and the links from operands to results.

    Raises:
        Opaque: where the channels cannot be followed.
    """
    rule = RULES.get(op.kind)
    if rule is None:
        raise Opaque(f"{op.kind} (an operation whose effect on channels is not known)")
    return rule(op, operands)


def _identity(operand: int, size: int, result: int = 0) -> Link:
    positions = np.arange(size, dtype=np.int64)
    return Link(operand, result, positions, positions)


def _followed(operands: list[Operand]) -> list[tuple[int, Shape, int]]:
    """Number, shape and channel axis of the operands that have one."""
    return [(i, o.shape, o.axis) for i, o in enumerate(operands) if o.axis is not None and o.shape is not None]


def _only(op: Op, operands: list[Operand]) -> tuple[int, Shape, int]:
    followed = _followed(operands)
    if len(followed) != 1:
        raise Opaque(f"{op.kind} of {len(followed)} tensors")
    return followed[0]


def _broadcast(op: Op, operands: list[Operand]) -> Mapped:
    """Element-wise operations of any number of operands."""
    shape = op.shapes[0]
    followed = _followed(operands)
    axes = {axis + len(shape) - len(size) for _, size, axis in followed}
    if len(axes) != 1:
        raise Opaque(f"{op.kind} of tensors with different channel axes")
    axis = axes.pop()
    for operand in operands:
        if operand.axis is None and operand.shape is not None:
            place = axis - len(shape) + len(operand.shape)
            if place >= 0 and operand.shape[place] != 1:
                raise Opaque(f"{op.kind} with a tensor that is no layer's output")
    links = [_identity(i, shape[axis]) for i, size, own in followed if size[own] == shape[axis]]
    if len(links) < len(followed):
        raise Opaque(f"{op.kind} that spreads one channel over {shape[axis]}")
    return axis, links


def _spatial(op: Op, operands: list[Operand]) -> Mapped:
    """Operations on the axes after the channels: pooling, upsampling, spatial padding."""
    i, size, axis = _only(op, operands)
    if axis != 1 or len(op.shapes[0]) != len(size) or op.shapes[0][1] != size[1]:
        raise Opaque(f"{op.kind} along the channels")
    return axis, [_identity(i, size[axis])]


def _reduce(op: Op, operands: list[Operand]) -> Mapped:
    """Mean, sum or maximum over some axes."""
    i, size, axis = _only(op, operands)
    try:
        dims = op.saved("dim")
    except AttributeError:
        raise Opaque(f"{op.kind} over everything") from None
    dims = dims if isinstance(dims, tuple) else (dims,)
    reduced = {d % len(size) for d in dims} or set(range(len(size)))
    if axis in reduced:
        raise Opaque(f"{op.kind} over channels")
    if op.saved("keepdim"):
        return axis, [_identity(i, size[axis])]
    return axis - sum(d < axis for d in reduced), [_identity(i, size[axis])]


def _softmax(op: Op, operands: list[Operand]) -> Mapped:
    _, size, axis = _only(op, operands)
    if op.saved("dim") % len(size) == axis:
        raise Opaque(f"{op.kind} over channels")
    return _broadcast(op, operands)


def _view(op: Op, operands: list[Operand]) -> Mapped:
    """Reshapes that keep the order of elements; a flatten spreads a channel over several features."""
    i, size, axis = _only(op, operands)
    shape, channels, before = op.shapes[0], size[axis], math.prod(size[:axis])
    starts = [j for j in range(len(shape)) if math.prod(shape[:j]) == before]
    for j in starts:
        if shape[j] == channels:
            return j, [_identity(i, channels)]
    source = np.arange(channels, dtype=np.int64)
    for j in starts:
        if shape[j] > 1 and shape[j] % channels == 0:
            times = shape[j] // channels
            return j, [Link(i, 0, source.repeat(times), np.arange(shape[j], dtype=np.int64))]
        if shape[j] > 1 and channels % shape[j] == 0:
            return j, [Link(i, 0, source, source // (channels // shape[j]))]
    raise Opaque("a reshape that mixes channels with other axes")


def _restride(op: Op, operands: list[Operand]) -> Mapped:
    """`as_strided` to the same shape: pooling of channels-last tensors ends with it."""
    _, size, _ = _only(op, operands)
    if op.shapes[0] != size:
        raise Opaque("as_strided")
    return _broadcast(op, operands)


def _move(op: Op, operands: list[Operand]) -> Mapped:
    """Transposes and permutations."""
    i, size, axis = _only(op, operands)
    order = list(range(len(size)))
    if op.kind == "Permute":
        order = [d % len(size) for d in op.saved("dims")]
    elif op.kind == "T":
        order.reverse()
    else:
        a, b = op.saved("dim0") % len(size), op.saved("dim1") % len(size)
        order[a], order[b] = order[b], order[a]
    return order.index(axis), [_identity(i, size[axis])]


def _cat(op: Op, operands: list[Operand]) -> Mapped:
    """Concatenation, of channels or of something else."""
    followed = _followed(operands)
    axis = followed[0][2]
    if any(own != axis for _, _, own in followed):
        raise Opaque("a concatenation of tensors with different channel axes")
    if op.saved("dim") % len(op.shapes[0]) != axis:
        if len(followed) < len(operands):
            raise Opaque("a concatenation with a tensor that is no layer's output")
        return axis, [_identity(i, size[axis]) for i, size, _ in followed]
    sizes = [None if o.shape is None else o.shape[axis] for o in operands]
    unknown = [i for i, size in enumerate(sizes) if size is None]
    if len(unknown) > 1:
        raise Opaque("a concatenation with several constants")
    if unknown:
        sizes[unknown[0]] = op.shapes[0][axis] - sum(size for size in sizes if size is not None)
    links, offset = [], 0
    for i, (operand, size) in enumerate(zip(operands, sizes, strict=True)):
        positions = np.arange(size or 0, dtype=np.int64)
        if operand.axis is not None:
            links.append(Link(i, 0, positions, positions + offset))
        offset += size or 0
    return axis, links


def _split(op: Op, operands: list[Operand]) -> Mapped:
    """Split and chunk; results in the order of their numbers, used or not."""
    i, size, axis = _only(op, operands)
    if op.saved("dim") % len(size) != axis:
        return axis, [_identity(i, size[axis], result) for result in range(len(op.shapes))]
    links, offset = [], 0
    for result, shape in enumerate(op.shapes):
        positions = np.arange(shape[axis], dtype=np.int64)
        links.append(Link(i, result, positions + offset, positions))
        offset += shape[axis]
    return axis, links


def _slice(op: Op, operands: list[Operand]) -> Mapped:
    """`x[:, a:b:s]`."""
    i, size, axis = _only(op, operands)
    if op.saved("dim") % len(size) != axis:
        return axis, [_identity(i, size[axis])]
    start, end, step = op.saved("start") or 0, op.saved("end"), op.saved("step")
    source = np.arange(size[axis], dtype=np.int64)[slice(start, end, step)]
    return axis, [Link(i, 0, source, np.arange(len(source), dtype=np.int64))]


def _pad(op: Op, operands: list[Operand]) -> Mapped:
    """`F.pad`: amounts come from the last axis backwards, two for each; negative amounts crop."""
    i, size, axis = _only(op, operands)
    amounts = op.saved("pad")
    place = 2 * (len(size) - 1 - axis)
    left = amounts[place] if place < len(amounts) else 0
    source = np.arange(size[axis], dtype=np.int64)
    inside = (source + left >= 0) & (source + left < op.shapes[0][axis])
    return axis, [Link(i, 0, source[inside], source[inside] + left)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(ZERO_KEEPING | ZERO_LOSING | SUMS | PRODUCTS, _broadcast),
    **dict.fromkeys(SPATIAL, _spatial),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"), _view),
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(SPLITS, _split),
    "Cat": _cat,
    "Slice": _slice,
    "AsStrided": _restride,
    "ConstantPadNd": _pad,
}
"""Kind of operation → its rule."""
