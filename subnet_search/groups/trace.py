"""Traces a network: which layer and which operation made every tensor, and from what.

torch-pruning's `DependencyGraph` runs the network and says which module stands behind which node of the autograd graph
(Fang et al., 2023, DepGraph). Its index maps are not used: 1.6.1 takes `F.pad` for element-wise, orders the results of
a split by graph traversal, and infers sizes from neighbours. `channel_maps` derives them from the shapes recorded here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups.resizing import CallRecorder

LAYERS = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.PReLU,
)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """One operation of the forward pass.

    Attributes:
        kind: `layer`, `input`, `parameter` (read outside of any layer that is known) or the name of the autograd
            node without its ending: `Relu`, `Cat`, `ConstantPadNd`.
        inputs: For each operand the `(op, result number)` that made it; None for constants.
        shapes: Shape of each result, batch first.
        module: Dotted name of the layer or the parameter, empty for other operations.
        layer: The layer, for kind `layer`.
        node: The autograd node, for its saved settings.
    """

    kind: str
    inputs: tuple[tuple[int, int] | None, ...]
    shapes: tuple[Shape, ...]
    module: str = ""
    layer: nn.Module | None = None
    node: Any = None

    def saved(self, name: str) -> Any:
        """Returns a setting of the operation as autograd saved it, such as `dim`; negative axes as saved."""
        value = getattr(self.node, f"_saved_{name}")
        if isinstance(value, tuple):
            return tuple(_signed(v) for v in value)
        return _signed(value)

    def __str__(self) -> str:
        """Returns what a user would call it."""
        if self.layer is not None:
            return f"{type(self.layer).__name__} {self.module!r}"
        return f"parameter {self.module!r}" if self.kind == "parameter" else self.kind


@dataclass(frozen=True)
class Trace:
    """A forward pass.

    Attributes:
        ops: The operations in an order in which operands come first.
        output: `(op, result number)` of the logits.
        calls: For each padding or splitting call in order of execution the index of its operation, None if unknown.
    """

    ops: tuple[Op, ...]
    output: tuple[int, int]
    calls: tuple[int | None, ...]


class _Recording(tp.DependencyGraph):  # type: ignore[misc]  # torch_pruning ships no types
    """The dependency graph, which also keeps the module of every autograd node and the network's output."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[Any, Any] = {}
        self.output: Tensor | None = None

    def _trace_computational_graph(
        self, module2node: Any, output: Any, gradfn2module: Any, *rest: Any, **more: Any
    ) -> Any:
        self.modules, self.output = dict(gradfn2module), output
        return super()._trace_computational_graph(module2node, output, gradfn2module, *rest, **more)


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Runs a network once and returns its operations.

    Args:
        model: The network, in eval mode, with parameters that require gradients. It is not changed.
        example: Input `[batch, ...]`, floating point.

    Returns:
        The forward pass.

    Raises:
        SubnetSearchError: where the output does not depend on the input through autograd.
    """
    names = {module: name for name, module in model.named_modules()}
    parameters = {id(p): name for name, p in model.named_parameters()}
    recorder = CallRecorder()
    calls: dict[Any, tuple[nn.Module, Any, int, Shape]] = {}
    # A clone, so that a network may change its input in place and still has the leaf's gradient graph.
    root = example.detach().clone().requires_grad_().clone()

    def forward(network: nn.Module, inputs: tuple[Tensor]) -> Any:
        with recorder:
            return network(*inputs)

    graph = _Recording()
    with warnings.catch_warnings(), _layer_calls(model, calls):
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(model, (root,), forward_fn=forward, verbose=False)
        except Exception as error:  # torch-pruning's own index maps come after the trace; they may fail, we need none
            if graph.output is None:
                raise SubnetSearchError(f"the network cannot be traced: {error}") from error
    output = graph.output
    if output is None or output.grad_fn is None:
        raise SubnetSearchError(
            "the network's output does not depend on its input through autograd; expected a forward pass without torch.no_grad, detach or argmax"
        )
    layers = {node: call for node, call in calls.items() if graph.modules.get(node, call[0]) is call[0]}
    order = _ordered(output.grad_fn, layers, root.grad_fn)
    index = {node: i for i, node in enumerate(order)}
    ops = tuple(_op(node, index, layers, names, parameters, root) for node in order)
    made = tuple(None if node is None else index.get(node) for node in recorder.nodes)
    return Trace(ops, (index[output.grad_fn], output.output_nr), made)


@contextmanager
def _layer_calls(model: nn.Module, calls: dict[Any, tuple[nn.Module, Any, int, Shape]]) -> Iterator[None]:
    """While open, notes for every result of a known layer the layer, the node behind its input, and the shape."""

    def note(module: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(result, Tensor):
            source, number = sources.pop(id(module), (None, 0))
            if result.grad_fn is not None and source is not None:
                calls[result.grad_fn] = (module, source, number, tuple(result.shape))

    def arrive(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor):
            # Before the call, as a layer may work in place.
            sources[id(module)] = (inputs[0].grad_fn, inputs[0].output_nr)

    sources: dict[int, tuple[Any, int]] = {}
    hooks = []
    for module in model.modules():
        if isinstance(module, LAYERS):
            hooks += [module.register_forward_pre_hook(arrive), module.register_forward_hook(note)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _operands(node: Any, layers: dict[Any, Any], root: Any) -> list[tuple[Any, int]]:
    """The `(node, result number)` of every operand; a layer counts as one operation with one operand."""
    if node is root:
        return []
    if node in layers:
        return [(layers[node][1], layers[node][2])]
    return list(node.next_functions)


def _ordered(last: Any, layers: dict[Any, Any], root: Any) -> list[Any]:
    """Every autograd node behind `last`, operands first."""
    order: list[Any] = []
    done: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(last, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack += [(n, False) for n, _ in reversed(_operands(node, layers, root)) if n is not None and n not in done]
    return order


def _op(
    node: Any,
    index: dict[Any, int],
    layers: dict[Any, Any],
    names: dict[nn.Module, str],
    parameters: dict[int, str],
    root: Tensor,
) -> Op:
    if node is root.grad_fn:
        return Op("input", (), (tuple(root.shape),))
    operands = tuple(None if n is None else (index[n], i) for n, i in _operands(node, layers, root.grad_fn))
    if node in layers:
        module, _, _, shape = layers[node]
        return Op("layer", operands, (shape,), names[module], module, node)
    if hasattr(node, "variable"):
        return Op("parameter", (), (tuple(node.variable.shape),), parameters.get(id(node.variable), "?"), node=node)
    shapes = tuple(tuple(int(n) for n in meta.shape) for meta in getattr(node, "_input_metadata", ()))
    kind = re.sub(r"Backward\d*$", "", node.name().rsplit("::", 1)[-1])
    return Op(kind, operands, shapes, node=node)


def _signed(value: Any) -> Any:
    """Autograd saves axes unsigned: -1 comes back as 2^64 - 1."""
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value
