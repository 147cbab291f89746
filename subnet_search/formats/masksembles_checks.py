"""Whether an ensemble computes what a network with official Masksembles layers does, and where it does not."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberMask, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import COARSE, TOLERANCES, random_rows, relative_difference
from subnet_search.formats.masksembles_places import Marked, Official
from subnet_search.groups import GroupGraph
from subnet_search.groups.verify import randomised
from subnet_search.masks import MaskSet, full_masks


def check_groups(
    dense: nn.Module,
    example: Tensor,
    officials: Sequence[Official],
    marked: Sequence[Marked],
    graph: GroupGraph,
    masks: MaskSet,
    card: Card,
) -> None:
    """Raises where masks at the groups' sites are not those at the official layers, and says at which group."""
    try:
        lively = randomised(dense, example, seed=0)
    except RuntimeError:  # a forward that converts to float32 itself
        lively = randomised(dense, example, seed=0, dtype=torch.float32)

    def differs(part: MaskSet) -> float:
        ensemble = SubnetEnsemble(lively, graph, part, card, EnsembleConfig(norm="shared")).eval()
        rows = random_rows(ensemble, example.shape[1:])
        official = _masked(lively, officials, marked, part)
        with torch.no_grad():
            difference = relative_difference(official(rows), ensemble(rows, repeat=False).flatten(0, 1))
        return 0.0 if difference <= TOLERANCES[rows.dtype] else difference

    size = differs(masks)
    if not size:
        return
    whole = full_masks(graph.widths, masks.members).masks
    for name, mask in masks.masks.items():
        if not mask.all() and differs(MaskSet({**whole, name: mask}, masks.algorithm)):
            layers = [m.official.name for m in marked if any(label and label[0] == name for label in m.labels)]
            raise SubnetSearchError(
                f"the official layers {quoted(layers)} do not take the channels of group {name!r} out of the network: it is written at "
                f"{sites_of(graph, name)}, and the logits differ by {size:.2g}; expected an official layer with the same masks behind each of these, before anything that turns zero into something else"
            )
    raise SubnetSearchError(
        f"the network with official layers differs from members that have their channels only by {size:.2g} of the largest logit; expected masks at {', '.join(sorted(_all_sites(graph)))} alone"
    )


@torch.no_grad()
def check_network(network: nn.Module, ensemble: SubnetEnsemble) -> None:
    """Raises where the ensemble does not give the logits of the network that it was read from."""
    rows = random_rows(ensemble, ensemble.graph.example_shape)
    logits = copy.deepcopy(network).eval()(rows)
    expected = copy.deepcopy(ensemble).eval()(rows, repeat=False).flatten(0, 1)
    size = relative_difference(logits, expected) if logits.shape == expected.shape else float("inf")
    if not size <= TOLERANCES.get(rows.dtype, COARSE):
        raise SubnetSearchError(
            f"the network gives logits {tuple(logits.shape)} that differ from the ensemble's by {size:.2g} of the largest, expected the same; does its forward do more than its modules with member-major rows?"
        )


def _masked(dense: nn.Module, officials: Sequence[Official], marked: Sequence[Marked], masks: MaskSet) -> nn.Module:
    """Puts masks where official layers were, theirs as far as they are those of groups that are not whole now."""
    network = copy.deepcopy(dense)
    kept = {official.name: torch.ones_like(official.mask) for official in officials}
    for mark in marked:
        mask, given = kept[mark.official.name], mark.official.mask
        rows = given.any(dim=1)
        for position, label in enumerate(mark.labels):
            if label is not None and not masks.masks[label[0]].all():
                # where the row says only that a branch is left out, the group has its masks from elsewhere
                mask[:, position] &= torch.where(rows, given[:, position], masks.masks[label[0]][:, label[1]])
        if mark.branch is not None and mark.branch in masks.depth:
            mask &= masks.depth[mark.branch][:, None]
    for official in officials:
        # not the official layer itself, of which version 1.1 turns float64 into float32
        layer = MemberMask(network.get_submodule(official.place), kept[official.name], 1)
        network.set_submodule(official.place, layer)
    return network


def quoted(layers: Sequence[str]) -> str:
    """Writes the names of layers, each once."""
    return ", ".join(map(repr, dict.fromkeys(layers)))


def sites_of(graph: GroupGraph, group: str) -> str:
    """Writes the names of the layers where a group is masked."""
    return ", ".join(repr(site.module) for site in graph[group].sites)


def _all_sites(graph: GroupGraph) -> set[str]:
    return {repr(site.module) for group in graph.groups for site in group.sites}
