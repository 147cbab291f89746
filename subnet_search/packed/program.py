"""A network as a list of operations on tensors, free of the Python code that made it.

`torch.export` writes it down; what it writes can be changed, joined and run. Batch normalisation is one operation there,
and so is each layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.groups import SlicedNetwork

aten = torch.ops.aten
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}


@dataclass(frozen=True)
class Program:
    """Operations and the tensors that they work with.

    Attributes:
        graph: Operations: one `placeholder` (the prepared input), `get_attr` for tensors, `call_function`, one output.
            `meta["shape"]` of an operation is the shape of its result without the batch axis, None for other results.
        tensors: Target of a `get_attr` node → tensor.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]

    def module(self) -> fx.GraphModule:
        """Returns the module that runs it; floating-point tensors are parameters without gradients."""
        root = nn.Module()
        for name in {str(node.target): None for node in self.graph.nodes if node.op == "get_attr"}:
            tensor = self.tensors[name].detach()
            if tensor.is_floating_point():
                root.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
            else:
                root.register_buffer(name, tensor)
        return fx.GraphModule(root, self.graph).eval()

    def copy(self) -> Program:
        """Returns a copy whose graph can be changed; tensors are shared."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        return Program(graph, dict(self.tensors))


def trace_program(network: SlicedNetwork, example: Tensor) -> Program:
    """Writes down what a network computes, for any batch size.

    Args:
        network: The network in eval mode.
        example: Prepared input `[batch, ...]` on its device.

    Returns:
        The program, without operations in place.

    Raises:
        SubnetSearchError: where `torch.export` cannot follow the network's code.
    """
    sample = example[:1].repeat(2, *[1] * (example.ndim - 1))  # with a single image the batch axis would be taken for 1
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                network.eval(), (sample,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
    except Exception as error:  # whatever a user's forward makes of symbolic shapes
        raise SubnetSearchError(
            f"the network cannot be packed: torch.export cannot follow its code ({first_line(error)}); expected a forward pass that takes any batch size and does not branch on values"
        ) from error
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    state: dict[str, Any] = dict(exported.state_dict) | dict(exported.constants)
    tensors: dict[str, Tensor] = {}
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in names | dict(signature.inputs_to_lifted_tensor_constants):
            name = names.get(node.name) or signature.inputs_to_lifted_tensor_constants[node.name]
            target = name.removeprefix("network.").replace(".", "_")
            tensors[target] = state[name].detach()
            copied[node] = graph.get_attr(target)
        elif node.op == "output":
            copied[node] = graph.output(copied[_logits(node, signature.user_outputs)])
        elif node.op in ("placeholder", "call_function"):
            if "assert" in str(node.target):
                continue
            copied[node] = graph.node_copy(node, copied.__getitem__)
            if node.op == "call_function":
                copied[node].target = _out_of_place(node.target)
            copied[node].meta = {"shape": _shape(node.meta.get("val"))}
        else:
            raise SubnetSearchError(
                f"the network cannot be packed: its code switches context inside ({node.target}); expected no torch.no_grad or autocast in its forward pass"
            )
    graph.eliminate_dead_code()
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return Program(graph, {name: tensor for name, tensor in tensors.items() if name in read})


def arguments(node: fx.Node) -> dict[str, Any]:
    """Returns all arguments of an operation by name, defaults included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]  # an operator of PyTorch
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def operator(node: fx.Node) -> str:
    """Returns the name of an operation of PyTorch without its overload, such as `conv2d`; else an empty string."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target._schema.name).removeprefix("aten::")


def settings(node: fx.Node, made: Mapping[fx.Node, fx.Node] | None = None) -> tuple[Any, Any]:
    """Returns the arguments of an operation with its operands by name, hashable.

    Args:
        node: The operation.
        made: Operand → the node of another graph whose name is to be taken.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return ("node", (made[value] if made is not None else value).name)
        if isinstance(value, list | tuple):
            return tuple(plain(item) for item in value)
        return (type(value).__name__, value)  # 1 and True are equal, but not the same setting

    return plain(node.args), tuple((name, plain(value)) for name, value in sorted(node.kwargs.items()))


def _logits(output: fx.Node, wanted: Any) -> fx.Node:
    (found,) = (node for node in output.args[0] if node.name == wanted[0])  # type: ignore[union-attr]
    assert isinstance(found, fx.Node)
    return found


def _out_of_place(target: Any) -> Callable[..., Any]:
    """The operation that returns its result anew; its users read the result by its node in either case."""
    if target is aten.view.default:
        return aten.reshape.default  # a view of channels-last memory may be impossible
    if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
        packet = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
        found = getattr(packet, target._overloadname, None)
        if not isinstance(found, torch._ops.OpOverload):
            raise SubnetSearchError(f"the network cannot be packed: {target} changes a tensor in place")
        return found
    return target  # type: ignore[no-any-return]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(int(n) for n in value.shape[1:]) if isinstance(value, Tensor) else None
