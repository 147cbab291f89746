"""Which gates stand where while a channel is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.masks import MaskSet, full_masks


@dataclass(frozen=True)
class Scope:
    """The groups to score, and what the members have in them and around them.

    Attributes:
        names: The groups to score.
        masks: Group → bool `[member, channel]`, what the members have now.
        cut: Whether the channels that a member has cut are scored as well, as candidates for coming back: the path of a
            group then leads from none of its channels to all of them, in the place of those that the member has, while
            the other groups stay as they are.
    """

    names: tuple[str, ...]
    masks: Mapping[str, Tensor]
    cut: bool

    @property
    def gated(self) -> tuple[str, ...]:
        """The groups that need gates: with cut channels open, gates do what the masks did."""
        return tuple(self.masks) if self.cut else self.names

    def now(self, name: str, rows: int, device: torch.device) -> Tensor:
        """Returns the gates of a group as the members have it, float32 `[row, channel]`, member-major rows."""
        mask = self.masks[name].to(device).float()
        return mask.repeat_interleave(rows // len(mask), dim=0)

    def end(self, name: str, rows: int, device: torch.device) -> Tensor:
        """Returns the gates of a group at the upper end of its path, where 0 is the lower one."""
        now = self.now(name, rows, device)
        return torch.ones_like(now) if self.cut else now

    @contextmanager
    def opened(self, ensemble: SubnetEnsemble) -> Iterator[None]:
        """Lets all channels through the ensemble's masks while the block lasts, where cut ones are to be scored."""
        if not self.cut:
            yield
            return
        now = ensemble.masks
        whole = full_masks(ensemble.graph.widths, ensemble.members)
        try:
            ensemble.set_masks(MaskSet(whole.masks, now.algorithm, now.seed, now.notes, now.depth))
            yield
        finally:
            ensemble.set_masks(now)
