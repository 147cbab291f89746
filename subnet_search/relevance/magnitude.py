"""Relevance that needs no data: the size of the weights (Li et al. 2017), and chance."""

from __future__ import annotations

import torch
from torch import Tensor

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance.config import RelevanceConfig
from subnet_search.relevance.writers import writers


def score_magnitude(ensemble: SubnetEnsemble) -> dict[str, Tensor]:
    """Scores each channel by the Euclidean norm of all weights that write it; members differ in their masks only.

    Returns:
        float32 `[member, channel]` by group.
    """
    scores = {}
    for group in ensemble.graph.groups:
        squares = torch.zeros(group.width)
        for writer in writers(ensemble.network, group):
            squares += writer.squares(writer.weight.detach().cpu(), group.width)
        scores[group.name] = squares.sqrt() * ensemble.masks.masks[group.name]
    return scores


def score_random(ensemble: SubnetEnsemble, config: RelevanceConfig) -> dict[str, Tensor]:
    """Draws scores from the uniform distribution on [0, 1): the floor that every criterion has to clear.

    Returns:
        float32 `[member, channel]` by group, 0 for a channel that the member has cut, as all criteria have it.
    """
    generator = torch.Generator().manual_seed(config.seed)
    return {name: torch.rand(mask.shape, generator=generator) * mask for name, mask in ensemble.masks.masks.items()}
