"""How much each channel matters to each member, by any criterion."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.modes import eval_mode
from subnet_search.errors import SubnetSearchError
from subnet_search.relevance.config import RelevanceConfig
from subnet_search.relevance.correlation import error_correlation
from subnet_search.relevance.gradient import score_gradient, score_sampled
from subnet_search.relevance.ig import score_ig
from subnet_search.relevance.magnitude import score_magnitude, score_random
from subnet_search.relevance.result import Relevance
from subnet_search.relevance.scope import Scope
from subnet_search.relevance.singe import score_singe

DATA_FREE = ("magnitude", "random")
"""Criteria that look at no image."""


@torch.inference_mode(False)  # scores are made of gradients, whatever the caller's mode
@torch.enable_grad()
def score_relevance(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    config: RelevanceConfig | None = None,
    *,
    groups: Sequence[str] | None = None,
    cut: bool = False,
    dense: nn.Module | None = None,
    progress: Progress | None = None,
) -> Relevance:
    """Measures how much each channel matters to each member, inside the member's own masks and on its own images.

    Args:
        ensemble: The masked network, taken in eval mode and left unchanged; with full masks, the dense network as
            seen by K members.
        dataset: Training images (raw) and labels; a channel that the member has cut scores 0 (but see `cut`).
        config: Criterion and its settings.
        groups: Names of the groups to score; None scores all. Of a group that is to stay whole there is nothing to
            learn, and leaving it out saves time: its channels all score 1.
        cut: Whether channels that a member has cut are scored as well, each group as if the member had all of it while
            its other groups stay as they are, so that masks can be searched again; `ig` on the paths `group` and
            `sampled` only.
        dense: The dense network, needed for scores without labels; taken in eval mode and left unchanged.
        progress: Bar to report to.

    Returns:
        Non-negative scores `[member, channel]` for each group.

    Raises:
        SubnetSearchError: where a score is not finite, a group is unknown, labels are outside the classes, the dense
            network is needed and missing, or cut channels cannot be scored in this way.
    """
    config = config or RelevanceConfig()
    if not config.labels and dense is None and config.criterion not in DATA_FREE:
        raise SubnetSearchError("relevance.labels is false, so the dense network is needed as reference; pass dense=")
    widths = ensemble.graph.widths
    names = list(widths) if groups is None else list(dict.fromkeys(groups))
    if unknown := [name for name in names if name not in widths]:
        raise SubnetSearchError(f"relevance: unknown groups {unknown}, expected some of {list(widths)}")
    if cut and (config.criterion != "ig" or config.path == "joint"):
        path = f" along the path {config.path!r}" if config.criterion == "ig" else ""
        raise SubnetSearchError(
            f"channels that a member has cut cannot be scored by {config.criterion!r}{path}; use relevance.criterion=ig with path=sampled or group"
        )
    scope = Scope(tuple(names), ensemble.masks.masks, cut)
    began = time.perf_counter()
    scores: dict[str, Tensor] = {}
    completeness = correlation = None
    # the dense network too, which would take the statistics of these few images
    with eval_mode(*(network for network in (ensemble, dense) if network is not None)):
        if names and config.lambda_corr > 0 and config.criterion == "ig":
            correlation = error_correlation(ensemble, dataset, config, dense)
        with scope.opened(ensemble):
            match config.criterion:
                case _ if not names:
                    pass
                case "ig" if config.path == "sampled":
                    scores = score_sampled(ensemble, dataset, scope, config, dense, correlation, progress)
                case "ig":
                    scores, completeness = score_ig(ensemble, dataset, scope, config, dense, correlation, progress)
                case "singe":
                    scores = score_singe(ensemble, dataset, names, config, dense)
                case "fisher" | "taylor":
                    scores = score_gradient(ensemble, dataset, scope, config, dense)
                case "magnitude":
                    scores = score_magnitude(ensemble)
                case "random":
                    scores = score_random(ensemble, config)
    ones = {name: torch.ones(ensemble.members, width) for name, width in widths.items()}
    return Relevance(
        {name: scores[name] if name in names else ones[name] for name in widths},
        config.criterion,
        completeness=None if completeness is None else completeness.mean,
        completeness_image=None if completeness is None else completeness.image,
        samples=0 if config.criterion in DATA_FREE or not names else min(config.samples, length(dataset)),
        seconds=time.perf_counter() - began,
        groups=tuple(names),
    )
