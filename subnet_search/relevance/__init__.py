"""How much each channel matters to each member."""

import time

from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

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
    dense: nn.Module | None = None,
    progress: Progress | None = None,
) -> Relevance:
    """Measures how much each channel matters to each member, inside the member's own masks and on its own images.

    Args:
        ensemble: The masked network, taken in eval mode and left unchanged; with full masks, the dense network as
            seen by K members.
        dataset: Training images (raw) and labels; a channel that the member has cut scores 0.
        config: Criterion and its settings.
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
    try:
        match config.criterion:
            case "ig" if config.path == "sampled":
                scores = score_sampled(ensemble, dataset, config, dense)
            case "ig":
                scores, completeness = score_ig(ensemble, dataset, config, dense, progress)
            case "singe":
                scores = score_singe(ensemble, dataset, config, dense)
            case "fisher" | "taylor":
                scores = score_gradient(ensemble, dataset, config, dense)
            case "magnitude":
                scores = score_magnitude(ensemble)
            case "random":
                scores = score_random(ensemble, config)
    finally:
        ensemble.train(was_training)
    used = 0 if config.criterion in ("magnitude", "random") else min(config.samples, len(dataset))  # type: ignore[arg-type]
    return Relevance(scores, config.criterion, completeness, used, time.perf_counter() - began)
