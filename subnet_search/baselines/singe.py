"""SInGE: one network pruned by the relevance of its channels, entwined with fine-tuning (Yvinec et al. 2022)."""

from __future__ import annotations

from dataclasses import replace

from subnet_search.baselines.system import Setup, System
from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.entwined.parts import shared_out
from subnet_search.entwined.rounds import Scorer, plan_of_widths, rounds, scorer
from subnet_search.masks import full_masks
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas

SPEED_UP = 2.1
"""How many times cheaper the network gets where the budget of the ensembles would leave it whole."""


def singe(setup: Setup) -> System:
    """Prunes one network, scored in every round by the relevance of the run's settings.

    A single network cannot cost more than the dense one, so the budget of the ensembles is its own only below 1.0;
    from there on it is pruned to 1 / 2.1 of the dense MACs, the speed-up at which pruning methods are compared on
    ResNet-56 / CIFAR-10 (as in Fang et al. 2023, DepGraph). A kept share of channels stays what it is.
    """
    budget = setup.run.budget
    if budget.budget is not None and budget.budget >= 1.0:
        budget = replace(budget, budget=1.0 / SPEED_UP)
    quotas = allocate_quotas(setup.graph, 1, budget)
    thinned = [name for name, (width,) in quotas.items() if width < setup.graph[name].width]
    relevance, dense = setup.run.seeded("relevance"), setup.backbone.model
    return pruned(setup, budget, scorer(setup.splits.train, relevance, thinned, dense, progress=setup.progress))


def pruned(setup: Setup, budget: BudgetConfig, score: Scorer) -> System:
    """Prunes one network in rounds of scoring, cutting, recalibrating and training.

    The widths fall geometrically to those of the budget; within a group the channels with the lowest scores go, and
    what has gone stays away. Each group gets the width that the budget gives it: before any training, ranking the
    channels of all groups at once, by score or by score per MAC, was worse on ResNet-20.

    Args:
        setup: What it is made from; `baselines.rounds` rounds, to which the epochs are shared out.
        budget: MACs of the pruned network / MACs of the dense one, or its kept share of channels.
        score: Gives the scores; it must depend on the network and the number of the round alone.

    Raises:
        SubnetSearchError: where the budget cannot be met.
    """
    run, graph, number = setup.run, setup.graph, setup.baselines.rounds
    plan = plan_of_widths(graph.widths, allocate_quotas(graph, 1, budget), number)
    parts = shared_out(run.seeded("finetune"), number, length(setup.splits.train), 1)
    network = SubnetEnsemble(setup.backbone.model, graph, full_masks(graph.widths, 1), setup.backbone.card)
    alone = SearchConfig("progressive", seed=run.seed)
    return System(network, rounds(plan, parts, score, alone, run.seed), budget=budget.budget)
