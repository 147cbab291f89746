"""Masked ensembles and what they combine with: stochastic depth, depth masks, bagging, MIMO, distillation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from subnet_search.baselines.mimo import Mimo, widened
from subnet_search.baselines.sampled import SampledEnsemble
from subnet_search.baselines.scratch import untrained
from subnet_search.baselines.system import Phase, Setup, System
from subnet_search.ensemble import EnsembleConfig, Predictor, SubnetEnsemble, recalibrate
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, trunk_layers
from subnet_search.masks import MaskSet, full_masks
from subnet_search.pipeline import score, search
from subnet_search.search import SCORE_DRIVEN, SearchConfig, allocate_quotas, depth_masks

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
    scratch = alone and "mimo" in parts
    inputs = (run.members if alone else setup.baselines.inputs) if "mimo" in parts else 1
    if inputs > 1:
        backbone, graph = widened(backbone, graph, inputs, run.seed)
    if scratch:
        backbone = replace(backbone, model=untrained(backbone.model, 1000 * run.seed))
    shallow = "depth_masks" in parts or (not alone and run.budget.depth)
    masks = _masks(setup, graph, search_config, shallow, 1 if scratch else run.members)
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
    thinned = not alone or "depth_masks" in parts
    config = replace(
        run.seeded("finetune"),
        bagging="bagging" in parts or run.finetune.bagging,
        mode="repeat" if "repeat" in parts else run.finetune.mode,
        distill=0.5 if "distill" in parts else run.finetune.distill,
        input_repetition=setup.baselines.input_repetition if "mimo" in parts else 0.0,
        batch_repetition=setup.baselines.batch_repetition if "mimo" in parts else 1,
    )

    def measure_again(predictor: Predictor) -> None:
        recalibrate(predictor, setup.splits.train, seed=run.seed, precision=run.finetune.precision)

    return System(
        predictor,
        (Phase(config, measure_again if thinned else None),),
        origin="scratch" if scratch else "backbone",
        iou=masks.mean_iou() if not alone and masks.members > 1 else None,
        budget=run.budget.budget if thinned else None,
    )


def _masks(setup: Setup, graph: GroupGraph, search_config: SearchConfig | None, shallow: bool, members: int) -> MaskSet:
    """The channels and branches that each member keeps; `graph` says what they cost."""
    run = setup.run
    budget = run.budget
    if budget.budget is not None:  # of the network as it came, which has a smaller first layer than that of MIMO
        budget = replace(budget, budget=budget.budget * setup.graph.dense_macs / graph.dense_macs)
    depth: dict[str, Tensor] = {}
    if shallow:
        if budget.budget is None:
            raise SubnetSearchError("depth masks need a budget of MACs, got a kept share of channels; give a budget")
        # together with masked channels, the branches take half of what is to be saved, on a logarithmic scale
        share = budget.budget if search_config is None else (budget.budget * members) ** 0.5
        depth = depth_masks(graph, members, share, run.seed, run.ensemble.trunk)
    if search_config is None:
        return replace(full_masks(graph.widths, members), depth=depth)
    quotas = allocate_quotas(graph, members, budget, depth, run.ensemble.trunk)
    chosen = replace(run, search=search_config)
    relevance = None
    if search_config.algorithm in SCORE_DRIVEN:
        relevance = score(setup.backbone, setup.graph, setup.splits, quotas, chosen, setup.progress)
    return replace(search(setup.backbone, setup.graph, setup.splits, relevance, quotas, chosen), depth=depth)


def _drop_rates(graph: GroupGraph, last: float, trunk: Collection[str]) -> dict[str, float]:
    """Growing linearly with depth (Huang et al. 2016, equation 4); what members have in common is always there."""
    rates = {branch.site: last * (i + 1) / len(graph.branches) for i, branch in enumerate(graph.branches)}
    return {site: rate for site, rate in rates.items() if site not in trunk}
