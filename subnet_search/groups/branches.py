"""Residual branches: what can be left out of a network as a whole, the shortcut carrying its input on."""

from __future__ import annotations

from collections import Counter

from torch import nn

from subnet_search.groups.channel_group import Branch
from subnet_search.groups.trace import Trace

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_MASKABLE = (*_WEIGHTED, nn.modules.batchnorm._NormBase)  # those whose output channels a member can mask


def find_branches(trace: Trace) -> tuple[Branch, ...]:
    """Finds the residual branches of a network (He et al. 2016; dropped at random by Huang et al. 2016).

    At a sum of two operands the branch is the operand with more convolutions and linear layers of its own. It counts
    where it ends in a layer at which it can be masked (a convolution, linear layer or batch norm), where the other
    operand still sees the network's input, and where nothing outside the branch reads what happens inside.

    Args:
        trace: A forward pass of the network.

    Returns:
        The branches in order of execution; none for networks without residual connections.
    """
    behind = _behind(trace)
    readers: dict[int, set[int]] = {}
    for i, op in enumerate(trace.ops):
        for operand in op.inputs:
            if operand is not None:
                readers.setdefault(operand[0], set()).add(i)
    runs = Counter(op.module for op in trace.ops if op.kind == "layer")
    source = sum(1 << i for i, op in enumerate(trace.ops) if op.kind == "input")
    found = []
    for i, op in enumerate(trace.ops):
        if op.kind != "Add" or len(op.inputs) != 2 or None in op.inputs:
            continue
        first, second = (operand[0] for operand in op.inputs if operand is not None)
        sides = [
            (first, _members(behind[first] & ~behind[second])),
            (second, _members(behind[second] & ~behind[first])),
        ]
        weights = [[n for n in own if isinstance(trace.ops[n].layer, _WEIGHTED)] for _, own in sides]
        if len(weights[0]) == len(weights[1]):
            continue  # two equal paths: neither is a shortcut
        chosen = 0 if len(weights[0]) > len(weights[1]) else 1
        (end, own), shortcut = sides[chosen], sides[1 - chosen][0]
        last = trace.ops[end]
        closed = all(readers.get(n, set()) <= {*own, i} for n in own)
        once = all(runs[trace.ops[n].module] == 1 for n in own if trace.ops[n].kind == "layer")
        whole = isinstance(last.layer, _MASKABLE) and last.shapes[0] == op.shapes[0]
        if whole and closed and once and behind[shortcut] & source:
            found.append(Branch(last.module, tuple(trace.ops[n].module for n in weights[chosen])))
    return tuple(found)


def _behind(trace: Trace) -> list[int]:
    """For each operation the set of those it depends on, itself included, as the bits of a number."""
    behind: list[int] = []
    for i, op in enumerate(trace.ops):
        bits = 1 << i
        for operand in op.inputs:
            if operand is not None:
                bits |= behind[operand[0]]
        behind.append(bits)
    return behind


def _members(bits: int) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    return [i for i, bit in enumerate(reversed(bin(bits)[2:])) if bit == "1"]
