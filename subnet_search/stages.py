"""The stages that decide on masks and train them, each from the settings of a job: what runs, comparisons and studies share."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor

from subnet_search.backbones import Backbone
from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble, recalibrate
from subnet_search.ensemble.subnet_ensemble import Sharing
from subnet_search.entwined import Phase, gates, progressive, scorer, train_phases
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, History, finetune, mode_to_take
from subnet_search.groups import GroupGraph, trunk_groups, trunk_macs
from subnet_search.inputs import Splits
from subnet_search.masks import MaskSet, full_masks
from subnet_search.measure import MaskMeasure
from subnet_search.relevance import Relevance, RelevanceConfig, score_relevance
from subnet_search.run_folder import RunFolder
from subnet_search.search import (
    ENTWINED,
    Quotas,
    allocate_quotas,
    depth_masks,
    price_to_take,
    search_in_rounds,
    thinned_groups,
    trunk_keep_to_take,
    trunk_widths,
    trunks_to_try,
)
from subnet_search.settings import RunConfig

log = logging.getLogger("subnet_search")


def settled(config: RunConfig, graph: GroupGraph) -> RunConfig:
    """Returns the settings with what they leave open: the trunk and its width, heads, the price of overlaps, the mode.

    The trunk is the deepest that their budget has room for, and members have a head each. The official layers of
    Masksembles know neither, so that the control of that name has a common head and no trunk. Searches that train cut
    each member for itself, so that they leave the trunk whole.

    Raises:
        SubnetSearchError: where the budget cannot be met, or a search that trains is to thin a trunk.
    """
    official = config.search.algorithm == "masksembles"
    if config.search.algorithm in ENTWINED:
        config = _with_whole_trunk(config)
    if config.ensemble.head is None:
        head: Sharing = "shared" if official or graph.head is None else "member"
        config = replace(config, ensemble=replace(config.ensemble, head=head))
    if config.ensemble.trunk is None:
        trunks = [0.0] if official else trunks_to_try(graph, config.members, config.budget)
    else:
        trunks = [config.ensemble.trunk_share]
    config = deepest(config, graph, trunks)
    trunk = config.ensemble.trunk_share
    if config.search.lambda_overlap is None:
        price = price_to_take(trunk)
        config = replace(config, search=replace(config.search, lambda_overlap=price))
    if config.finetune.mode is None:
        common = trunk_macs(graph, trunk, trunk_widths(graph, config.budget, trunk)) / graph.dense_macs
        mode = mode_to_take(config.finetune, config.members, config.budget.budget, common)
        config = replace(config, finetune=replace(config.finetune, mode=mode))
    return config


def _with_whole_trunk(config: RunConfig) -> RunConfig:
    """The settings of a search that trains, which can thin nothing that the members have in common."""
    keep = config.budget.trunk_keep
    if keep is not None and keep < 1 and config.ensemble.trunk != 0:
        raise _no_thin_trunk(config)  # here, before anything is scored or written
    return replace(config, budget=replace(config.budget, trunk_keep=1.0))


def _no_thin_trunk(config: RunConfig) -> SubnetSearchError:
    return SubnetSearchError(
        f"{config.search.algorithm!r} cuts each member for itself while it trains, so that it cannot thin a trunk that they have in common (trunk_keep={config.budget.trunk_keep}); use trunk_keep=1, or a search before the training, such as flow"
    )


def deepest(config: RunConfig, graph: GroupGraph, trunks: Sequence[float]) -> RunConfig:
    """Returns the settings with the first of some trunks, thinned as needed, that leaves the members within the budget.

    A trunk that pays for so much that the members behind it keep everything is passed over too; the last one is not.

    Raises:
        SubnetSearchError: where the budget cannot be met with the last one either.
    """
    *deeper, last = (_with_trunk(config, graph, trunk) for trunk in trunks)
    for choice in deeper:
        with suppress(SubnetSearchError):
            if not alike(graph, *allocate(graph, choice), choice):
                return choice
    allocate(graph, last)
    return last


def _with_trunk(config: RunConfig, graph: GroupGraph, trunk: float) -> RunConfig:
    """The settings with a trunk of some depth, as wide as they say, or as suits them where they leave it open."""
    keep = trunk_keep_to_take(graph, config.budget, trunk)
    ensemble, budget = replace(config.ensemble, trunk=trunk), replace(config.budget, trunk_keep=keep)
    return replace(config, ensemble=ensemble, budget=budget)


def allocate(graph: GroupGraph, config: RunConfig) -> tuple[Quotas, dict[str, Tensor]]:
    """Decides how many channels of each group the members keep, and which members keep which residual branches."""
    budget, trunk = config.budget, config.ensemble.trunk_share
    depth: dict[str, Tensor] = {}
    if budget.depth and budget.budget is not None:
        depth = depth_masks(graph, config.members, budget.budget, config.seed, trunk, alone=False)
    return allocate_quotas(graph, config.members, budget, depth, trunk), depth


def alike(graph: GroupGraph, quotas: Quotas, depth: Mapping[str, Tensor], config: RunConfig) -> bool:
    """Returns whether the masks of the members cannot differ: outside the trunk nothing is cut, no branch left to some.

    Args:
        graph: The network's groups.
        quotas: Group → how many channels each member keeps.
        depth: Site of a residual branch → which members keep it.
        config: Settings, of which the trunk is taken.
    """
    behind = set(thinned_groups(quotas, graph.widths)).difference(trunk_groups(graph, config.ensemble.trunk_share))
    return not behind and not any(kept.any() and not kept.all() for kept in depth.values())


def words_on_alike(config: RunConfig) -> str:
    """Returns what a user should know and do where members are `alike`."""
    given = f"budget {config.budget.budget:g}" if config.budget.budget is not None else f"keep {config.budget.keep}"
    return (
        f"{given} leaves all channels and branches outside the trunk to each of the {config.members} members: they differ by "
        "their training alone, and are copies of one network where that is the same for all; give a smaller budget, a "
        "shallower trunk, or more members"
    )


def common_groups(graph: GroupGraph, quotas: Quotas, config: RunConfig) -> tuple[str, ...]:
    """Returns the groups of the trunk of which something is cut, for all members alike."""
    return tuple(
        name for name in trunk_groups(graph, config.ensemble.trunk_share) if quotas[name][0] < graph.widths[name]
    )


def score(
    backbone: Backbone,
    graph: GroupGraph,
    splits: Splits,
    quotas: Quotas,
    config: RunConfig,
    progress: Progress | None = None,
) -> Relevance:
    """Scores the channels of the intact network for each member, on the member's own images."""
    settings = scoring(config)
    intact = SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, config.members), backbone.card)
    thinned = thinned_groups(quotas, graph.widths)
    return score_relevance(intact, splits.train, settings, groups=thinned, dense=backbone.model, progress=progress)


