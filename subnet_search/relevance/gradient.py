"""Criteria from the gradient at the gates: at the intact member, and at points drawn on the path of the removal.

- `fisher`: E[(∂L/∂g_c)²] at g = 1 (Theis et al. 2018, equation 8, up to the factor ½).
- `taylor`: E[|∂L/∂g_c · g_c|] at g = 1 (Molchanov et al. 2017, equation 8, for a whole channel).
- `sampled`: E over images and α of |∂L(g_c = α)/∂g_c|^p, where each row draws a group and an α. The mean stands
  outside of the power, so this is an upper bound of the `group` path of `ig` (Jensen), at the cost of the joint one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.device import autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance.gates import gated
from subnet_search.relevance.sample import losses, member_batches, reference_logits
from subnet_search.relevance.scores import RelevanceConfig


def score_gradient(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    names: Sequence[str],
    config: RelevanceConfig,
    dense: nn.Module | None,
) -> dict[str, Tensor]:
    """Scores by the gradient of each row's loss with respect to its gates, every gate open.

    Returns:
        float32 `[member, channel]` by group, the mean over images of |gradient|² (`fisher`) or |gradient| (`taylor`).
    """
    power = 2.0 if config.criterion == "fisher" else 1.0
    members = ensemble.members
    totals, seen = _zeros(ensemble, names), 0
    for rows, labels in member_batches(ensemble, dataset, config, max(1, config.batch_rows // members)):
        gates = _open(ensemble, names, len(rows))
        gradients = _gradients(ensemble, gates, rows, labels, config, reference_logits(dense, rows, config))
        seen += len(rows) // members
        for name, gradient in gradients.items():
            totals[name] += gradient.abs().pow(power).unflatten(0, (members, -1)).sum(dim=1)
    return {name: total / seen for name, total in totals.items()}


def score_sampled(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    names: Sequence[str],
    config: RelevanceConfig,
    dense: nn.Module | None,
) -> dict[str, Tensor]:
    """Scores by gradients at (group, α) drawn for each row; `config.nodes` stratified draws for each image.

    Returns:
        float32 `[member, channel]` by group; zero for a group that no row has drawn.
    """
    members = ensemble.members
    totals = _zeros(ensemble, names)
    counts = {name: torch.zeros(members, 1, device=total.device) for name, total in totals.items()}
    generator = torch.Generator().manual_seed(config.seed)
    for rows, labels in member_batches(ensemble, dataset, config, max(1, config.batch_rows // members)):
        reference = reference_logits(dense, rows, config)
        for draw in range(config.nodes):
            group = torch.randint(len(names), (len(rows),), generator=generator).to(rows.device)
            alpha = ((draw + torch.rand(len(rows), 1, generator=generator)) / config.nodes).to(rows.device)
            gates = _open(ensemble, names, len(rows))
            for index, name in enumerate(names):
                gates[name] = torch.where((group == index)[:, None], gates[name] * alpha, gates[name])
            gradients = _gradients(ensemble, gates, rows, labels, config, reference)
            for index, name in enumerate(names):
                drawn = (group == index)[:, None].float()
                contribution = gradients[name].abs().pow(config.power) * drawn
                totals[name] += contribution.unflatten(0, (members, -1)).sum(dim=1)
                counts[name] += drawn.unflatten(0, (members, -1)).sum(dim=1)
    return {name: total / counts[name].clamp(min=1) for name, total in totals.items()}


def _zeros(ensemble: SubnetEnsemble, names: Sequence[str]) -> dict[str, Tensor]:
    device = next(ensemble.parameters()).device
    return {name: torch.zeros(ensemble.members, ensemble.graph[name].width, device=device) for name in names}


def _open(ensemble: SubnetEnsemble, names: Sequence[str], rows: int) -> dict[str, Tensor]:
    """Gates as the masks have them: one for a channel that the member keeps, zero for one that it does not."""
    device = next(ensemble.parameters()).device
    count = rows // ensemble.members
    masks = ensemble.masks.masks
    return {name: masks[name].to(device).float().repeat_interleave(count, dim=0) for name in names}


def _gradients(
    ensemble: SubnetEnsemble,
    gates: dict[str, Tensor],
    rows: Tensor,
    labels: Tensor,
    config: RelevanceConfig,
    reference: Tensor | None,
) -> dict[str, Tensor]:
    """The gradient of each row's loss with respect to its gates; zero where the mask has cut the channel."""
    leaves = {name: gate.detach().requires_grad_() for name, gate in gates.items()}
    with gated(ensemble, leaves), autocast(rows.device, config.precision):
        logits = ensemble(rows, repeat=False).flatten(0, 1)
    total = losses(logits, labels, reference).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {name: g.detach() * (gates[name] != 0) for name, g in zip(leaves, gradients, strict=True)}
