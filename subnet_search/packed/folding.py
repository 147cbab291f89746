"""What a program can do without: norms behind a convolution, branches that give zero, and copies of tensors."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from subnet_search.packed.program import CONVOLUTIONS, Program, arguments, operator

FRESH = CONVOLUTIONS | {"linear", "batch_norm", "add", "mul", "baddbmm"}
"""Operations whose result is memory of their own."""
VIEWS = {"flatten", "unflatten", "transpose"}
"""Operations whose result may be their operand's memory."""


def fold_norms(program: Program, keep: Collection[str] = ()) -> Program:
    """Multiplies normalisation with running statistics into the convolution or linear layer before it.

    Args:
        program: Any program; it is not changed.
        keep: Names of the norms' nodes that are to stay.

    Returns:
        The program without them, and without dropout, which does nothing in eval mode.
    """
    folded = program.copy()
    graph, tensors = folded.graph, dict(folded.tensors)
    for node in list(graph.nodes):
        if operator(node) in ("dropout", "feature_dropout", "alpha_dropout") or _is_whole_slice(node):
            _replace(node, node.args[0])
        elif operator(node) == "batch_norm" and node.name not in keep:
            _fold(node, graph, tensors)
    graph.eliminate_dead_code()
    return Program(graph, tensors)


def drop_zero_branches(program: Program) -> Program:
    """Leaves out what is added but is zero, and all that leads up to it: the branches that a member does without."""
    trimmed = program.copy()
    for node in list(trimmed.graph.nodes):
        if operator(node) != "add" or arguments(node)["alpha"] != 1:
            continue
        operands = list(node.args[:2])
        for zero, other in (operands, operands[::-1]):
            if _writes_zero(zero, trimmed.tensors) and isinstance(other, fx.Node) and _same_shape(other, node):
                _replace(node, other)
                break
    trimmed.graph.eliminate_dead_code()
    return trimmed


def work_in_place(program: Program) -> Program:
    """Lets activations and sums overwrite an operand that nothing else reads, which saves memory traffic."""
    changed = program.copy()
    for node in list(changed.graph.nodes):
        name = operator(node)
        if name == "add" and arguments(node)["alpha"] == 1 and len(node.args) == 2:
            first, second = node.args
            if not _expendable(first, node) and _expendable(second, node):
                node.args = (second, first)
        elif name not in ("relu", "hardtanh", "relu6", "sigmoid", "silu", "hardswish", "elu", "leaky_relu"):
            continue
        operand = node.args[0]
        if _expendable(operand, node):
            packet = getattr(torch.ops.aten, f"{name}_")
            node.target = getattr(packet, node.target._overloadname)
    return changed


def _fold(norm: fx.Node, graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Folds one norm where that is exact."""
    settings = arguments(norm)
    layer = norm.args[0]
    if not isinstance(layer, fx.Node) or len(layer.users) != 1 or settings["training"]:
        return
    kind, of_layer = operator(layer), arguments(layer) if operator(layer) else {}
    transposed = kind.startswith("conv_transpose")
    if kind not in CONVOLUTIONS | {"linear"} or (transposed and of_layer["groups"] != 1):
        return
    if kind == "linear" and len(layer.meta["shape"]) != 1:
        return  # a norm over another axis than the features
    weight, bias, mean, variance, scale, shift = (
        tensors[str(value.target)] if isinstance(value, fx.Node) else None
        for value in (
            of_layer["weight"],
            of_layer["bias"],
            *(settings[name] for name in ("running_mean", "running_var", "weight", "bias")),
        )
    )
    assert weight is not None
    assert mean is not None
    assert variance is not None
    if kind == "linear":
        scale, shift = (
            torch.ones_like(mean) if scale is None else scale,
            torch.zeros_like(mean) if shift is None else shift,
        )
        new = fuse_linear_bn_weights(weight, bias, mean, variance, settings["eps"], scale, shift)
    else:
        new = fuse_conv_bn_weights(weight, bias, mean, variance, settings["eps"], scale, shift, transposed)
    names = [f"{layer.name}_folded_weight", f"{layer.name}_folded_bias"]
    tensors.update(zip(names, (tensor.detach() for tensor in new), strict=True))
    with graph.inserting_before(layer):
        nodes = [graph.get_attr(name) for name in names]
    layer.args = (layer.args[0], *nodes, *layer.args[3:])
    layer.kwargs = {name: value for name, value in layer.kwargs.items() if name not in ("weight", "bias")}
    _replace(norm, layer)


def _is_whole_slice(node: fx.Node) -> bool:
    """Whether a slice takes everything, as `x[:, ...]` does."""
    if operator(node) != "slice":
        return False
    settings = arguments(node)
    return settings["start"] in (0, None) and settings["end"] in (None, 2**63 - 1) and settings["step"] == 1


def _writes_zero(node: object, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer's weight and bias are zero throughout, whatever it reads."""
    while isinstance(node, fx.Node) and operator(node) in VIEWS:
        node = node.args[0]
    if not isinstance(node, fx.Node) or operator(node) not in CONVOLUTIONS | {"linear", "batch_norm", "baddbmm"}:
        return False
    values = arguments(node)
    names = ("self", "batch2") if operator(node) == "baddbmm" else ("weight", "bias")
    read = [values[name] for name in names if values[name] is not None]
    if not read or not all(isinstance(value, fx.Node) and value.op == "get_attr" for value in read):
        return False
    return not any(bool(tensors[value.target].any()) for value in read)


def _same_shape(one: fx.Node, other: fx.Node) -> bool:
    """Whether two results have one shape; what is made of weights alone has no batch axis, or one of 1."""
    shape = one.meta.get("shape")
    return shape is not None and shape == other.meta.get("shape") and _has_batch(one) == _has_batch(other)


def _has_batch(node: fx.Node) -> bool:
    """Whether a node is made of the input."""
    waiting, seen = [node], {node}
    while waiting:
        found = waiting.pop()
        if found.op == "placeholder":
            return True
        new = [read for read in found.all_input_nodes if read not in seen]
        waiting += new
        seen.update(new)
    return False


def _expendable(node: object, reader: fx.Node) -> bool:
    """Whether nothing but one reader needs a node's memory, and its result has room there."""
    if not isinstance(node, fx.Node) or not _same_shape(node, reader):
        return False
    while len(node.users) == 1:
        name = operator(node).removesuffix("_")
        if name not in VIEWS:
            return name in FRESH
        node = node.args[0]
        if not isinstance(node, fx.Node):
            return False
    return False


def _replace(node: fx.Node, by: object) -> None:
    assert isinstance(by, fx.Node)
    assert node.op == "call_function"
    assert node.target is not python_operator.getitem
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