def suits(relevance: Relevance, quotas: Quotas, graph: GroupGraph, config: RunConfig) -> bool:
    """Returns whether the scores are of the criterion that the search wants, and of all groups that it is to thin."""
    thinned = thinned_groups(quotas, graph.widths)
    return relevance.criterion == scoring(config).criterion and set(thinned) <= set(relevance.groups)


def scoring(config: RunConfig) -> RelevanceConfig:
    """Returns how channels are scored; the search by magnitudes wants these and no other scores."""
    settings: RelevanceConfig = config.seeded("relevance")
    return replace(settings, criterion="magnitude") if config.search.algorithm == "magnitude" else settings


def search(
    backbone: Backbone,
    graph: GroupGraph,
    splits: Splits,
    relevance: Relevance | None,
    quotas: Quotas,
    config: RunConfig,
    depth: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> MaskSet:
    """Assigns channels to members; `depth` says which of them keep which branches, None that all keep all."""
    trial = SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, config.members), backbone.card)
    measure = MaskMeasure(
        trial,
        splits.train,
        augment=config.finetune.augment,
        seed=config.seed,
        precision=config.finetune.precision,
    )
    return search_in_rounds(
        trial,
        splits.train,
        None if relevance is None else relevance.scores,
        quotas,
        config.seeded("search"),
        scoring(config),
        depth=depth,
        dense=backbone.model,
        measure=measure,
        common=common_groups(graph, quotas, config),
        precision=config.finetune.precision,
        progress=progress,
    )


def phases(
    backbone: Backbone,
    graph: GroupGraph,
    splits: Splits,
    relevance: Relevance,
    quotas: Quotas,
    config: RunConfig,
    progress: Progress | None = None,
) -> tuple[Phase, ...]:
    """Plans the training of an intact ensemble for a search that trains; the last phase is for the finished masks.

    Args:
        backbone: The trained network.
        graph: Its channel groups.
        splits: The images.
        relevance: Scores of the intact network.
        quotas: Group → how many channels each member keeps in the end.
        config: Settings of the run.
        progress: Bar to report to.
    """
    if common_groups(graph, quotas, config):
        raise _no_thin_trunk(config)
    searching, training, images = config.seeded("search"), config.seeded("finetune"), length(splits.train)
    if searching.algorithm == "gates":
        return gates(graph.widths, quotas, searching, training, images, relevance.scores, config.seed)
    thinned = thinned_groups(quotas, graph.widths)
    again = scorer(splits.train, scoring(config), thinned, backbone.model, relevance.scores, progress)
    return progressive(graph.widths, quotas, searching, training, images, again, config.seed)


def entwine(
    ensemble: SubnetEnsemble,
    phases: Sequence[Phase],
    backbone: Backbone,
    splits: Splits,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress | None = None,
) -> History:
    """Searches by training an intact ensemble in place, or takes up what is in the folder."""
    history = train_phases(
        ensemble,
        phases,
        splits.train,
        folder.rounds,
        teacher=backbone.model,
        accelerator=accelerator,
        progress=progress,
    )
    log.info("searched on %d samples in %.1f s", history.samples_seen, sum(history.seconds))
    return history


def train(
    ensemble: SubnetEnsemble,
    training: FinetuneConfig,
    backbone: Backbone,
    splits: Splits,
    config: RunConfig,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress | None = None,
) -> History:
    """Recalibrates and fine-tunes the ensemble in place, or takes up the checkpoint in the folder."""
    ensemble.to(accelerator.device)
    if not folder.checkpoint.exists():
        recalibrate(ensemble, splits.train, seed=config.seed, precision=config.finetune.precision)
    return finetune(
        ensemble,
        splits.train,
        training,
        teacher=backbone.model,
        checkpoint=folder.checkpoint,
        accelerator=accelerator,
        progress=progress,
    )
