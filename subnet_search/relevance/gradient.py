"""Criteria from the gradient at the gates: at the intact member, and at points drawn on the path of the removal.

- `fisher`: E[(∂L/∂g_c)²] at g = 1 (Theis et al. 2018, equation 8, up to the factor ½).
- `taylor`: E[|∂L/∂g_c · g_c|] at g = 1 (Molchanov et al. 2017, equation 8, for a whole channel).
- `sampled`: E over images and α of |∂L(g_c = α)/∂g_c|^p, where each row draws a group and an α. The mean stands
  outside of the power, so for p ≥ 1 this is an upper bound of the `group` path of `ig` (Jensen), at the cost of the joint one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data.batches import length
from subnet_search.device import autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance.config import RelevanceConfig
from subnet_search.relevance.correlation import ErrorCorrelation, combined, places_of, targets
from subnet_search.relevance.gates import gated
from subnet_search.relevance.sample import losses, member_batches, reference_logits
from subnet_search.relevance.scope import Scope


def score_gradient(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    scope: Scope,
    config: RelevanceConfig,
    dense: nn.Module | None,
) -> dict[str, Tensor]:
    """Scores by the gradient of each row's loss with respect to its gates, every gate as the masks have it.

    Returns:
        float32 `[member, channel]` by group, the mean over images of |gradient|² (`fisher`) or |gradient| (`taylor`).
    """
    power = 2.0 if config.criterion == "fisher" else 1.0
    members = ensemble.members
    totals, seen = _zeros(ensemble, scope.names), 0
    for rows, labels in member_batches(ensemble, dataset, config, max(1, config.batch_rows // members)):
        gates = {name: scope.now(name, len(rows), rows.device) for name in scope.gated}
        reference = reference_logits(dense, rows, config)
        gradients, _ = _gradients(ensemble, gates, rows, labels, config, reference)
        seen += len(rows) // members
        for name, gradient in gradients.items():
            totals[name] += gradient.abs().pow(power).unflatten(0, (members, -1)).sum(dim=1)
    return {name: total / seen for name, total in totals.items()}


def score_sampled(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    scope: Scope,
    config: RelevanceConfig,
    dense: nn.Module | None,
    correlation: ErrorCorrelation | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Scores by gradients at (group, α) drawn for each row; `config.nodes` stratified draws for each image.

    Returns:
        float32 `[member, channel]` by group; zero for a group that no row has drawn.
    """
    members, names = ensemble.members, scope.names
    losses_of, correlations_of = _zeros(ensemble, names), _zeros(ensemble, names)
    counts = {name: torch.zeros(members, 1, device=total.device) for name, total in losses_of.items()}
    generator = torch.Generator().manual_seed(config.seed)
    task = progress.add_task("relevance", total=min(config.samples, length(dataset))) if progress else None
    seen = 0
    for rows, labels in member_batches(ensemble, dataset, config, max(1, config.batch_rows // members)):
        reference = reference_logits(dense, rows, config)
        places = (
            None if correlation is None else places_of(correlation, members, seen, len(rows) // members, rows.device)
        )
        seen += len(rows) // members
        for draw in range(config.nodes):
            group = torch.randint(len(names), (len(rows),), generator=generator).to(rows.device)
            alpha = ((draw + torch.rand(len(rows), 1, generator=generator)) / config.nodes).to(rows.device)
            gates = {name: scope.now(name, len(rows), rows.device) for name in scope.gated}
            for index, name in enumerate(names):
                path = scope.end(name, len(rows), rows.device) * alpha
                gates[name] = torch.where((group == index)[:, None], path, gates[name])
            gradients, others = _gradients(ensemble, gates, rows, labels, config, reference, correlation, places)
            for index, name in enumerate(names):
                drawn = (group == index)[:, None].float()
                contribution = gradients[name].abs().pow(config.power) * drawn
                losses_of[name] += contribution.unflatten(0, (members, -1)).sum(dim=1)
                if others is not None:
                    correlations_of[name] += (others[name] * drawn).unflatten(0, (members, -1)).sum(dim=1)
                counts[name] += drawn.unflatten(0, (members, -1)).sum(dim=1)
        if progress and task is not None:
            progress.advance(task, len(rows) // members)
    scores = {name: total / counts[name].clamp(min=1) for name, total in losses_of.items()}
    if correlation is None:
        return scores
    return {
        name: combined(scores[name], total / counts[name].clamp(min=1), config)
        for name, total in correlations_of.items()
    }


def _zeros(ensemble: SubnetEnsemble, names: Sequence[str]) -> dict[str, Tensor]:
    device = next(ensemble.parameters()).device
    return {name: torch.zeros(ensemble.members, ensemble.graph[name].width, device=device) for name in names}


def _gradients(
    ensemble: SubnetEnsemble,
    gates: dict[str, Tensor],
    rows: Tensor,
    labels: Tensor,
    config: RelevanceConfig,
    reference: Tensor | None,
    correlation: ErrorCorrelation | None = None,
    places: Tensor | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The gradients of each row's loss, and of its correlation, with respect to its gates; zero at gates of zero."""
    leaves = {name: gate.detach().requires_grad_() for name, gate in gates.items()}
    with gated(ensemble, leaves), autocast(rows.device, config.precision):
        logits = ensemble(rows, repeat=False).flatten(0, 1)

    def gradients(total: Tensor, again: bool) -> dict[str, Tensor]:
        found = torch.autograd.grad(total, list(leaves.values()), retain_graph=again)
        return {name: g.detach() * (gates[name] != 0) for name, g in zip(leaves, found, strict=True)}

    of_loss = gradients(losses(logits, labels, reference).sum(), correlation is not None)
    if correlation is None or places is None:
        return of_loss, None
    target = targets(labels, reference, logits.shape[1])
    return of_loss, gradients(correlation.of_rows(logits, target, places).sum(), False)
