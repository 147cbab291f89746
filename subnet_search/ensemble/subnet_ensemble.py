"""The network that the project ships: K masked members in one module with shared weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.backbones import Card
from subnet_search.ensemble.member_layers import MemberLinear, MemberMask, MemberNorm
from subnet_search.ensemble.predictor import Predictor
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, macs, trunk_layers, trunk_macs
from subnet_search.masks import MaskSet

Sharing = Literal["member", "shared"]


@dataclass(frozen=True)
class EnsembleConfig:
    """What the members share beside the weights.

    Attributes:
        norm: `member` gives each member its own normalisation statistics and affine parameters, `shared` one set
            for all (as the official Masksembles layers do).
        head: `shared` uses one classifier for all members, `member` one each, which costs parameters and no MACs; None
            lets a run take one each where a linear layer writes the logits.
        trunk: Share of the dense network's MACs, from the input on, in [0, 1), that members have in common: what is cut
            there is cut for all, the normalisation is one for all, and it is paid for once
            (`subnet_search.groups.trunk_layers`).
            0 lets members differ from the first layer on; None lets a run choose it by its budget
            (`subnet_search.trunks_to_try`).

    Raises:
        SubnetSearchError: where one of them is something else.
    """

    norm: Sharing = "member"
    head: Sharing | None = "shared"
    trunk: float | None = 0.0

    def __post_init__(self) -> None:
        for label, value in (("norm", self.norm), ("head", self.head)):
            if value not in ("member", "shared") and not (label == "head" and value is None):
                raise SubnetSearchError(f"ensemble.{label} is {value!r}, expected 'member' or 'shared'")
        if self.trunk is not None and not 0 <= self.trunk < 1:
            raise SubnetSearchError(f"ensemble.trunk is {self.trunk}, expected a share in [0, 1)")

    @property
    def trunk_share(self) -> float:
        """The trunk's share of the dense MACs.

        Raises:
            SubnetSearchError: where it has not been chosen.
        """
        if self.trunk is None:
            raise SubnetSearchError("ensemble.trunk is None, expected a share in [0, 1): only a run can choose it")
        return self.trunk


class SubnetEnsemble(Predictor):
    """K subnetworks of one trained network, run as one (Masksembles, Durasov et al. 2021, with masks of our choice).

    Args:
        network: The dense network; it is copied and stays as it was.
        graph: Its channel groups.
        masks: Which channels each member keeps, and which branches; all groups of the graph must be there.
        card: What the network expects and means.
        config: What the members share.

    Raises:
        SubnetSearchError: where network, graph and masks do not fit, masks differ between members within the trunk, or a
            head for each member is asked of a network whose logits are not written by a linear layer.
    """

    def __init__(
        self, network: nn.Module, graph: GroupGraph, masks: MaskSet, card: Card, config: EnsembleConfig | None = None
    ) -> None:
        super().__init__()
        _check_network(network, graph)
        self.graph = graph
        self.card = card
        self.config = config or EnsembleConfig()
        if self.config.head is None:
            raise SubnetSearchError("ensemble.head is None, expected 'member' or 'shared': only a run can choose it")
        self.members = masks.members
        self.algorithm, self.seed, self.notes = masks.algorithm, masks.seed, dict(masks.notes)
        self.network = copy.deepcopy(network)
        _call_layers(self.network)
        modules = dict(self.network.named_modules())
        depth = _depth(graph, masks)
        trunk = trunk_layers(graph, self.config.trunk_share)
        masked: dict[nn.Module, nn.Module] = {}
        for name, mask in self._checked_site_masks(masks, modules).items():
            module = modules[name]
            if isinstance(module, _BatchNorm) and self._owns_norms(name, trunk):
                masked[module] = MemberNorm(module, mask, depth.get(name))
            else:
                axis = -1 if isinstance(module, nn.Linear) else 1
                masked[module] = MemberMask(module, mask, axis, depth.get(name), name in trunk)
        for name in graph.norms:
            module = modules[name]
            if self._owns_norms(name, trunk) and isinstance(module, _BatchNorm) and module not in masked:
                everything = torch.ones(self.members, module.num_features, dtype=torch.bool)
                masked[module] = MemberNorm(module, everything)
        replace_layers(self.network, masked)
        if self.config.head == "member":
            head = self.network.get_submodule(graph.head) if graph.head else None
            if not isinstance(head, nn.Linear):
                raise SubnetSearchError(
                    f"a classifier head for each member needs logits that a linear layer writes, the network's are written by {graph.head!r}; use head=shared"
                )
            replace_layers(self.network, {head: MemberLinear(head, self.members)})
        self.train(network.training)  # else predict would hand a fresh ensemble back in train mode

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`."""
        logits: Tensor = self.network(self._rows(x, repeat))
        return torch.unflatten(logits, 0, (self.members, -1))

    def identity(self) -> dict[str, Any]:
        """Returns masks and settings."""
        return {"masks": self.masks.digest(), "ensemble": asdict(self.config)}

    @property
    def masks(self) -> MaskSet:
        """The masks, channels and branches, read back from the buffers that the network computes with."""
        modules = dict(self.network.named_modules())
        found = {}
        for group in self.graph.groups:
            site = group.sites[0]
            buffer = modules[site.module].mask
            assert isinstance(buffer, Tensor)
            found[group.name] = buffer[:, [places[0] for places in site.index]]
        depth = {branch.site: modules[branch.site].kept for branch in self.graph.branches}
        return MaskSet(
            found,
            self.algorithm,
            self.seed,
            self.notes,
            {name: kept for name, kept in depth.items() if isinstance(kept, Tensor)},
        )

    def macs(self) -> int:
        """Returns the multiply-accumulates of all members together for one sample, as their widths ask for."""
        masks = self.masks
        alone = sum(
            macs(self.graph, {name: kept[k] for name, kept in masks.widths.items()}, masks.left_out(k))
            for k in range(self.members)
        )
        first = {name: kept[0] for name, kept in masks.widths.items()}
        return alone - (self.members - 1) * trunk_macs(self.graph, self.config.trunk_share, first)

    def set_masks(self, masks: MaskSet) -> None:
        """Replaces the masks in place; weights and statistics stay (recalibrate them afterwards).

        Args:
            masks: Of as many members, for all groups of the graph.

        Raises:
            SubnetSearchError: where they are of other members or groups, or differ between members within the trunk.
        """
        if masks.members != self.members:
            raise SubnetSearchError(f"got masks of {masks.members} members, expected {self.members}")
        modules = dict(self.network.named_modules())
        for name, mask in self._checked_site_masks(masks, modules).items():
            module = modules[name]
            assert isinstance(module.mask, Tensor)
            module.mask.copy_(mask)
            if isinstance(module, MemberMask):
                module.note_cut()
        for name, kept in _depth(self.graph, masks).items():
            buffer = modules[name].kept
            assert isinstance(buffer, Tensor)
            buffer.copy_(kept)
        self.algorithm, self.seed, self.notes = masks.algorithm, masks.seed, dict(masks.notes)

    def _owns_norms(self, name: str, trunk: Collection[str]) -> bool:
        """Whether each member has a norm of its own there."""
        return self.config.norm == "member" and name not in trunk

    def _checked_site_masks(self, masks: MaskSet, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
        """The masks of the site modules, after a look at the trunk, which all members have in common."""
        laid_out, depth = _site_masks(self.graph, masks, modules), _depth(self.graph, masks)
        for name in sorted(trunk_layers(self.graph, self.config.trunk_share) & laid_out.keys()):
            alike = bool((laid_out[name] == laid_out[name][0]).all())
            if not alike or (name in depth and not depth[name].all()):
                raise SubnetSearchError(
                    f"masks differ between members at {name!r}, or leave it out, which is part of the trunk that they have in common (ensemble.trunk={self.config.trunk_share:g}); expected it the same for all: allocate quotas with the same trunk, search masks with common=trunk_groups(graph, trunk), or lower it"
                )
        return laid_out

    def select(self, members: Sequence[int]) -> SubnetEnsemble:
        """Returns a copy that holds only the named members, in that order; weights are copied, not shared.

        Args:
            members: Numbers of members, from 0; at least one.

        Raises:
            SubnetSearchError: where there is no member of a number, or none is named.
        """
        chosen = list(members)
        if not chosen or not all(0 <= k < self.members for k in chosen):
            raise SubnetSearchError(f"got members {chosen}, expected some of 0 to {self.members - 1}")
        copied = copy.deepcopy(self)
        copied.members = len(chosen)
        for module in copied.network.modules():
            if isinstance(module, MemberNorm | MemberMask | MemberLinear):
                module.select(chosen)
        return copied


def _call_layers(network: nn.Module) -> None:
    """Has transformer layers call the layers inside them, which in eval mode they pass over, reading their weights."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # by which PyTorch tells whether it may do so


def _check_network(network: nn.Module, graph: GroupGraph) -> None:
    """Raises where the graph was not found in a network of this architecture."""
    modules = dict(network.named_modules())
    sites = [site for group in graph.groups for site in group.sites]
    wanted = [
        *(site.module for site in sites),
        *(branch.site for branch in graph.branches),
        *graph.norms,
        *([graph.head] if graph.head else []),
    ]
    faults = [f"no module {name!r}" for name in dict.fromkeys(wanted) if name not in modules]
    for site in () if faults else sites:
        highest, width = max(max(places) for places in site.index), _output_width(modules[site.module])
        if highest >= width:
            faults.append(f"module {site.module!r} has {width} channels, a group at least {highest + 1}")
    if faults:
        raise SubnetSearchError(
            f"the groups are those of another architecture than {type(network).__name__}: {'; '.join(faults[:3])}; take the network in which they were found"
        )


def _site_masks(graph: GroupGraph, masks: MaskSet, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Lays the groups' masks out over the output channels of each site module: bool `[member, channel]`.

    The sites of branches are among them, whole where no group is masked there.
    """
    if set(masks.masks) != set(graph.widths):
        missing = sorted(set(graph.widths) - set(masks.masks))
        unknown = sorted(set(masks.masks) - set(graph.widths))
        raise SubnetSearchError(
            f"masks do not fit the network: groups without a mask {missing}, unknown groups {unknown}"
        )
    laid_out: dict[str, Tensor] = {}
    for group in graph.groups:
        mask = masks.masks[group.name]
        if mask.shape[1] != group.width:
            raise SubnetSearchError(
                f"mask of group {group.name!r} has {mask.shape[1]} channels, expected {group.width}"
            )
        for site in group.sites:
            if site.module not in laid_out:
                width = _output_width(modules[site.module])
                laid_out[site.module] = torch.ones(masks.members, width, dtype=torch.bool)
            for channel, places in enumerate(site.index):
                for place in places:
                    laid_out[site.module][:, place] &= mask[:, channel]
    for branch in graph.branches:
        if branch.site not in laid_out:
            laid_out[branch.site] = torch.ones(masks.members, _output_width(modules[branch.site]), dtype=torch.bool)
    return laid_out


def _depth(graph: GroupGraph, masks: MaskSet) -> dict[str, Tensor]:
    """Which members keep each branch of the network: site → bool `[member]`."""
    sites = [branch.site for branch in graph.branches]
    if not set(masks.depth) <= set(sites):
        raise SubnetSearchError(
            f"masks do not fit the network: unknown branches {sorted(set(masks.depth) - set(sites))}, expected some of {sites}"
        )
    return {site: masks.depth.get(site, torch.ones(masks.members, dtype=torch.bool)) for site in sites}


def _output_width(module: nn.Module) -> int:
    for attribute in ("num_features", "out_channels", "out_features"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    if isinstance(module, MemberMask):
        return int(module.mask.shape[1])
    raise SubnetSearchError(f"a site of kind {type(module).__name__} has no known number of output channels")
