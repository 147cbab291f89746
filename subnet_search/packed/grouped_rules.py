"""How each kind of operation works on several members at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from subnet_search.errors import SubnetSearchError
from subnet_search.packed.layout import Builder, Many, Value, Weights
from subnet_search.packed.program import CONVOLUTIONS, aten, operator

Operands = Mapping[str, Any]
"""Argument of the operation → its value, with `Value` and `Weights` for tensors."""
Rule = Callable[[Builder, fx.Node, Operands], Value | Many | None]

SPATIAL = {
    *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
}
"""Operations that treat each channel alone and alike."""
_LEARNED = ("weight", "bias", "running_mean", "running_var")
"""Arguments that are put together once for all members, so that they have to be tensors of the network."""
_AXES = ("dim", "dim0", "dim1", "dims", "start_dim", "end_dim")


def apply_rule(builder: Builder, node: fx.Node, operands: Operands, others: Sequence[Operands]) -> Value | Many:
    """Adds one operation for all members.

    Args:
        builder: Writes the grouped network.
        node: The operation in the first member's program.
        operands: Its arguments.
        others: The arguments that it has in every member's program, where members may differ (paddings).

    Returns:
        Its result. Where no rule fits, the operation is mapped over the member axis when it runs (`torch.vmap`).

    Raises:
        SubnetSearchError: where the weights of a layer are no tensors of the network but computed while it runs.
    """
    name, tensors = operator(node), tensors_in(list(operands.values()))
    alike = all(t.layout == "shared" if isinstance(t, Value) else t.same for t in tensors)
    if alike and all(amounts.get("pad") == operands.get("pad") for amounts in others):
        read = {label: _read(builder, value) for label, value in operands.items()}
        return builder.value(node.target, read, "shared", node.meta["shape"])
    result: Value | Many | None = None
    if name in ("pad", "constant_pad_nd"):
        result = _pad(builder, node, operands, [amounts["pad"] for amounts in others])
    elif name in _RULES:
        computed = [label for label in _LEARNED if isinstance(operands.get(label), Value)]
        if computed:
            raise SubnetSearchError(f"its code computes the {computed[0]} of {name} as it runs")
        result = _RULES[name](builder, node, operands)
    elif torch.Tag.pointwise in node.target.tags:  # type: ignore[union-attr]  # an operator of PyTorch
        result = _pointwise(builder, node, operands)
    elif any(axis in operands for axis in _AXES):
        result = _along_axes(builder, node, operands)
    return result if result is not None else _fallback(builder, node, operands)


def tensors_in(value: Any) -> list[Value | Weights]:
    """Returns the tensors among the arguments of an operation, those in lists too."""
    if isinstance(value, Value | Weights):
        return [value]
    return [found for item in value for found in tensors_in(item)] if isinstance(value, list | tuple) else []


def _convolution(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    x, weight, groups = operands["input"], operands["weight"], operands["groups"]
    transposed = operator(node).startswith("conv_transpose")
    if x.layout == "shared" and groups == 1:
        x_node, axis = x.node, 1 if transposed else 0
    else:
        x_node, axis, groups = builder.folded(x), 0, groups * builder.members
    new = {
        "input": x_node,
        "weight": builder.tensor(weight.name, torch.cat(weight.tensors, axis)),
        "bias": _joined(builder, operands["bias"]),
        "groups": groups,
    }
    return builder.value(node.target, dict(operands) | new, "folded", node.meta["shape"])


def _linear(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    """As one batched matrix product."""
    x, weight, bias = operands["input"], operands["weight"], operands["bias"]
    if len(x.shape) != 1:
        return None
    if x.layout == "shared":
        rows = builder.tensor(weight.name, torch.cat(weight.tensors))
        return builder.value(node.target, (x.node, rows, _joined(builder, bias)), "folded", node.meta["shape"])
    columns = builder.tensor(weight.name, torch.stack([w.T for w in weight.tensors]).contiguous())
    major = builder.graph.call_function(aten.transpose.int, (builder.apart(x), 0, 1))
    if bias is None:
        product = builder.graph.call_function(aten.bmm.default, (major, columns))
    else:
        start = builder.tensor(bias.name, torch.stack([b[None] for b in bias.tensors]))
        product = builder.graph.call_function(aten.baddbmm.default, (start, major, columns))
    return builder.value(aten.transpose.int, (product, 0, 1), "apart", node.meta["shape"])


def _norm(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    names = ("weight", "bias", "running_mean", "running_var")
    new: dict[str, Any] = {name: _joined(builder, operands[name]) for name in names}
    new["input"] = builder.folded(operands["input"])
    return builder.value(node.target, dict(operands) | new, "folded", node.meta["shape"])


def _prelu(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    x, weight = operands["self"], operands["weight"]
    slopes = torch.cat([w.expand(x.shape[0]) for w in weight.tensors])
    return builder.value(
        node.target, (builder.folded(x), builder.tensor(weight.name, slopes)), "folded", node.meta["shape"]
    )


def _spatial(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    (name, x), *_ = operands.items()
    return builder.value(node.target, {**operands, name: builder.folded(x)}, "folded", node.meta["shape"])


def _pointwise(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    tensors = tensors_in(list(operands.values()))
    values = [t for t in tensors if isinstance(t, Value)]
    if len(values) < len(tensors) or len({len(value.shape) for value in values}) > 1:
        return None
    folded = len({(value.layout, value.shape[:1]) for value in values}) == 1 and values[0].layout == "folded"
    read = {
        name: value if not isinstance(value, Value) else value.node if folded else builder.apart(value, broadcast=True)
        for name, value in operands.items()
    }
    return builder.value(node.target, read, "folded" if folded else "apart", node.meta["shape"])


def _along_axes(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    """Operations that name axes: all but the batch axis stand one further back."""
    tensors = tensors_in(list(operands.values()))
    if not all(isinstance(t, Value) for t in tensors) or (len(tensors) > 1 and operator(node) not in ("cat", "stack")):
        return None
    axes = len(tensors[0].shape) + 1 + (operator(node) in ("unsqueeze", "stack"))  # type: ignore[union-attr]
    moved: dict[str, Any] = {}
    for name, value in operands.items():
        if name not in _AXES:
            moved[name] = _read(builder, value, apart=True)
            continue
        listed = value if isinstance(value, list | tuple) else [value]
        if not listed or not all(isinstance(axis, int) and axis % axes for axis in listed):
            return None  # all axes, or the batch axis
        shifted = [axis % axes + 1 for axis in listed]
        moved[name] = shifted if isinstance(value, list | tuple) else shifted[0]
    return builder.value(node.target, moved, "apart", node.meta["shape"])


def _permute(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    order = [axis % len(operands["dims"]) for axis in operands["dims"]]
    if order[0]:
        return None
    shifted = [0, 1, *(axis + 1 for axis in order[1:])]
    return builder.value(node.target, (builder.apart(operands["self"]), shifted), "apart", node.meta["shape"])


def _reshape(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many | None:
    (x, (batch, *sizes)) = operands.values()
    if isinstance(batch, int) and batch != -1:
        return None
    return builder.value(node.target, (builder.apart(x), [batch, builder.members, *sizes]), "apart", node.meta["shape"])


def _pad(builder: Builder, node: fx.Node, operands: Operands, amounts: Sequence[Sequence[int]]) -> Value | Many | None:
    x = operands["self"]
    before_channels = 2 * (len(x.shape) - 1)
    if operands.get("mode", "constant") != "constant" or len(amounts[0]) > before_channels + 2:
        return None
    if all(list(other) == list(amounts[0]) for other in amounts):
        return builder.value(node.target, {**operands, "self": builder.apart(x)}, "apart", node.meta["shape"])
    spatial = list(amounts[0][:before_channels])
    if operands.get("value") or any(list(other[:before_channels]) != spatial for other in amounts):
        return None
    positions = place_channels(x.shape[0], node.meta["shape"][0], [other[before_channels] for other in amounts])
    folded = builder.folded(x)
    if any(spatial):
        folded = builder.graph.call_function(aten.pad.default, (folded, spatial))
    target = builder.tensor(f"{node.name}_positions", positions.to(_device(builder)))
    channels = builder.members * node.meta["shape"][0]
    return builder.value(put_channels, (folded, target, channels), "folded", node.meta["shape"])


def place_channels(before: int, after: int, left: Sequence[int]) -> Tensor:
    """Returns where zero-padding puts the channels of each member: int64 `[member * before]`, member-major.

    Args:
        before: Channels of a member that are padded.
        after: Channels of a member after that.
        left: For each member, how many channels are added below the first.
    """
    return torch.cat([torch.arange(before) + k * after + added for k, added in enumerate(left)])


def put_channels(x: Tensor, positions: Tensor, channels: int) -> Tensor:
    """Puts channels at positions of a tensor of zeros: `[batch, n, ...]` → `[batch, channels, ...]`."""
    out = x.new_zeros(x.shape[0], channels, *x.shape[2:])
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        out = out.contiguous(memory_format=torch.channels_last)
    return out.index_copy(1, positions, x)


def _fallback(builder: Builder, node: fx.Node, operands: Operands) -> Value | Many:
    axes: list[int | None] = []
    values: list[Any] = []
    for value in operands.values():
        if isinstance(value, Weights):
            axes.append(0)
            values.append(builder.tensor(value.name, torch.stack(value.tensors)))
        else:
            axes.append(1 if tensors_in(value) else None)
            values.append(_read(builder, value, apart=True))
    return builder.value(map_members, (node.target, list(operands), axes, *values), "apart", node.meta["shape"])


def map_members(target: Any, names: Sequence[str], axes: Sequence[int | None], *values: Any) -> Any:
    """Runs an operation for each member.

    Args:
        target: The operation.
        names: Its arguments.
        axes: Member axis of each argument, None for what is no tensor.
        values: The arguments.

    Returns:
        Its result with the members along axis 1.
    """

    def single(*own: Any) -> Any:
        return target(**dict(zip(names, own, strict=True)))

    return torch.vmap(single, in_dims=tuple(axes), out_dims=1)(*values)


def _joined(builder: Builder, weights: Weights | None) -> fx.Node | None:
    return None if weights is None else builder.tensor(weights.name, torch.cat(weights.tensors))


def _read(builder: Builder, value: Any, apart: bool = False) -> Any:
    """The argument as the grouped network's operation takes it."""
    if isinstance(value, Value):
        return builder.apart(value) if apart else value.node
    if isinstance(value, Weights):
        return builder.tensor(value.name, value.tensors[0])
    if isinstance(value, list | tuple):
        return [_read(builder, item, apart) for item in value]
    return value


def _device(builder: Builder) -> torch.device:
    return next((tensor.device for tensor in builder.tensors.values()), torch.device("cpu"))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(SPATIAL, _spatial),
    "linear": _linear,
    "batch_norm": _norm,
    "prelu": _prelu,
    "permute": _permute,
    "reshape": _reshape,
}
