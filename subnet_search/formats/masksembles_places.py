"""Which channels each official Masksembles layer of a network masks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph
from subnet_search.groups.atoms import Atoms, find_atoms
from subnet_search.groups.grouping import gather
from subnet_search.groups.trace import trace

Label = tuple[str, int] | None


@dataclass(frozen=True, eq=False)
class Official:
    """An official layer of a network.

    Attributes:
        name: Its dotted name in the network.
        place: The module of the network without official layers whose output it masks.
        mask: bool `[member, channel]`.
        axes: Number of axes of what it masks, 2 or 4.
    """

    name: str
    place: str
    mask: Tensor
    axes: int

    @property
    def members(self) -> int:
        """Number of members K."""
        return self.mask.shape[0]


@dataclass(frozen=True, eq=False)
class Marked:
    """What an official layer masks in one of its calls.

    Attributes:
        official: The layer.
        labels: For each channel that it masks the `(group, channel)` that lives there, None where it is whole.
        branch: Site of the residual branch that ends there, None where none does.
    """

    official: Official
    labels: tuple[Label, ...]
    branch: str | None


def locate(dense: nn.Module, example: Tensor, officials: Sequence[Official], graph: GroupGraph) -> list[Marked]:
    """Finds the channels that official layers mask, by a trace of the network without them.

    Args:
        dense: The network without official layers. It is not changed.
        example: Input `[batch, ...]`.
        officials: The official layers.
        graph: Channel groups of `dense`.

    Returns:
        One entry for each call of an official layer.

    Raises:
        SubnetSearchError: where an official layer masks channels that no group has, or leaves a member nothing where
            no residual branch ends.
    """
    twin = copy.deepcopy(dense).cpu().eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    sample = example[:1].detach().cpu().to(next(twin.parameters()).dtype)
    seen: dict[str, list[tuple[Any, int, tuple[int, ...]]]] = {official.place: [] for official in officials}
    for place, calls in seen.items():
        twin.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, out, calls=calls: calls.append((out.grad_fn, out.output_nr, tuple(out.shape)))
        )
    with torch.enable_grad():
        traced = trace(twin, sample.repeat(2, *[1] * (sample.ndim - 1)))
    atoms = find_atoms(traced)
    labels = gather(atoms).labels
    index = {op.node: i for i, op in enumerate(traced.ops)}
    branches = {branch.site for branch in graph.branches}
    found = []
    for official in officials:
        calls = [(index[node], number, shape) for node, number, shape in seen[official.place] if node in index]
        if not calls:
            raise SubnetSearchError(
                f"the official layer {official.name!r} is not used between input and logits, expected it in the forward pass; delete it"
            )
        for i, number, shape in calls:
            _check_shape(official, shape)
            op = traced.ops[i]
            living: tuple[Label, ...] = (None,) * shape[1]
            if atoms.axes.get((i, number)) == 1:
                living = tuple(labels.get(p) for p in atoms.positions(("result", i, number)).tolist())
            branch = op.module if op.kind == "layer" and op.module in branches else None
            searched = tuple(label if label and label[0] in graph.widths else None for label in living)
            marked = Marked(official, searched, branch)
            _check_rows(marked, partial(_reason, atoms, graph, living, (i, number)))
            found.append(marked)
    return found


def _check_shape(official: Official, shape: tuple[int, ...]) -> None:
    if len(shape) != official.axes or shape[1] != official.mask.shape[1]:
        raise SubnetSearchError(
            f"the official layer {official.name!r} gets {list(shape)}, expected {official.axes} axes and {official.mask.shape[1]} channels on axis 1"
        )


def _check_rows(marked: Marked, reason: Callable[[int], str]) -> None:
    """Raises where what is masked cannot be."""
    name, mask = marked.official.name, marked.official.mask
    rows = mask.any(dim=1)
    if marked.branch is None and not rows.all():
        empty = (~rows).nonzero().flatten().tolist()
        raise SubnetSearchError(
            f"the official layer {name!r} leaves members {empty} no channel, and no residual branch ends there; expected at least one channel each"
        )
    for channel in (~mask[rows]).any(dim=0).nonzero().flatten().tolist():
        if marked.labels[channel] is None:
            raise SubnetSearchError(
                f"the official layer {name!r} masks channel {channel}, which no group has: {reason(channel)}; take the layer out, or fill its `masks` with ones"
            )


def _reason(atoms: Atoms, graph: GroupGraph, living: Sequence[Label], result: tuple[int, int], channel: int) -> str:
    """Says why a channel of an operation's result has to stay whole."""
    label = living[channel]
    if label is not None:
        return next((left.reason for left in graph.left_whole if left.name == label[0]), "it cannot be searched")
    if atoms.axes.get(result) != 1:
        return "the channels cannot be followed there"
    atom = int(atoms.atom[atoms.positions(("result", *result))[channel]])
    if atom in atoms.fixed:
        return "it is an input or a logit of the network"
    if atom in atoms.reasons:
        return atoms.reasons[atom]
    held = [left for left in graph.left_whole if atom in atoms.atom[atoms.positions(("out", left.name, 0))]]
    return held[0].reason if held else "it cannot be searched"
