"""Narrow groups of convolutions, joined to fewer that fill the vectors which convolutions are computed with."""

from __future__ import annotations

from torch import Tensor

from subnet_search.packed.program import Program, arguments, operator

CHANNELS = 16
"""As many as numbers of 32 bits fit into the widest vectors of x86: oneDNN and onnxruntime compute channels in such blocks."""
_KINDS = {"conv1d", "conv2d", "conv3d"}


def merge_groups(program: Program, channels: int = CHANNELS) -> Program | None:
    """Joins neighbouring groups of every convolution until they have enough channels, with zeros between their weights.

    The result is the same where activations are finite; infinite ones of a member would reach those it is joined with.
    Depthwise convolutions stay as they are, as they have kernels of their own.

    Args:
        program: Any program; it is not changed.
        channels: How many channels a group should have on either side. Groups are joined by numbers that divide
            their count, all of them where even that is too few.

    Returns:
        The program with fewer and wider groups; None where no group is narrow.
    """
    merged = program.copy()
    tensors = dict(merged.tensors)
    for node in list(merged.graph.nodes):
        if operator(node) not in _KINDS:
            continue
        values = arguments(node)
        if values["weight"].op != "get_attr":
            continue
        weight, groups = tensors[values["weight"].target], values["groups"]
        together = _together(weight, groups, channels)
        if together == 1:
            continue
        name = f"{node.name}_merged"
        tensors[name] = _block_diagonal(weight, groups, together)
        with merged.graph.inserting_before(node):
            values |= {"weight": merged.graph.get_attr(name), "groups": groups // together}
        node.args, node.kwargs = tuple(values.values()), {}
    if len(tensors) == len(merged.tensors):
        return None
    merged.graph.eliminate_dead_code()
    return Program(merged.graph, tensors)


def _together(weight: Tensor, groups: int, channels: int) -> int:
    """How many groups are to be joined to one."""
    outside, inside = weight.shape[0] // groups, weight.shape[1]
    if inside == 1:
        return 1
    divisors = (n for n in range(1, groups + 1) if groups % n == 0)
    return next((n for n in divisors if n * min(outside, inside) >= channels), groups)


def _block_diagonal(weight: Tensor, groups: int, together: int) -> Tensor:
    """Weights `[out, in / groups, ...]` → `[out, together * in / groups, ...]`, zero between what was apart."""
    blocks = weight.unflatten(0, (groups // together, together, -1))
    wide = blocks.new_zeros(*blocks.shape[:3], together, *blocks.shape[3:])
    for k in range(together):
        wide[:, k, :, k] = blocks[:, k]
    joined: Tensor = wide.flatten(3, 4).flatten(0, 2)
    return joined
