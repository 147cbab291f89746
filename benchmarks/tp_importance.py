"""The importances of torch-pruning 1.6.1, as scores for our pruning loop.

Its groups are wrong on zero-padded shortcuts, so it is asked about inner groups only, and each group is checked against
ours. It sees a network from which the channels that were cut are gone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks
from subnet_search.groups import ChannelGroup, SlicedNetwork
from subnet_search.packed.member import slice_member

IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "tp-magnitude": tp.importance.GroupMagnitudeImportance,
    "tp-taylor": tp.importance.GroupTaylorImportance,
    "tp-hessian": tp.importance.GroupHessianImportance,
    "tp-random": tp.importance.RandomImportance,
}
"""All with their own defaults."""


def score_by_torch_pruning(
    ensemble: SubnetEnsemble,
    names: Sequence[str],
    criterion: str,
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores the channels of one member with an importance of torch-pruning.

    Args:
        ensemble: Masks of one member.
        names: Inner groups.
        criterion: A key of `IMPORTANCES`.
        images: Prepared images `[batch, ...]`, for the gradients of Taylor and Hessian.
        labels: Their labels, int64 `[batch]`.
        seed: Seed of chance, which torch-pruning draws from the global state; that is left as it was.

    Returns:
        Group → float32 `[1, channel]`, at least 0; 0 for a channel that was cut.

    Raises:
        ValueError: where torch-pruning couples other layers than we do.
    """
    kept = {name: mask[0] for name, mask in ensemble.masks.masks.items()}
    network = slice_member(ensemble, 0, kept, layer_ranks(ensemble)).requires_grad_(True)
    if criterion == "tp-taylor":
        F.cross_entropy(network(images), labels).backward()
    elif criterion == "tp-hessian":
        _squared_gradients(network, images, labels)
    graph = tp.DependencyGraph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are in no layer
        graph.build_dependency(network.network, images[:1], verbose=False)
    importance = IMPORTANCES[criterion]()
    scores = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            found = importance(_group(graph, network, ensemble.graph[name]))
            scores[name] = torch.zeros(1, len(kept[name]))
            scores[name][0, kept[name]] = found.detach().cpu().float()
    return scores


def _squared_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Leaves in `.grad` the mean over images of their squared gradients, from which the importance is computed.

    `accumulate_grad` of torch-pruning keeps the last image only: it looks for names in a dictionary of parameters.
    """
    squares = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    for image, label in zip(images, labels, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(network(image[None]), label[None]), list(squares))
        for parameter, gradient in zip(squares, gradients, strict=True):
            squares[parameter] += gradient.square()
    for parameter, total in squares.items():
        parameter.grad = total / len(images)


def _group(graph: tp.DependencyGraph, network: SlicedNetwork, group: ChannelGroup) -> Any:
    """torch-pruning's group of all channels of one of ours; raises where it holds other layers."""
    layers = dict(network.network.named_modules())
    root = next(layers[part.module] for part in group.slices if part.side == "out")
    linear = isinstance(root, nn.Linear)
    prune = tp.prune_linear_out_channels if linear else tp.prune_conv_out_channels
    width = root.out_features if linear else root.out_channels
    found = graph.get_pruning_group(root, prune, idxs=list(range(width)))
    names = {module: name for name, module in layers.items()}
    theirs = {names[dep.target.module] for dep, _ in found if dep.target.module in names}
    ours = {part.module for part in group.slices}
    if theirs != ours:
        raise ValueError(f"group {group.name!r}: torch-pruning couples {sorted(theirs)}, expected {sorted(ours)}")
    return found
