"""Integrated gradients of a channel's removal (Sundararajan et al. 2017, equation 1, with gates as the input).

    R[k, c] = E over images of |∫₀¹ ∂L(g_c = α)/∂g_c dα|^p

The integral along `joint` moves all gates of the member at once, along `group` those of one group while the others
stay; both sum to the change of the loss, which is the completeness axiom. Members are scored inside their own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from captum.attr import IntegratedGradients
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data.batches import length
from subnet_search.device import autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance.gates import gated
from subnet_search.relevance.sample import losses, member_batches, reference_logits
from subnet_search.relevance.scores import RelevanceConfig


@dataclass(frozen=True)
class Completeness:
    """How far attributions are from adding up to the change of the loss, relative to that change.

    Attributes:
        mean: Of the mean loss over all images, which is what relevance is about.
        image: Image by image; larger, as the kinks of each image's own path do not cancel.
    """

    mean: float
    image: float


def score_ig(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    names: Sequence[str],
    config: RelevanceConfig,
    dense: nn.Module | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Tensor], Completeness]:
    """Integrates along whole paths with captum, Gauss–Legendre.

    Args:
        ensemble: In eval mode.
        dataset: Training images.
        names: The groups to score.
        config: Path, nodes, power, samples.
        dense: The dense network, for scores without labels.
        progress: Bar to report to.

    Returns:
        Scores by group, float32 `[member, channel]`, and the error of completeness.
    """
    paths = [list(names)] if config.path == "joint" else [[name] for name in names]
    members, masks = ensemble.members, ensemble.masks.masks
    device = next(ensemble.parameters()).device
    totals = {name: torch.zeros(members, ensemble.graph[name].width, device=device) for name in names}
    # of each path: Σ error, Σ change, Σ |error|, Σ |change| over rows
    sums = torch.zeros(len(paths), 4, dtype=torch.float64)
    images = max(1, config.batch_rows // (members * config.nodes))
    wanted = min(config.samples, length(dataset))
    task = progress.add_task("relevance", total=wanted * len(paths)) if progress else None
    for rows, labels in member_batches(ensemble, dataset, config, images):
        reference = reference_logits(dense, rows, config)
        count = len(rows) // members
        extra = (rows, labels) if reference is None else (rows, labels, reference)
        for number, path in enumerate(paths):
            start = tuple(masks[n].to(device).float().repeat_interleave(count, dim=0) for n in path)
            end = tuple(torch.zeros_like(gate) for gate in start)
            loss = _LossOfGates(ensemble, path, len(rows), config)
            attributions = IntegratedGradients(loss).attribute(
                start,
                end,
                additional_forward_args=extra,
                n_steps=config.nodes,
                method="gausslegendre",
                # captum warns of a batch that holds less than one step
                internal_batch_size=max(config.batch_rows, len(rows))
                if len(rows) * config.nodes > config.batch_rows
                else None,
            )
            with torch.no_grad():
                change = (loss(*start, *extra) - loss(*end, *extra)).double().cpu()
            error = sum((a.sum(dim=1) for a in attributions), torch.zeros(len(rows), device=device)).cpu() - change
            sums[number] += torch.stack([error.sum(), change.sum(), error.abs().sum(), change.abs().sum()])
            for name, attribution in zip(path, attributions, strict=True):
                totals[name] += attribution.detach().abs().pow(config.power).unflatten(0, (members, -1)).sum(dim=1)
            if progress and task is not None:
                progress.advance(task, count)
    missed, changed, missed_image, changed_image = sums.abs().sum(dim=0).clamp(min=1e-12).tolist()
    completeness = Completeness(missed / changed, missed_image / changed_image)
    return {name: total / wanted for name, total in totals.items()}, completeness


class _LossOfGates:
    """The loss of each row as a function of the gates, in the row order of captum.

    Captum repeats the rows step by step, `[step, member, image]`; the ensemble wants them member-major.
    """

    def __init__(self, ensemble: SubnetEnsemble, names: Sequence[str], rows: int, config: RelevanceConfig) -> None:
        self.ensemble = ensemble
        self.rows = rows
        self.names = names
        self.config = config

    def __call__(self, *arguments: Tensor) -> Tensor:
        members = self.ensemble.members
        gates, extra = arguments[: len(self.names)], arguments[len(self.names) :]
        steps = len(extra[0]) // self.rows

        def member_major(t: Tensor) -> Tensor:
            major: Tensor = t.unflatten(0, (steps, members, -1)).transpose(0, 1).flatten(0, 2)
            return major

        rows, labels, *reference = (member_major(t) for t in extra)
        with (
            gated(self.ensemble, {n: member_major(g) for n, g in zip(self.names, gates, strict=True)}),
            autocast(rows.device, self.config.precision),
        ):
            logits = self.ensemble(rows, repeat=False).flatten(0, 1)
        loss = losses(logits, labels, reference[0] if reference else None)
        step_major: Tensor = loss.unflatten(0, (members, steps, -1)).transpose(0, 1).flatten()
        return step_major
