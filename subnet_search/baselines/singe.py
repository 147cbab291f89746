"""SInGE: one network pruned by the relevance of its channels, entwined with fine-tuning (Yvinec et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from subnet_search.baselines.system import Phase, Setup, System
from subnet_search.ensemble import Predictor, SubnetEnsemble, recalibrate
from subnet_search.masks import MaskSet, full_masks
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search import BudgetConfig, allocate_quotas

SPEED_UP = 2.1
"""How many times cheaper the network gets where the budget of the ensembles would leave it whole."""

Scorer = Callable[[SubnetEnsemble, int], Mapping[str, Tensor]]
"""Scores `[1, channel]` of each group for the network as it is now, and the number of the round, from 0."""


def singe(setup: Setup) -> System:
    """Prunes one network, scored in every round by the relevance of the run's settings.

    A single network cannot cost more than the dense one, so the budget of the ensembles is its own only below 1.0;
    from there on it is pruned to 1 / 2.1 of the dense MACs, the speed-up at which pruning methods are compared on
    ResNet-56 / CIFAR-10 (as in Fang et al. 2023, DepGraph). A kept share of channels stays what it is.
    """
    budget = setup.run.budget
    if budget.budget is not None and budget.budget >= 1.0:
        budget = replace(budget, budget=1.0 / SPEED_UP)
    config: RelevanceConfig = setup.run.seeded("relevance")
    thinned = [name for name, width in _plan(setup, budget)[-1].items() if width < setup.graph[name].width]

    def score(network: SubnetEnsemble, number: int) -> Mapping[str, Tensor]:
        drawn = replace(config, seed=config.seed + 1_299_709 * number)  # other images in every round
        dense = setup.backbone.model.to(next(network.parameters()).device)
        return score_relevance(
            network, setup.splits.train, drawn, groups=thinned, dense=dense, progress=setup.progress
        ).scores

    return pruned(setup, budget, score)


def pruned(setup: Setup, budget: BudgetConfig, score: Scorer) -> System:
    """Prunes one network in rounds of scoring, cutting, recalibrating and training.

    The budgets of the rounds fall geometrically to the last one; within a group the channels with the lowest scores go,
    and what has gone stays away. Each group gets the width that the budget gives it: before any training, ranking the
    channels of all groups at once, by score or by score per MAC, was worse on ResNet-20. The epochs are shared out to
    the rounds, the later ones getting what is left over.

    Args:
        setup: What it is made from; `baselines.rounds` rounds.
        budget: MACs of the pruned network / MACs of the dense one, or its kept share of channels.
        score: Gives the scores; it must depend on the network and the number of the round alone.

    Raises:
        SubnetSearchError: where the budget cannot be met.
    """
    run, plan = setup.run, _plan(setup, budget)
    training = run.seeded("finetune")
    whole = full_masks(setup.graph.widths, 1)
    network = SubnetEnsemble(setup.backbone.model, setup.graph, whole, setup.backbone.card)

    def phase(number: int, widths: Mapping[str, int]) -> Phase:
        def before(predictor: Predictor) -> None:
            assert isinstance(predictor, SubnetEnsemble)
            present = predictor.masks
            if any(present.widths[name][0] > width for name, width in widths.items()):
                predictor.set_masks(cut(present, score(predictor, number), widths))
            recalibrate(predictor, setup.splits.train, seed=run.seed, precision=training.precision)

        epochs = training.epochs * (number + 1) // len(plan) - training.epochs * number // len(plan)
        return Phase(replace(training, epochs=epochs, seed=training.seed + 32_452_843 * number), before)

    return System(network, tuple(phase(number, widths) for number, widths in enumerate(plan)), budget=budget.budget)


def cut(present: MaskSet, scores: Mapping[str, Tensor], widths: Mapping[str, int]) -> MaskSet:
    """Cuts the channels with the lowest scores.

    Args:
        present: Masks of one member.
        scores: Group → `[1, channel]`, at least 0; only those of kept channels count. Groups that lose none may be
            missing.
        widths: Group → how many channels are to stay; a group that has no more keeps what it has.

    Returns:
        Masks inside the present ones; of equal scores the lower channel stays.
    """
    masks = dict(present.masks)
    for name, width in widths.items():
        if present.widths[name][0] > width:
            known = scores[name].detach().cpu().double().masked_fill(~masks[name], -1.0)  # below every score
            lost = known.argsort(dim=1, descending=True, stable=True)[:, width:]
            masks[name] = masks[name].scatter(1, lost, False)
    return MaskSet(masks, "singe", present.seed)


def _plan(setup: Setup, budget: BudgetConfig) -> list[dict[str, int]]:
    """Widths of all groups after each round; no width grows, and the last ones are those of the budget."""
    rounds = setup.baselines.rounds
    plan: list[dict[str, int]] = []
    for number in range(rounds, 0, -1):
        quotas = allocate_quotas(setup.graph, 1, _share(budget, number / rounds))
        # what a smaller budget leaves over can go to a group that gets less of a larger one
        plan.insert(0, {name: max(quota[0], plan[0][name] if plan else 0) for name, quota in quotas.items()})
    return plan


def _share(budget: BudgetConfig, exponent: float) -> BudgetConfig:
    """The budget of a round: on the way from 1 to the last one, each round the same factor."""
    if budget.keep is not None:
        return replace(budget, keep=budget.keep**exponent)
    assert budget.budget is not None
    return replace(budget, budget=budget.budget**exponent)
