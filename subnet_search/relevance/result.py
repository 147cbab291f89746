"""How much each channel matters to each member: what the search is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError


@dataclass(frozen=True)
class Relevance:
    """The relevance of every channel to every member.

    Attributes:
        scores: Group name → float32 `[member, channel]`, at least 0, comparable within a member and group; higher
            means that removing the channel changes the loss more.
        criterion: How it was measured.
        completeness: For `ig` along whole paths: how far the attributions of the mean loss are from adding up to
            its change, |Σ attributions − (L(1) − L(0))| / |L(1) − L(0)|; None for the others.
        completeness_image: The same image by image, mean of the numerators over mean of the denominators. It is
            larger: the kinks of each image's own path cancel in the mean loss only.
        samples: Images used for each member.
        seconds: Wall time.
        groups: Groups that were scored; the channels of the others all have one score.

    Raises:
        SubnetSearchError: where a score is negative, NaN or infinite.
    """

    scores: Mapping[str, Tensor]
    criterion: str
    completeness: float | None = None
    completeness_image: float | None = None
    samples: int = 0
    seconds: float = 0.0
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, scores in self.scores.items():
            if scores.ndim != 2 or not bool(torch.isfinite(scores).all()) or bool((scores < 0).any()):
                raise SubnetSearchError(
                    f"relevance of group {name!r} must be finite and at least 0 of shape [member, channel], got shape {tuple(scores.shape)} with {int((~torch.isfinite(scores)).sum())} values not finite; check the images, or use precision=fp32"
                )
        object.__setattr__(
            self, "scores", MappingProxyType({n: s.detach().float().cpu() for n, s in self.scores.items()})
        )
