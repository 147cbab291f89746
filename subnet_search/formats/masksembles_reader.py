"""A network that was built with official Masksembles layers, read into an ensemble of ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberLinear, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import MaskedLayer, PerMember, official_kinds
from subnet_search.formats.masksembles_checks import check_groups, check_network, quoted, sites_of
from subnet_search.formats.masksembles_places import Marked, Official, locate
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet


def from_masksembles(
    network: nn.Module, card: Card, example: Tensor | None = None, config: EnsembleConfig | None = None
) -> SubnetEnsemble:
    """Reads a network with official Masksembles layers into an ensemble that computes the same.

    The official layers are taken out, the groups of what is left are found, and each official layer's masks are given
    to the groups whose channels it masks; groups that none masks are kept whole. An official layer may stand behind
    the norm, or further on behind operations that keep zero, such as ReLU and pooling. A channel that is written at
    several places (a residual stream) needs the same mask at all of them. Whether the ensemble computes the same is
    measured twice: on the network as it is, and with random norms and biases, as fresh ones would hide differences.

    Args:
        network: Takes member-major rows `[member * batch, ...]` to logits `[member * batch, class]`, with
            `Masksembles1D` and `Masksembles2D` layers as modules, or made by `to_masksembles`. It stays as it is.
        card: Its input and classes.
        example: One input or more `[batch, *input_shape]`, where zeros of the card's shape are none that it can take.
        config: What the members share from now on; by default what they share in the network, where the official
            package knows only shared norms and heads.

    Returns:
        The ensemble with the network's weights and statistics. Rows of zeros behind a residual branch come back as
        branches left out; channels that the member has nowhere else count as kept.

    Raises:
        SubnetSearchError: where the official package is not installed, the network has none of its layers, they
            disagree, masks are not 0 and 1 or lie where no group can be masked, or the network computes something
            else than the ensemble would.
    """
    officials = _officials(network)
    dense, own = without_official(network, officials)
    example = torch.zeros(1, *card.input_shape) if example is None else example
    try:
        graph = find_groups(dense, example)
    except SubnetSearchError as error:
        raise SubnetSearchError(f"the network without its official Masksembles layers: {error}") from error
    marked = locate(dense, example, officials, graph)
    masks = _masks(marked, graph, officials[0].members)
    check_groups(dense, example, officials, marked, graph, masks, card)
    ensemble = SubnetEnsemble(dense, graph, masks, card, _config(own, config))
    _take_over(ensemble, own)
    check_network(network, ensemble)
    return ensemble


def without_official(network: nn.Module, officials: Sequence[Official]) -> tuple[nn.Module, dict[str, PerMember]]:
    """Returns a copy with identities for official layers, and the layers of each member's own by name.

    In the copy those are the first member's.
    """
    dense, own = copy.deepcopy(network), {}
    for official in officials:
        if official.place == official.name:
            dense.set_submodule(official.name, nn.Identity())
    for name, module in list(dense.named_modules(remove_duplicate=False)):
        layer = module.layer if isinstance(module, MaskedLayer) else module
        if name.rpartition(".")[0] in own:
            continue
        if isinstance(layer, PerMember):
            own[name], layer = layer, layer[0]
        if layer is not module:
            dense.set_submodule(name, layer)
    return dense, own


def _officials(network: nn.Module) -> list[Official]:
    """The official layers, checked."""
    kinds = official_kinds()
    modules = dict(network.named_modules(remove_duplicate=False))
    found = []
    for name, module in modules.items():
        if isinstance(module, kinds):
            values = torch.as_tensor(module.masks).detach().cpu()
            if values.ndim != 2 or not ((values == 0) | (values == 1)).all():
                raise SubnetSearchError(
                    f"the official layer {name!r} has masks {tuple(values.shape)} between {values.min():.3g} and {values.max():.3g}, expected 0 and 1, [member, channel]"
                )
            parent = name.rpartition(".")[0]
            place = parent if isinstance(modules[parent], MaskedLayer) else name
            found.append(Official(name, place, values.bool(), 2 if isinstance(module, kinds[0]) else 4))
    if not found:
        raise SubnetSearchError(
            f"{type(network).__name__} has no Masksembles1D or Masksembles2D among its modules, expected one at least; an ensemble without them comes from search_masks"
        )
    if len({official.members for official in found}) > 1:
        numbers = {official.name: official.members for official in found}
        raise SubnetSearchError(f"the official layers have masks for different numbers of members: {numbers}")
    return found


def _masks(marked: Sequence[Marked], graph: GroupGraph, members: int) -> MaskSet:
    """Gives the official masks to the groups; what none of them tells is kept."""
    found = {name: torch.full((members, width), -1, dtype=torch.int8) for name, width in graph.widths.items()}
    told: dict[str, list[str]] = {name: [] for name in found}
    depth: dict[str, Tensor] = {}
    for mark in marked:
        rows = mark.official.mask.any(dim=1)
        if mark.branch is not None:
            depth[mark.branch] = depth.get(mark.branch, torch.ones_like(rows)) & rows
        for group in dict.fromkeys(label[0] for label in mark.labels if label):
            here = [(p, label[1]) for p, label in enumerate(mark.labels) if label and label[0] == group]
            columns = mark.official.mask[:, [position for position, _ in here]]
            if columns[rows].all():
                continue  # as if there were no official layer; the check will tell whether one is needed here
            told[group].append(mark.official.name)
            for (_, channel), column in zip(here, columns.T.to(torch.int8), strict=True):
                known = found[group][:, channel]
                if (rows & (known >= 0) & (known != column)).any():
                    raise SubnetSearchError(_unequal(graph, group, channel, told[group]))
                known[rows] = column[rows]
    for group, values in found.items():
        empty = (values == 0).all(dim=1).nonzero().flatten().tolist()
        if empty:
            raise SubnetSearchError(
                f"the official layers {quoted(told[group])} leave members {empty} no channel of group {group!r}, expected at least one"
            )
    return MaskSet({name: values != 0 for name, values in found.items()}, "official", depth=depth)


def _config(own: dict[str, PerMember], wished: EnsembleConfig | None) -> EnsembleConfig:
    """What the members share: what is wished, where the network does not have more of their own."""
    has_norms = any(isinstance(layers[0], _BatchNorm) for layers in own.values())
    has_heads = any(isinstance(layers[0], nn.Linear) for layers in own.values())
    found = EnsembleConfig("member" if has_norms else "shared", "member" if has_heads else "shared")
    if wished is None:
        return found
    for part in ("norm", "head"):
        if getattr(found, part) == "member" and getattr(wished, part) == "shared":
            raise SubnetSearchError(
                f"the members of the network have a {part} each, got {part}=shared; expected {part}=member"
            )
    return wished


@torch.no_grad()
def _take_over(ensemble: SubnetEnsemble, own: dict[str, PerMember]) -> None:
    """Copies what each member has of its own."""
    for name, layers in own.items():
        module = ensemble.network.get_submodule(name)
        if not isinstance(module, MemberNorm | MemberLinear):
            raise SubnetSearchError(
                f"{name!r} holds a {type(layers[0]).__name__} for each member, expected norms and the head alone"
            )
        for key in ("weight", "bias", "running_mean", "running_var"):
            target = getattr(module, key, None)
            if target is not None:
                target.copy_(torch.stack([getattr(layer, key) for layer in layers]))


def _unequal(graph: GroupGraph, group: str, channel: int, layers: Sequence[str]) -> str:
    return (
        f"the official layers {quoted(layers)} mask the same channels (group {group!r}, written at {sites_of(graph, group)}) differently, first "
        f"channel {channel}; expected the same masks at all of its places: copy one layer's `masks` to the others, or leave the group whole"
    )
