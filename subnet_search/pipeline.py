"""The main job, in the order of the figure: backbone → groups → relevance → search → ensemble → finetune → evaluate → export."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor

from subnet_search.backbones import Backbone
from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble, recalibrate
from subnet_search.entwined import Phase, gates, joined, progressive, scorer, train_phases
from subnet_search.evaluate import Answers, Outputs, answers_of, evaluate, result_row
from subnet_search.evidence import evidence_of
from subnet_search.export import export_ensemble
from subnet_search.files import write_json
from subnet_search.finetune import FinetuneConfig, History, finetune
from subnet_search.formats import write_formats
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.inputs import Splits, check_splits, example_of, open_backbone, open_splits
from subnet_search.masks import MaskSet, full_masks
from subnet_search.measure import MaskMeasure
from subnet_search.processes import from_main, open_accelerator
from subnet_search.provenance import device_name
from subnet_search.relevance import Relevance, RelevanceConfig, score_relevance
from subnet_search.report import write_run_report
from subnet_search.run_folder import RunFolder, fingerprints
from subnet_search.search import ENTWINED, SCORE_DRIVEN, Quotas, allocate_quotas, depth_masks, search_in_rounds
from subnet_search.settings import RunConfig, to_dict
from subnet_search.tracking import check_log, tracked

log = logging.getLogger("subnet_search")
Stage = Literal["score", "search", "finetune", "evaluate", "export"]
STAGES: tuple[Stage, ...] = ("score", "search", "finetune", "evaluate", "export")


@dataclass(frozen=True)
class RunResult:
    """What a run has come to, as far as it was asked to go.

    Attributes:
        folder: Its folder.
        masks: The masks; None where the run stopped before the search.
        ensemble: The trained ensemble in eval mode; None where the run stopped before.
        metrics: `{"dense": row, "ensemble": row}`; empty where the run stopped before the evaluation, and on all but
            the main one of several processes.
    """

    folder: RunFolder
    masks: MaskSet | None = None
    ensemble: SubnetEnsemble | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def run(
    config: RunConfig | None = None,
    *,
    until: Stage = "export",
    backbone: Backbone | None = None,
    splits: Splits | None = None,
    accelerator: Accelerator | None = None,
    report: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Runs the main job as far as `until`, taking up what earlier calls have left in the folder.

    Args:
        config: All settings.
        until: Last stage to run.
        backbone: A network of the caller's own, instead of the one that `config.network` names.
        splits: Images of the caller's own, instead of those that `config.images` names.
        accelerator: Device and processes; by default accelerate's own choice.
        report: Whether `report.html` is written after the evaluation.
        progress: Bar to report to.

    Returns:
        Masks, ensemble and figures, as far as the run went.

    Raises:
        SubnetSearchError: for everything that the settings, the network or the images can be wrong in; nothing
            that was in the folder is lost.
    """
    config = config or RunConfig()
    check_log(config.log)
    accelerator = accelerator or open_accelerator()
    from_main(accelerator, lambda: RunFolder.check(config))  # before anything that takes time
    passed = tuple(name for name, own in (("network", backbone), ("images", splits)) if own is not None)
    backbone = backbone or open_backbone(config.network)
    splits = splits or open_splits(config.images, backbone.card)
    labels = check_splits(splits, backbone.card, config.evaluate.shift_samples > 0)
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card))
    quotas, depth = allocate(graph, config)
    # Nothing is written before this line, so that what cannot work leaves no trace.
    folder = from_main(accelerator, lambda: RunFolder.open(config, fingerprints(backbone, labels)))
    backbone.model.to(accelerator.device)
    logged = folder.logged() if accelerator.is_main_process else nullcontext()
    with logged, tracked(accelerator, config.log, folder.path / "tensorboard"):
        log.info("%s until %s, on %s", config.out, until, device_name(accelerator.device))
        log.info("%d groups are searchable, %d are left whole", len(graph.groups), len(graph.left_whole))
        masks, relevance = from_main(accelerator, lambda: (folder.masks(), folder.relevance()))
        wanted = scoring(config).criterion
        if relevance is not None and masks is None and relevance.criterion != wanted:
            relevance = None  # `score` was run for another search
        # masks that somebody has put in the place of those that came out of training are trained from the beginning
        entwined = (config.search.algorithm if masks is None else masks.algorithm) in ENTWINED
        needed = entwined or (config.search.algorithm in SCORE_DRIVEN and masks is None)
        if relevance is None and (until == "score" or needed):
            relevance = from_main(accelerator, lambda: score(backbone, graph, splits, quotas, config, progress))
            if accelerator.is_main_process:
                folder.save_relevance(relevance)
            log.info("scored by %s in %.1f s", relevance.criterion, relevance.seconds)
        if until == "score":
            return RunResult(folder)

        searching, training = joined([]), config.seeded("finetune")
        if entwined:
            assert relevance is not None
            intact = replace(full_masks(graph.widths, config.members), depth=depth)
            ensemble = SubnetEnsemble(backbone.model, graph, intact, backbone.card, config.ensemble)
            *first, last = phases(backbone, graph, splits, relevance, quotas, config, progress)
            searching, training = entwine(ensemble, first, backbone, splits, folder, accelerator, progress), last.config
            if choose := last.masks:
                ensemble.set_masks(masks or from_main(accelerator, lambda: choose(ensemble)))
        else:
            masks = masks or from_main(
                accelerator,
                lambda: search(backbone, graph, splits, relevance, quotas, config, depth, progress),
            )
            ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, config.ensemble)
        if accelerator.is_main_process and folder.masks() is None:
            folder.save_masks(ensemble.masks)
            log.info("searched by %s: mean IoU of the members %.3f", ensemble.algorithm, ensemble.masks.mean_iou())
        masks = ensemble.masks
        if until == "search":
            return RunResult(folder, masks)

        fine = train(ensemble, training, backbone, splits, config, folder, accelerator, progress)
        history = joined([searching, fine])
        log.info("fine-tuned on %d samples in %.1f s", history.samples_seen, sum(history.seconds))
        if until == "finetune" or not accelerator.is_main_process:
            return RunResult(folder, masks, ensemble)

        metrics = folder.metrics(config) if until == "export" and "images" not in passed else None
        if metrics is None:
            folder.report.unlink(missing_ok=True)  # of other figures
            answers: dict[str, Answers] = {}
            metrics = figures(ensemble, backbone, graph, splits, history, config, progress, answers)
            test = splits.validation if splits.test is None else splits.test
            folder.save_evidence(evidence_of(answers, test, ensemble, history, metrics, passed))
            write_json(folder.metrics_file, metrics)
            for name, row in metrics.items():
                log.info("%s: accuracy %.4f, NLL %.4f", name, row["metrics"]["cls/Acc"], row["metrics"]["cls/NLL"])
        if until == "export":
            export(ensemble, folder, splits, metrics, config, progress)
        if report and not folder.report.exists():
            write_run_report(folder)
            log.info("reported in %s", folder.report)
        return RunResult(folder, masks, ensemble, metrics)


