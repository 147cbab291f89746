"""Scores taken inside the members, from which the channels are assigned anew: the search that knows its own ensemble."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.device import Precision
from subnet_search.ensemble import SubnetEnsemble, recalibrate
from subnet_search.masks import MaskSet
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search.algorithms import SCORE_DRIVEN
from subnet_search.search.budget import thinned_groups
from subnet_search.search.config import SearchConfig
from subnet_search.search.dispatch import Quotas, search_masks

CALIBRATION = 512  # images for the statistics of masks that are going to change again


def search_in_rounds(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[Tensor, int]],
    scores: Mapping[str, Tensor] | None,
    quotas: Quotas,
    config: SearchConfig,
    scoring: RelevanceConfig,
    *,
    depth: Mapping[str, Tensor] | None = None,
    dense: nn.Module | None = None,
    measure: Callable[[MaskSet], float] | None = None,
    common: Collection[str] = (),
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> MaskSet:
    """Decides which channels each member keeps, `config.rescoring` times anew with scores from inside the members.

    In the intact network members are all alike, and what one of them needs does not depend on what it or another has.
    So masks are found from those scores first; then, in each round, the members' normalisation is recalibrated, all
    channels are scored inside the members, those that they have cut too, and masks are found from the mean of all
    scores, each divided by its group's mean. The mean keeps the masks from going to and fro between the rounds. Nothing
    is trained. An algorithm that needs no scores, or those of the weights, has one round.

    Args:
        ensemble: The network with members of any masks; masks and statistics are changed, weights are not.
        dataset: Training images (raw) and labels.
        scores: Relevance in the intact network, as in `search_masks`.
        quotas: Group → number of channels that each member keeps.
        config: Algorithm and its settings.
        scoring: How channels were scored and are scored again, with other images in each round; `ig` on the path
            `sampled` or `group`.
        depth: Site of a residual branch → bool `[member]`, the branches that members keep; None where they keep all.
        dense: The dense network, needed for scores without labels.
        measure: As in `search_masks`.
        common: As in `search_masks`.
        precision: Arithmetic of the recalibration.
        progress: Bar to report to.

    Returns:
        As `search_masks`, with `depth`; `notes` hold `rescored`: for each round the share of the decisions that it
        changed, and the objective before it.

    Raises:
        SubnetSearchError: as `search_masks` and `score_relevance` do.
    """
    widths, branches = ensemble.graph.widths, dict(depth or {})
    first = config.start if config.algorithm == "swap" else config.algorithm
    rounds = config.rescoring if scores is not None and first in SCORE_DRIVEN - {"magnitude"} else 0
    thinned = thinned_groups(quotas, widths)

    def measured(masks: MaskSet) -> float:
        assert measure is not None
        return measure(replace(masks, depth=branches))

    judge = None if measure is None else measured
    known = scores
    rescored: list[dict[str, Any]] = []
    before: MaskSet | None = None
    for number in range(1, rounds + 1):
        masks = search_masks(known, widths, quotas, replace(config, algorithm=first), judge, common=common)
        if before is not None:
            rescored[-1]["changed"] = _changed(before, masks, thinned)
        rescored.append({"objective": masks.notes["objective"]})
        ensemble.set_masks(replace(masks, depth=branches))
        # not by thin members: channels that are cut are scored too, and need statistics of their own
        recalibrate(ensemble, dataset, samples=CALIBRATION, seed=scoring.seed + number, precision=precision, thin=False)
        drawn = replace(scoring, seed=scoring.seed + 1_299_709 * number)
        found = score_relevance(ensemble, dataset, drawn, groups=thinned, cut=True, dense=dense, progress=progress)
        assert known is not None
        known = {name: _mean(known[name], found.scores[name], number) for name in widths}
        before = masks
    masks = search_masks(known, widths, quotas, config, judge, progress, common)
    if before is not None:
        rescored[-1]["changed"] = _changed(before, masks, thinned)
    notes = {**masks.notes, **({"rescored": rescored} if rounds else {})}
    return replace(masks, notes=notes, depth=branches)


def _mean(known: Tensor, found: Tensor, number: int) -> Tensor:
    """The mean of the scores of `number` earlier rounds and those of this one, on one scale."""
    return (_scaled(known) * number + _scaled(found)) / (number + 1)


def _scaled(scores: Tensor) -> Tensor:
    mean = scores.double().mean()
    return scores.double() / mean if mean > 0 else scores.double()


def _changed(before: MaskSet, after: MaskSet, groups: list[str]) -> float:
    """The share of kept channels of the named groups that are others than before."""
    lost = sum(int((before.masks[name] & ~after.masks[name]).sum()) for name in groups)
    kept = sum(int(before.masks[name].sum()) for name in groups)
    return lost / max(kept, 1)
