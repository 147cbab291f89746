"""The masks of an ensemble: the result of a search, and half of the exported model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError


@dataclass(frozen=True)
class MaskSet:
    """Which channels each member keeps.

    Attributes:
        masks: Group name → bool `[member, channel]`, true where the member keeps the channel.
        algorithm: Name of the search algorithm that made it.
        seed: Seed it was made with.
        notes: What the algorithm tells of its run (objective, certificate, settings): plain JSON values. `common` names
            the groups of a trunk of which all members keep the same channels by design.
        depth: Site of a residual branch → bool `[member]`, true where the member keeps the branch; branches that are
            not named are kept by all.

    Raises:
        SubnetSearchError: where a mask is not a bool matrix (of a branch: vector), the numbers of members differ, or a
            member keeps no channel of some group.
    """

    masks: Mapping[str, Tensor]
    algorithm: str
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    depth: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frozen: dict[str, Tensor] = {}
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool or mask.ndim != 2:
                raise SubnetSearchError(
                    f"mask of group {name!r}: got {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool [member, channel]"
                )
            if not mask.any(dim=1).all():
                empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
                raise SubnetSearchError(
                    f"mask of group {name!r}: members {empty} keep no channel, expected at least one each; raise the budget or the minimum width"
                )
            frozen[name] = mask.detach().clone().cpu()
        if len({mask.shape[0] for mask in frozen.values()}) > 1:
            shapes = {name: mask.shape[0] for name, mask in frozen.items()}
            raise SubnetSearchError(
                f"masks disagree on the number of members: {shapes}; expected one number for all groups"
            )
        for name, kept in self.depth.items():
            if kept.dtype != torch.bool or tuple(kept.shape) != (self.members,):
                raise SubnetSearchError(
                    f"depth mask of branch {name!r}: got {kept.dtype} of shape {tuple(kept.shape)}, expected torch.bool [{self.members}]"
                )
        whole = {name: kept.detach().clone().cpu() for name, kept in self.depth.items() if not kept.all()}
        object.__setattr__(self, "depth", MappingProxyType(whole))
        object.__setattr__(self, "masks", MappingProxyType(frozen))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    @property
    def members(self) -> int:
        """Number of members K; 1 where there are no groups at all."""
        return next((mask.shape[0] for mask in self.masks.values()), 1)

    @property
    def widths(self) -> Mapping[str, tuple[int, ...]]:
        """Group name → number of channels that each member keeps."""
        return {name: tuple(mask.sum(dim=1).tolist()) for name, mask in self.masks.items()}

    def overlap(self) -> Tensor:
        """Returns the number of channels that two members share: float64 `[member, member]`.

        Groups that every member keeps whole are not counted, nor those of a trunk that is thinned: nothing was decided
        between members there, and counting them would make masks look alike in networks of which only a part is left
        to the members.
        """
        total = torch.zeros(self.members, self.members, dtype=torch.float64)
        for name, mask in self.masks.items():
            if bool(mask.all()) or name in self.notes.get("common", ()):
                continue
            kept = mask.double()
            total += kept @ kept.T
        return total

    def iou(self) -> Tensor:
        """Returns the intersection over union of the members' channels: float64 `[member, member]` in [0, 1].

        As in `overlap`, groups that all keep whole or have in common do not count; where there are no others, it is 1.
        """
        shared = self.overlap()
        sizes = shared.diagonal()
        union = sizes[:, None] + sizes[None, :] - shared
        return torch.where(union > 0, shared / union.clamp(min=1), torch.ones_like(shared))

    def mean_iou(self) -> float:
        """Returns the mean of `iou` over all pairs of members, in [0, 1]; 1.0 for a single member."""
        if self.members < 2:
            return 1.0
        return float(self.iou()[torch.triu(torch.ones(self.members, self.members), diagonal=1) > 0].mean())

    def left_out(self, member: int) -> tuple[str, ...]:
        """Returns the sites of the residual branches that a member leaves out."""
        return tuple(name for name, kept in self.depth.items() if not kept[member])

    def digest(self) -> str:
        """Returns the SHA-256 of names, shapes and bits: equal exactly where the masks are equal."""
        sha = hashlib.sha256()
        for name in sorted(self.masks):
            mask = self.masks[name]
            sha.update(f"{name}:{tuple(mask.shape)}:".encode())
            sha.update(mask.to(torch.uint8).contiguous().numpy().tobytes())
        for name in sorted(self.depth):
            sha.update(f"branch {name}:".encode() + self.depth[name].to(torch.uint8).numpy().tobytes())
        return sha.hexdigest()


def full_masks(widths: Mapping[str, int], members: int) -> MaskSet:
    """Returns the masks that keep everything: copies of the dense network.

    Args:
        widths: Group → number of channels.
        members: Number of members K.
    """
    return MaskSet({name: torch.ones(members, width, dtype=torch.bool) for name, width in widths.items()}, "full")
