"""How much each channel matters to each member."""

import time
from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.relevance.gates import gated
from subnet_search.relevance.gradient import score_gradient, score_sampled
from subnet_search.relevance.ig import score_ig
from subnet_search.relevance.magnitude import score_magnitude, score_random
from subnet_search.relevance.scores import Criterion, Relevance, RelevanceConfig
from subnet_search.relevance.singe import score_singe

__all__ = ["Criterion", "Relevance", "RelevanceConfig", "gated", "score_relevance"]


def score_relevance(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    config: RelevanceConfig | None = None,
    *,
    groups: Sequence[str] | None = None,
    dense: nn.Module | None = None,
    progress: Progress | None = None,
) -> Relevance:
    """Measures how much each channel matters to each member, inside the member's own masks and on its own images.

    Args:
        ensemble: The masked network, taken in eval mode and left unchanged; with full masks, the dense network as
            seen by K members.
        dataset: Training images (raw) and labels; a channel that the member has cut scores 0.
        config: Criterion and its settings.
        groups: Names of the groups to score; None scores all. Of a group that is to stay whole there is nothing to
            learn, and leaving it out saves time: its channels all score 1.
        dense: The dense network, needed for scores without labels.
        progress: Bar to report to.

    Returns:
        Non-negative scores `[member, channel]` for each group.

    Raises:
        SubnetSearchError: where a score is not finite, or the criterion cannot follow the path asked for.
    """
    config = config or RelevanceConfig()
    if not config.labels and dense is None:
        raise SubnetSearchError("relevance.labels is false, so the dense network is needed as reference; pass dense=")
    began = time.perf_counter()
    was_training = ensemble.training
    ensemble.eval()
    completeness = None
    names = list(ensemble.graph.widths) if groups is None else list(groups)
    try:
        match config.criterion:
            case "ig" if config.path == "sampled":
                scores = score_sampled(ensemble, dataset, names, config, dense)
            case "ig":
                scores, completeness = score_ig(ensemble, dataset, names, config, dense, progress)
            case "singe":
                scores = score_singe(ensemble, dataset, names, config, dense)
            case "fisher" | "taylor":
                scores = score_gradient(ensemble, dataset, names, config, dense)
            case "magnitude":
                scores = score_magnitude(ensemble)
            case "random":
                scores = score_random(ensemble, config)
    finally:
        ensemble.train(was_training)
    constant = {n: torch.ones(ensemble.members, w) for n, w in ensemble.graph.widths.items() if n not in names}
    return Relevance(
        scores | constant,
        config.criterion,
        completeness=None if completeness is None else completeness.mean,
        completeness_image=None if completeness is None else completeness.image,
        samples=0 if config.criterion in ("magnitude", "random") else min(config.samples, length(dataset)),
        seconds=time.perf_counter() - began,
    )
