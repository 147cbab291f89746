"""The sliced form: K thin networks, one after the other, that compute once what they have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from subnet_search.packed.folding import drop_zero_branches, fold_norms
from subnet_search.packed.program import CONVOLUTIONS, Program, aten, operator, settings


def join_members(programs: Sequence[Program], keep: Sequence[str] = ()) -> Program:
    """Runs the members' programs on one input and stacks their logits.

    Operations that are the same for several members, on the same operands and with the same bits in their tensors, are
    computed once (value numbering). Members with norms of their own share at best the convolution before their first
    norm, and only if that norm is not folded into it.

    Args:
        programs: One for each member.
        keep: Names of the norms that are not to be folded.

    Returns:
        Prepared input `[batch, ...]` → logits `[member, batch, class]`.
    """
    graph = fx.Graph()
    tensors: dict[str, Tensor] = {}
    known: dict[Any, fx.Node] = {}
    logits = []
    for k, program in enumerate(programs):
        member = drop_zero_branches(fold_norms(program, keep))
        made: dict[fx.Node, fx.Node] = {}
        for node in member.graph.nodes:
            if node.op == "output":
                logits.append(made[node.args[0]])
                continue
            key = _key(node, member, made)
            if key not in known:
                copy = graph.node_copy(node, made.__getitem__)
                if node.op == "get_attr":
                    copy.target = f"member{k}_{node.target}"
                    tensors[copy.target] = member.tensors[str(node.target)]
                known[key] = copy
            made[node] = known[key]
    graph.output(graph.call_function(aten.stack.default, (logits,)))
    return Program(graph, tensors)


def shared_stem(programs: Sequence[Program]) -> list[str]:
    """Returns the names of the norms that differ between members but read what is the same for all of them.

    Folded into the layer before, they make K layers of one. Which is faster depends on the device, so both are tried.

    Args:
        programs: One for each member, with the same operations.
    """
    same: set[str] = set()
    norms = []
    for nodes in zip(*(program.graph.nodes for program in programs), strict=False):
        first = nodes[0]
        operands_same = all(operand.name in same for operand in first.all_input_nodes)
        if any(node.name != first.name or node.target != first.target for node in nodes):
            break
        if first.op == "placeholder":
            same.add(first.name)
        elif first.op == "get_attr":
            values = [program.tensors[str(first.target)] for program in programs]
            if all(values[0].shape == value.shape and torch.equal(values[0], value) for value in values[1:]):
                same.add(first.name)
        elif first.op == "call_function" and operands_same:
            if all(settings(node) == settings(first) for node in nodes[1:]):
                same.add(first.name)
        elif operator(first) == "batch_norm":
            layer = first.args[0]
            if isinstance(layer, fx.Node) and layer.name in same and operator(layer) in CONVOLUTIONS | {"linear"}:
                norms.append(first.name)
    return norms


def _key(node: fx.Node, program: Program, made: dict[fx.Node, fx.Node]) -> Any:
    """What an operation computes, hashable: equal keys mean equal results."""
    if node.op == "get_attr":
        tensor = program.tensors[str(node.target)].detach().cpu().contiguous()
        digest = hashlib.sha256(tensor.view(-1).view(torch.uint8).numpy().tobytes()).digest()
        return ("tensor", tuple(tensor.shape), tensor.dtype, digest)
    return (node.op, node.target, *settings(node, made))
