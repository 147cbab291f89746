"""Masked ensembles and what they combine with: stochastic depth, depth masks, bagging, MIMO, distillation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from subnet_search.baselines.mimo import Mimo, widened
from subnet_search.baselines.sampled import SampledEnsemble
from subnet_search.baselines.scratch import untrained
from subnet_search.baselines.system import Setup, System
from subnet_search.ensemble import EnsembleConfig, Predictor, SubnetEnsemble
from subnet_search.entwined import Phase
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import GroupGraph, trunk_layers
from subnet_search.masks import full_masks
from subnet_search.search import ENTWINED, SCORE_DRIVEN, BudgetConfig, SearchConfig, allocate_quotas, depth_masks
from subnet_search.stages import phases, score, search

Part = Literal["stochastic_depth", "depth_masks", "bagging", "mimo", "distill", "repeat"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What masks can be combined with."""


def composed(setup: Setup, search_config: SearchConfig | None, parts: Collection[str] = ()) -> System:
    """Builds an ensemble of masked members, or of whole ones, with the named parts.

    Args:
        setup: What it is made from.
        search_config: Which channels the members keep; None keeps them all.
        parts: Some of `PARTS`: `stochastic_depth` leaves out branches at random in training and, with a draw for each
            member, in use; `depth_masks` leaves out fixed branches of each member, within the budget; `bagging` trains
            each member on its bootstrap; `mimo` gives each member several inputs and heads (without masks it is one
            network from scratch, as in the paper); `distill` lets half of the loss come from the dense network;
            `repeat` shows all images to every member.

    Raises:
        SubnetSearchError: where the network has not what a part needs, or the budget cannot be met.
    """
    run, backbone, graph = setup.run, setup.backbone, setup.graph
    alone = search_config is None
    chosen = replace(run, search=search_config or run.search, finetune=_training(setup, parts))
    entwined = not alone and chosen.search.algorithm in ENTWINED
    if entwined and (unfit := sorted({"mimo", "stochastic_depth"}.intersection(parts))):
        raise SubnetSearchError(
            f"masks of {chosen.search.algorithm!r} come out of the training of a plain ensemble, got it together with {' and '.join(unfit)}; take a search that comes before the training, such as flow"
        )
    scratch = alone and "mimo" in parts
    inputs = (run.members if alone else setup.baselines.inputs) if "mimo" in parts else 1
    if inputs > 1:
        backbone, graph = widened(backbone, graph, inputs, run.seed)
    if scratch:
        backbone = replace(backbone, model=untrained(backbone.model, 1000 * run.seed))
    shallow = "depth_masks" in parts or (not alone and run.budget.depth)
    members = 1 if scratch else run.members
    budget, depth = _allowed(setup, graph, alone, shallow, members)
    masks = replace(full_masks(graph.widths, members), depth=depth)
    thinned = not alone or "depth_masks" in parts
    plan: tuple[Phase, ...] = (Phase(chosen.seeded("finetune"), recalibrate=run.seed if thinned else None),)
    if not alone:
        quotas = allocate_quotas(graph, members, budget, depth, run.ensemble.trunk)
        relevance = None
        if chosen.search.algorithm in SCORE_DRIVEN | ENTWINED:
            relevance = score(setup.backbone, setup.graph, setup.splits, quotas, chosen, setup.progress)
        if not entwined:
            found = search(setup.backbone, setup.graph, setup.splits, relevance, quotas, chosen)
            masks = replace(found, depth=depth)
        else:
            assert relevance is not None
            plan = phases(backbone, graph, setup.splits, relevance, quotas, chosen, setup.progress)
    # members that keep everything and differ by chance alone are one network: their normalisation is one too
    same = alone and "stochastic_depth" in parts
    sharing = EnsembleConfig("shared") if same else run.ensemble
    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, sharing)
    trunk = trunk_layers(graph, sharing.trunk)
    predictor: Predictor = ensemble
    if "stochastic_depth" in parts:
        predictor = SampledEnsemble(ensemble, _drop_rates(graph, setup.baselines.depth_drop, trunk), "branch", run.seed)
    if "mimo" in parts:
        predictor = Mimo(predictor, inputs, setup.backbone.card)
    return System(
        predictor,
        plan,
        origin="scratch" if scratch else "backbone",
        budget=run.budget.budget if thinned else None,
        # layers that are replaced hide the masks, which then stay as they were
        masks=None if alone else (lambda: ensemble.masks) if entwined else (lambda: masks),
    )


def _training(setup: Setup, parts: Collection[str]) -> FinetuneConfig:
    """The settings of the training, with what the parts change."""
    given, several = setup.run.finetune, "mimo" in parts
    return replace(
        given,
        bagging="bagging" in parts or given.bagging,
        mode="repeat" if "repeat" in parts else given.mode,
        distill=0.5 if "distill" in parts else given.distill,
        input_repetition=setup.baselines.input_repetition if several else 0.0,
        batch_repetition=setup.baselines.batch_repetition if several else 1,
    )


def _allowed(
    setup: Setup, graph: GroupGraph, alone: bool, shallow: bool, members: int
) -> tuple[BudgetConfig, dict[str, Tensor]]:
    """What the members may cost on `graph`, and the branches that each of them keeps."""
    budget = setup.run.budget
    if budget.budget is not None:  # of the network as it came, which has a smaller first layer than that of MIMO
        budget = replace(budget, budget=budget.budget * setup.graph.dense_macs / graph.dense_macs)
    if not shallow:
        return budget, {}
    if budget.budget is None:
        raise SubnetSearchError("depth masks need a budget of MACs, got a kept share of channels; give a budget")
    # together with masked channels, the branches take half of what is to be saved, on a logarithmic scale
    share = budget.budget if alone else (budget.budget * members) ** 0.5
    return budget, depth_masks(graph, members, share, setup.run.seed, setup.run.ensemble.trunk)


def _drop_rates(graph: GroupGraph, last: float, trunk: Collection[str]) -> dict[str, float]:
    """Growing linearly with depth (Huang et al. 2016, equation 4); what members have in common is always there."""
    rates = {branch.site: last * (i + 1) / len(graph.branches) for i, branch in enumerate(graph.branches)}
    return {site: rate for site, rate in rates.items() if site not in trunk}
