"""The grouped form: one network with the members side by side in its channels.

The batch stays as it is, `[batch, member * channel, ...]`, member-major: a convolution of all members is one with
`groups = members`. Where an operation counts or moves channels, they are `[batch, member, channel, ...]` for its sake,
which moves no data.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from subnet_search.errors import SubnetSearchError
from subnet_search.packed.folding import drop_zero_branches, fold_norms
from subnet_search.packed.grouped_rules import apply_rule, tensors_in
from subnet_search.packed.layout import Builder, Many, Value, Weights
from subnet_search.packed.program import Program, arguments, aten, operator, settings


def group_members(programs: Sequence[Program], keep: Sequence[str] = ()) -> Program:
    """Makes one network of the members' networks, which have the same widths.

    Args:
        programs: One for each member, with the same operations and tensors of the same shapes.
        keep: Names of the norms that are not to be folded.

    Returns:
        Prepared input `[batch, ...]` → logits `[member, batch, class]`.

    Raises:
        SubnetSearchError: where the members' programs differ, or an operation cannot run for several members at once.
    """
    folded = [fold_norms(program, keep) for program in programs]
    builder = Builder(len(folded))
    made: dict[fx.Node, Any] = {}
    lists = [list(program.graph.nodes) for program in folded]
    if len({len(nodes) for nodes in lists}) > 1:
        raise SubnetSearchError("the members' networks have different operations")
    for nodes in zip(*lists, strict=True):
        node = nodes[0]
        _check_alike(nodes)
        if node.op == "placeholder":
            copy = builder.graph.placeholder(node.name)
            made[node] = Value(copy, "shared", node.meta["shape"])
        elif node.op == "get_attr":
            tensors = tuple(program.tensors[str(node.target)] for program in folded)
            if len({tensor.shape for tensor in tensors}) > 1:
                raise SubnetSearchError(f"the members' tensors {node.target!r} have different shapes")
            made[node] = Weights(str(node.target), tensors)
        elif node.op == "output":
            builder.graph.output(_member_major(builder, made[node.args[0]]))
        else:
            made[node] = _operation(builder, nodes, made)
    builder.graph.eliminate_dead_code()
    return drop_zero_branches(Program(builder.graph, builder.tensors))


def _operation(builder: Builder, nodes: Sequence[fx.Node], made: dict[fx.Node, Any]) -> Any:
    """Adds one operation of all members."""
    node, target = nodes[0], nodes[0].target
    assert callable(target)

    def read(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return made[value]
        return type(value)(read(item) for item in value) if isinstance(value, list | tuple) else value

    first = read(node.args[0]) if node.args else None
    if target is python_operator.getitem and isinstance(first, Many):
        return builder.value(target, (first.node, node.args[1]), first.layout, node.meta["shape"])
    if operator(node) == "sym_size" and isinstance(first, Value):
        return builder.graph.call_function(target, (first.node, 0))  # of the other axes the sizes are numbers
    if not operator(node):
        return builder.graph.call_function(target, read(node.args), dict(node.kwargs))
    operands = {name: read(value) for name, value in arguments(node).items()}
    if not tensors_in(list(operands.values())):
        raise SubnetSearchError(f"its code makes tensors of its own ({node.target})")
    return apply_rule(builder, node, operands, [arguments(other) for other in nodes])


def _member_major(builder: Builder, logits: Value) -> fx.Node:
    return builder.graph.call_function(aten.transpose.int, (builder.apart(logits), 0, 1))


def _check_alike(nodes: Sequence[fx.Node]) -> None:
    """Raises where an operation is not the same for all members; paddings may have other numbers."""
    first = nodes[0]
    for node in nodes[1:]:
        same = node.op == first.op and node.name == first.name and node.target == first.target
        if not same or (settings(node) != settings(first) and operator(first) not in ("pad", "constant_pad_nd")):
            raise SubnetSearchError(f"operation {first.name!r} differs between members")
