"""Masked ensembles and what they combine with: stochastic depth, depth masks, bagging, MIMO, distillation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from subnet_search.groups import GroupGraph, trunk_layers, trunk_shares
from subnet_search.masks import MaskSet, full_masks
from subnet_search.search import (
    ENTWINED,
    SCORE_DRIVEN,
    BudgetConfig,
    Quotas,
    SearchConfig,
    allocate_quotas,
    depth_masks,
)
from subnet_search.settings import RunConfig
from subnet_search.stages import phases, score, search, settled

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
    run = replace(setup.run, search=search_config or setup.run.search, finetune=_training(setup, parts))
    chosen = replace(setup, run=_settled(run, setup.graph, search_config, parts))
    return _whole(chosen, parts) if search_config is None else _masked(chosen, parts)


def _whole(setup: Setup, parts: Collection[str]) -> System:
    """Members that keep all channels; with `mimo` one network from scratch that has as many inputs."""
    run, backbone, graph = setup.run, setup.backbone, setup.graph
    mimo, thinned = "mimo" in parts, "depth_masks" in parts
    members, inputs = (1, run.members) if mimo else (run.members, 1)
    if mimo:
        backbone, graph = widened(backbone, graph, inputs, run.seed)
        backbone = replace(backbone, model=untrained(backbone.model, 1000 * run.seed))
    _, depth = _allowed(setup, graph, run.ensemble.trunk_share, alone=True, shallow=thinned, members=members)
    masks = replace(full_masks(graph.widths, members), depth=depth)
    # members that keep everything and differ by chance alone are one network: their normalisation is one too
    sharing = EnsembleConfig("shared") if "stochastic_depth" in parts else run.ensemble
    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, sharing)
    return System(
        _predictor(setup, ensemble, parts, inputs),
        (Phase(run.seeded("finetune"), recalibrate=run.seed if thinned else None),),
        origin="scratch" if mimo else "backbone",
        budget=run.budget.budget if thinned else None,
    )


def _masked(setup: Setup, parts: Collection[str]) -> System:
    """Members that keep the channels that the search of the settings gives them."""
    run, backbone, graph = setup.run, setup.backbone, setup.graph
    entwined = run.search.algorithm in ENTWINED
    if entwined and (unfit := sorted({"mimo", "stochastic_depth"}.intersection(parts))):
        raise SubnetSearchError(
            f"masks of {run.search.algorithm!r} come out of the training of a plain ensemble, got it together with {' and '.join(unfit)}; take a search that comes before the training, such as flow"
        )
    inputs, sharing = setup.baselines.inputs if "mimo" in parts else 1, run.ensemble
    if inputs > 1:
        backbone, graph = widened(backbone, graph, inputs, run.seed)
        sharing = replace(sharing, trunk=_as_deep(sharing.trunk_share, setup.graph, graph))
    shallow = "depth_masks" in parts or run.budget.depth
    budget, depth = _allowed(setup, graph, sharing.trunk_share, alone=False, shallow=shallow, members=run.members)
    quotas = allocate_quotas(graph, run.members, budget, depth, sharing.trunk_share)
    plan: tuple[Phase, ...] = (Phase(run.seeded("finetune"), recalibrate=run.seed),)
    if entwined:
        relevance = score(setup.backbone, setup.graph, setup.splits, quotas, run, setup.progress)
        found = full_masks(graph.widths, run.members)
        plan = phases(backbone, graph, setup.splits, relevance, quotas, run, setup.progress)
    else:
        found = setup.kept(lambda: _searched(setup, quotas, depth))
    masks = replace(found, depth=depth)
    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, sharing)
    return System(
        _predictor(setup, ensemble, parts, inputs),
        plan,
        budget=run.budget.budget,
        # layers that are replaced hide the masks, which then stay as they were
        masks=(lambda: ensemble.masks) if entwined else (lambda: masks),
    )


def _searched(setup: Setup, quotas: Quotas, depth: Mapping[str, Tensor]) -> MaskSet:
    """The masks of a search that comes before the training."""
    run, relevance = setup.run, None
    if run.search.algorithm in SCORE_DRIVEN:
        relevance = score(setup.backbone, setup.graph, setup.splits, quotas, run, setup.progress)
    return search(setup.backbone, setup.graph, setup.splits, relevance, quotas, run, depth, setup.progress)


def _predictor(setup: Setup, ensemble: SubnetEnsemble, parts: Collection[str], inputs: int) -> Predictor:
    """The ensemble, with what the parts do to its layers, its inputs and its heads."""
    predictor: Predictor = ensemble
    if "stochastic_depth" in parts:
        rates = _drop_rates(ensemble, setup.baselines.depth_drop)
        predictor = SampledEnsemble(ensemble, rates, "branch", setup.run.seed)
    if "mimo" in parts:
        predictor = Mimo(predictor, inputs, setup.backbone.card)
    return predictor


def _settled(
    run: RunConfig, graph: GroupGraph, search_config: SearchConfig | None, parts: Collection[str]
) -> RunConfig:
    """The settings with what they leave open; members that keep all channels have no trunk then, and one head."""
    if search_config is None or "mimo" in parts:  # MIMO has heads of its own
        run = replace(run, ensemble=replace(run.ensemble, head=run.ensemble.head or "shared"))
    if search_config is None:
        return replace(run, ensemble=replace(run.ensemble, trunk=run.ensemble.trunk or 0.0))
    shallow = "depth_masks" in parts or run.budget.depth
    found = settled(replace(run, budget=replace(run.budget, depth=shallow)), graph)
    return replace(found, budget=replace(found.budget, depth=run.budget.depth))


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


def _as_deep(share: float, graph: GroupGraph, wide: GroupGraph) -> float:
    """The share of the widened network, whose first layer is dearer, with which it has the same layers as trunk."""
    layers = trunk_layers(graph, share)
    return next((found for found in trunk_shares(wide) if layers and trunk_layers(wide, found) == layers), 0.0)


def _allowed(
    setup: Setup, graph: GroupGraph, trunk: float, *, alone: bool, shallow: bool, members: int
) -> tuple[BudgetConfig, dict[str, Tensor]]:
    """What the members may cost on `graph`, and the branches that each of them keeps."""
    budget = setup.run.budget
    if budget.budget is not None:  # of the network as it came, which has a smaller first layer than that of MIMO
        budget = replace(budget, budget=budget.budget * setup.graph.dense_macs / graph.dense_macs)
    if not shallow:
        return budget, {}
    if budget.budget is None:
        raise SubnetSearchError("depth masks need a budget of MACs, got a kept share of channels; give a budget")
    return budget, depth_masks(graph, members, budget.budget, setup.run.seed, trunk, alone=alone)


def _drop_rates(ensemble: SubnetEnsemble, last: float) -> dict[str, float]:
    """Growing linearly with depth (Huang et al. 2016, equation 4); what members have in common is always there."""
    branches, trunk = ensemble.graph.branches, trunk_layers(ensemble.graph, ensemble.config.trunk_share)
    rates = {branch.site: last * (i + 1) / len(branches) for i, branch in enumerate(branches)}
    return {site: rate for site, rate in rates.items() if site not in trunk}