def allocate(graph: GroupGraph, config: RunConfig) -> tuple[Quotas, dict[str, Tensor]]:
    """Decides how many channels of each group the members keep, and which members keep which residual branches."""
    budget, trunk = config.budget, config.ensemble.trunk
    depth: dict[str, Tensor] = {}
    if budget.depth and budget.budget is not None:
        share = (budget.budget * config.members) ** 0.5
        depth = depth_masks(graph, config.members, share, config.seed, trunk)
    return allocate_quotas(graph, config.members, budget, depth, trunk), depth


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
    thinned = _thinned(graph, quotas)
    return score_relevance(intact, splits.train, settings, groups=thinned, dense=backbone.model, progress=progress)


def _thinned(graph: GroupGraph, quotas: Quotas) -> list[str]:
    """The groups that some member does not keep whole."""
    return [name for name, widths in quotas.items() if min(widths) < graph[name].width]


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
    search, training, images = config.seeded("search"), config.seeded("finetune"), length(splits.train)
    if search.algorithm == "gates":
        return gates(graph.widths, quotas, search, training, images, relevance.scores, config.seed)
    thinned = _thinned(graph, quotas)
    score = scorer(splits.train, scoring(config), thinned, backbone.model, relevance.scores, progress)
    return progressive(graph.widths, quotas, search, training, images, score, config.seed)


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


def figures(
    ensemble: SubnetEnsemble,
    backbone: Backbone,
    graph: GroupGraph,
    splits: Splits,
    history: History,
    config: RunConfig,
    progress: Progress | None = None,
    answers: dict[str, Answers] | None = None,
) -> dict[str, Any]:
    """Evaluates the dense network and the ensemble side by side: `{"dense": row, "ensemble": row}`.

    What they said of each sample goes to `answers`, as `dense/test` and `ensemble/ood/NAME`.
    """
    test = splits.validation if splits.test is None else splits.test
    held_out = None if splits.test is None else splits.validation
    masks = ensemble.masks
    rows = {}
    for name, network, members in (("dense", backbone.model, 1), ("ensemble", ensemble, ensemble.members)):
        began = time.perf_counter()

        def keep(images: str, outputs: Outputs, name: str = name) -> None:
            if answers is not None:
                answers[f"{name}/{images}"] = answers_of(outputs)

        metrics = evaluate(
            network,
            card=backbone.card,
            test=test,
            validation=held_out,
            ood=splits.ood,
            config=config.evaluate,
            macs=graph.dense_macs if members == 1 else ensemble.macs(),
            dense_macs=graph.dense_macs,
            iou=None if members == 1 else masks.mean_iou(),
            seen=keep,
            progress=progress,
        )
        rows[name] = result_row(
            method="dense" if name == "dense" else f"search+{masks.algorithm}",
            backbone=backbone.card.name,
            data=config.images.data,
            seed=config.seed,
            members=members,
            budget=None if name == "dense" else config.budget.budget,
            epochs=None if name == "dense" else config.finetune.epochs,
            samples_seen=None if name == "dense" else history.samples_seen,
            settings=to_dict(config),
            metrics=metrics,
            device=device_name(next(ensemble.parameters()).device),
            seconds=time.perf_counter() - began + (0.0 if name == "dense" else sum(history.seconds)),
        )
    return rows


def export(
    ensemble: SubnetEnsemble,
    folder: RunFolder,
    splits: Splits,
    metrics: Mapping[str, Any],
    config: RunConfig,
    progress: Progress | None = None,
) -> None:
    """Writes the ensemble as this package loads it, where it is not there yet, and in the other forms asked for."""
    if not folder.ensemble.exists():
        export_ensemble(
            ensemble,
            folder.ensemble,
            budget=config.budget.budget,
            metrics=metrics["ensemble"]["metrics"],
            settings=to_dict(config),
        )
        log.info("exported to %s", folder.ensemble)
    if config.export.formats:
        write_formats(ensemble, folder.formats, config.export, splits.train, splits.validation, progress)
        log.info("exported as %s to %s", ", ".join(config.export.formats), folder.formats)
