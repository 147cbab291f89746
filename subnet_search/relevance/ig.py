"""Integrated gradients of a channel's removal (Sundararajan et al. 2017, equation 1, with gates as the input).

    R[k, c] = E over images of |∫₀¹ ∂L(g_c = α)/∂g_c dα|^p

The integral along `joint` moves all gates of the member at once, along `group` those of one group while the others
stay; both sum to the change of the loss, which is the completeness axiom. Members are scored inside their own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    scope: Scope,
    config: RelevanceConfig,
    dense: nn.Module | None = None,
    correlation: ErrorCorrelation | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Tensor], Completeness]:
    """Integrates along whole paths with captum, Gauss–Legendre.

    Args:
        ensemble: In eval mode.
        dataset: Training images.
        scope: The groups to score, and what the members have.
        config: Path, nodes, power, samples.
        dense: The dense network, for scores without labels.
        correlation: The members' errors, where their correlation counts.
        progress: Bar to report to.

    Returns:
        Scores by group, float32 `[member, channel]`, and the error of completeness of the loss.
    """
    names = scope.names
    paths = [list(names)] if config.path == "joint" else [[name] for name in names]
    members = ensemble.members
    device = next(ensemble.parameters()).device
    totals = {name: torch.zeros(members, ensemble.graph[name].width, device=device) for name in names}
    correlations = {name: torch.zeros_like(total) for name, total in totals.items()}
    # of each path: Σ error, Σ change, Σ |error|, Σ |change| over rows
    sums = torch.zeros(len(paths), 4, dtype=torch.float64)
    images = max(1, config.batch_rows // (members * config.nodes))
    wanted, seen = min(config.samples, length(dataset)), 0
    task = progress.add_task("relevance", total=wanted * len(paths)) if progress else None
    for rows, labels in member_batches(ensemble, dataset, config, images):
        reference = reference_logits(dense, rows, config)
        count = len(rows) // members
        extra = (rows, labels) if reference is None else (rows, labels, reference)
        places = None if correlation is None else places_of(correlation, members, seen, count, device)
        seen += count
        for number, path in enumerate(paths):
            start = tuple(scope.end(n, len(rows), device) for n in path)
            loss = _LossOfGates(ensemble, scope, path, len(rows), config)
            attributions = _integrated(loss, start, extra, config)
            end = tuple(torch.zeros_like(gate) for gate in start)
            with torch.no_grad():
                change = (loss(*start, *extra) - loss(*end, *extra)).cpu().double()  # MPS has no float64
            error = sum((a.sum(dim=1) for a in attributions), torch.zeros(len(rows), device=device)).cpu() - change
            sums[number] += torch.stack([error.sum(), change.sum(), error.abs().sum(), change.abs().sum()])
            for name, attribution in zip(path, attributions, strict=True):
                totals[name] += attribution.detach().abs().pow(config.power).unflatten(0, (members, -1)).sum(dim=1)
            if correlation is not None and places is not None:
                alike = _CorrelationOfGates(ensemble, scope, path, len(rows), config, correlation)
                shares = _integrated(alike, start, (places, *extra), config)
                for name, share in zip(path, shares, strict=True):
                    correlations[name] += share.detach().unflatten(0, (members, -1)).sum(dim=1)
            if progress and task is not None:
                progress.advance(task, count)
    missed, changed, missed_image, changed_image = sums.abs().sum(dim=0).clamp(min=1e-12).tolist()
    completeness = Completeness(missed / changed, missed_image / changed_image)
    scores = {name: total / wanted for name, total in totals.items()}
    if correlation is not None:
        scores = {name: combined(scores[name], total / wanted, config) for name, total in correlations.items()}
    return scores, completeness


def _integrated(
    function: _LossOfGates, start: tuple[Tensor, ...], extra: tuple[Tensor, ...], config: RelevanceConfig
) -> tuple[Tensor, ...]:
    """The integrated gradient of each gate, from all of them closed to `start`: `[row, channel]` for each group."""
    from captum.attr import IntegratedGradients  # takes most of a second to import

    rows = len(start[0])
    attributions: tuple[Tensor, ...] = IntegratedGradients(function).attribute(
        start,
        tuple(torch.zeros_like(gate) for gate in start),
        additional_forward_args=extra,
        n_steps=config.nodes,
        method="gausslegendre",
        # captum warns of a batch that holds less than one step
        internal_batch_size=max(config.batch_rows, rows) if rows * config.nodes > config.batch_rows else None,
    )
    return attributions


class _LossOfGates:
    """The loss of each row as a function of the gates, in the row order of captum.

    Captum repeats the rows step by step, `[step, member, image]`; the ensemble wants them member-major.
    """

    def __init__(
        self, ensemble: SubnetEnsemble, scope: Scope, names: Sequence[str], rows: int, config: RelevanceConfig
    ) -> None:
        self.ensemble = ensemble
        self.scope = scope
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

        moving = {n: member_major(g) for n, g in zip(self.names, gates, strict=True)}
        values = self.of_rows(moving, *(member_major(t) for t in extra))
        step_major: Tensor = values.unflatten(0, (members, steps, -1)).transpose(0, 1).flatten()
        return step_major

    def of_rows(self, gates: dict[str, Tensor], *extra: Tensor) -> Tensor:
        """The loss of member-major rows: images, labels and, where there is one, the reference."""
        rows, labels, *reference = extra
        return losses(self.logits(gates, rows), labels, reference[0] if reference else None)

    def logits(self, gates: dict[str, Tensor], rows: Tensor) -> Tensor:
        """The logits `[row, class]` of member-major rows, the groups that do not move as the members have them."""
        standing = {n: self.scope.now(n, len(rows), rows.device) for n in self.scope.gated if n not in gates}
        around = standing if self.scope.cut else {}
        with gated(self.ensemble, {**around, **gates}), autocast(rows.device, self.config.precision):
            logits: Tensor = self.ensemble(rows, repeat=False).flatten(0, 1)
        return logits


class _CorrelationOfGates(_LossOfGates):
    """The correlation of each row's errors with the other members', as a function of its gates."""

    def __init__(
        self,
        ensemble: SubnetEnsemble,
        scope: Scope,
        names: Sequence[str],
        rows: int,
        config: RelevanceConfig,
        correlation: ErrorCorrelation,
    ) -> None:
        super().__init__(ensemble, scope, names, rows, config)
        self.correlation = correlation

    def of_rows(self, gates: dict[str, Tensor], *extra: Tensor) -> Tensor:
        """The correlation of member-major rows; their places come before the images."""
        places, rows, labels, *reference = extra
        logits = self.logits(gates, rows)
        target = targets(labels, reference[0] if reference else None, logits.shape[1])
        return self.correlation.of_rows(logits, target, places)
