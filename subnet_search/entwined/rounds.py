"""Pruning in rounds of scoring, cutting and training (SInGE's entwined flow, Yvinec et al. 2022), for any number of members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rich.progress import Progress
from torch import Tensor, nn

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.entwined.parts import Part
from subnet_search.entwined.phases import Data, Phase
from subnet_search.masks import MaskSet
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search import Quotas, SearchConfig
from subnet_search.search.cut import cut

Scorer = Callable[[SubnetEnsemble, int], Mapping[str, Tensor]]
"""Scores `[member, channel]` of each group for the ensemble as it is now, and the number of the round, from 0."""


def rounds(
    plan: Sequence[Quotas], parts: Sequence[Part], score: Scorer, search: SearchConfig, recalibrate: int
) -> tuple[Phase, ...]:
    """Makes a phase of each round: channels are scored inside the members, cut, and what is left is trained.

    Members are cut apart from each other by the price of their overlap, and drift further apart as each is scored
    inside its own masks. What has gone stays away.

    Args:
        plan: What the members are to have after each cut; no quota may grow.
        parts: The training after each cut.
        score: Gives the scores; asked only in rounds in which something is cut.
        search: λ of the overlap, cover and seed.
        recalibrate: Seed of the images on which normalisation statistics are measured after each cut.

    Returns:
        As many phases, for an intact ensemble.
    """

    def masks_of(number: int, quotas: Quotas) -> Callable[[SubnetEnsemble], MaskSet]:
        def masks(ensemble: SubnetEnsemble) -> MaskSet:
            present = ensemble.masks
            loses = any(quotas[name] != widths for name, widths in present.widths.items())
            return cut(present, score(ensemble, number) if loses else {}, quotas, search)

        return masks

    return tuple(
        Phase(config, masks_of(number, quotas), recalibrate, images)
        for number, (quotas, (config, images)) in enumerate(zip(plan, parts, strict=True))
    )


def plan_of_widths(widths: Mapping[str, int], quotas: Quotas, rounds: int) -> list[Quotas]:
    """Plans how widths fall from those of the whole network to the quotas, each round by the same factor.

    Args:
        widths: Group → number of channels.
        quotas: Group → how many of them each member keeps in the end.
        rounds: Number of cuts, at least 1.

    Returns:
        The quotas after each cut; the last ones are those asked for.
    """
    return [
        {
            name: tuple(round(width * (quota / width) ** (number / rounds)) for quota in quotas[name])
            for name, width in widths.items()
        }
        for number in range(1, rounds + 1)
    ]


def scorer(
    dataset: Data,
    config: RelevanceConfig,
    groups: Sequence[str],
    dense: nn.Module,
    first: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Scorer:
    """Returns a scorer that measures relevance on other images in every round.

    Args:
        dataset: Training images (raw) and labels.
        config: How relevance is measured.
        groups: The groups to score.
        dense: The dense network, for scores without labels.
        first: Scores of the first round, where they are known.
        progress: Bar to report to.
    """

    def score(ensemble: SubnetEnsemble, number: int) -> Mapping[str, Tensor]:
        if number == 0 and first is not None:
            return first
        drawn = replace(config, seed=config.seed + 1_299_709 * number)
        reference = dense.to(next(ensemble.parameters()).device)
        return score_relevance(ensemble, dataset, drawn, groups=groups, dense=reference, progress=progress).scores

    return score
