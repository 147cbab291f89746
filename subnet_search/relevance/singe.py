"""SInGE's criterion: integrated gradients of the weights of a neuron (Yvinec et al. 2022).

    R[c] = Σ_s ‖∇_{μ^s W_c} F ⊙ μ^s W_c‖₂

summed along an exponential path that scales the neuron's weights towards zero. The paper's text was not at hand:
this is its form as far as known here, with the loss as F and μ such that the path ends at 1 % of the weights.

Scaling weights in front of a normalisation in eval mode would not remove the channel; the weights meant are those
with the normalisation folded in. Folding needs no second network: with W' = (γ/σ) W and a gate μ^s after the
normalisation, the effective weights are μ^s W', and ∇_{μ^s W'} F ⊙ μ^s W' = ∇_W F ⊙ W, the factors cancelling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.device import autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.groups import ChannelGroup
from subnet_search.relevance.config import RelevanceConfig
from subnet_search.relevance.gates import gated
from subnet_search.relevance.sample import losses, member_batches, reference_logits
from subnet_search.relevance.writers import writers

END_OF_PATH = 0.01


def score_singe(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    names: Sequence[str],
    config: RelevanceConfig,
    dense: nn.Module | None,
) -> dict[str, Tensor]:
    """Sums the norms of gradient ⊙ weight along the path.

    The gradient is that of a small batch's mean loss: over a large one it cancels.

    Returns:
        float32 `[member, channel]` by group, the mean over batches; the writers of a channel count as one long weight.
    """
    paths = [list(names)] if config.path == "joint" else [[name] for name in names]
    scales = torch.logspace(0, torch.log10(torch.tensor(END_OF_PATH)).item(), config.nodes).tolist()
    totals = {name: torch.zeros(ensemble.members, ensemble.graph[name].width) for name in names}
    for member in range(ensemble.members):
        alone = ensemble.select([member]).requires_grad_(True)  # frozen weights have gradients all the same
        count = 0
        for rows, labels in member_batches(alone, dataset, _of_member(config, member), 32):
            count += 1
            reference = reference_logits(dense, rows, config)
            for path in paths:
                for scale in scales:
                    gates = {
                        n: torch.full((len(rows), ensemble.graph[n].width), scale, device=rows.device) for n in path
                    }
                    with gated(alone, gates), autocast(rows.device, config.precision):
                        logits = alone(rows, repeat=False).flatten(0, 1)
                    loss = losses(logits, labels, reference).mean()
                    for name, norms in _norms(alone, [ensemble.graph[name] for name in path], loss).items():
                        totals[name][member] += norms.cpu()
        for name in names:
            totals[name][member] /= count
    masks = ensemble.masks.masks
    return {name: total * masks[name] for name, total in totals.items()}


def _of_member(config: RelevanceConfig, member: int) -> RelevanceConfig:
    """The settings with which `member_batches` gives a lone member its own images."""
    return dataclasses.replace(config, seed=config.seed + 104_729 * member) if config.bootstrap else config


def _norms(ensemble: SubnetEnsemble, groups: Sequence[ChannelGroup], loss: Tensor) -> dict[str, Tensor]:
    """‖∇_W F ⊙ W‖₂ of each channel, `[channel]` by group; one backward pass for all groups."""
    parts = {group.name: writers(ensemble.network, group) for group in groups}
    weights = list({id(writer.weight): writer.weight for found in parts.values() for writer in found}.values())
    gradients = torch.autograd.grad(loss, weights)
    products = {id(w): (g * w).detach() for w, g in zip(weights, gradients, strict=True)}
    squares = {group.name: torch.zeros(group.width, device=loss.device) for group in groups}
    for name, found in parts.items():
        for writer in found:
            squares[name] += writer.squares(products[id(writer.weight)], len(squares[name]))
    return {name: total.sqrt() for name, total in squares.items()}
