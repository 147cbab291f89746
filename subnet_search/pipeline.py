"""The main job, in the order of the figure: backbone → groups → relevance → search → ensemble → finetune → evaluate → export."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from rich.progress import Progress

from subnet_search.backbones import Backbone
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.entwined import joined
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Answers, Outputs, answers_of, evaluate, known_limits, result_row
from subnet_search.evidence import evidence_of
from subnet_search.export import check_files, export_ensemble, update_figures
from subnet_search.export.manifest import MANIFEST, WEIGHTS
from subnet_search.files import write_json
from subnet_search.finetune import History
from subnet_search.formats import write_formats
from subnet_search.groups import GroupGraph, find_groups, trunk_macs
from subnet_search.inputs import (
    Splits,
    check_logits,
    check_splits,
    evaluation_digests,
    example_of,
    open_backbone,
    open_splits,
    training_digests,
)
from subnet_search.masks import MaskSet, full_masks
from subnet_search.processes import from_main, open_accelerator
from subnet_search.provenance import device_name
from subnet_search.report import write_run_report
from subnet_search.run_folder import RunFolder
from subnet_search.search import ENTWINED, SCORE_DRIVEN
from subnet_search.settings import RunConfig, to_dict
from subnet_search.stages import (
    alike,
    allocate,
    entwine,
    phases,
    score,
    search,
    settled,
    suits,
    train,
    words_on_alike,
)
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
    check_splits(splits, backbone.card, config.evaluate.shift_samples > 0)
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card))
    check_logits(graph, backbone.card)
    chosen = settled(config, graph)
    quotas, depth = allocate(graph, chosen)
    # Nothing is written before this line, so that what cannot work leaves no trace.
    inputs = from_main(accelerator, lambda: training_digests(backbone, splits))
    folder = from_main(accelerator, lambda: RunFolder.open(config, inputs))
    backbone.model.to(accelerator.device)
    logged = folder.logged() if accelerator.is_main_process else nullcontext()
    with logged, tracked(accelerator, chosen.log, folder.path / "tensorboard"):
        log.info("%s until %s, on %s", chosen.out, until, device_name(accelerator.device))
        log.info("%d groups are searchable, %d are left whole", len(graph.groups), len(graph.left_whole))
        once = {name: kept[0] for name, kept in quotas.items()}
        common = trunk_macs(graph, chosen.ensemble.trunk_share, once) / graph.dense_macs
        log.info("members have %.0f %% of the dense MACs in common", 100 * common)
        if alike(graph, quotas, depth, chosen):
            log.warning(words_on_alike(chosen))
        masks, relevance = from_main(accelerator, lambda: (folder.masks(), folder.relevance()))
        if relevance is not None and masks is None and not suits(relevance, quotas, graph, chosen):
            relevance = None  # `score` was run for another search
        # masks that somebody has put in the place of those that came out of training are trained from the beginning
        entwined = (chosen.search.algorithm if masks is None else masks.algorithm) in ENTWINED
        needed = entwined or (chosen.search.algorithm in SCORE_DRIVEN and masks is None)
        if relevance is None and (until == "score" or needed):
            relevance = from_main(accelerator, lambda: score(backbone, graph, splits, quotas, chosen, progress))
            if accelerator.is_main_process:
                folder.save_relevance(relevance)
            log.info("scored by %s in %.1f s", relevance.criterion, relevance.seconds)
        if until == "score":
            return RunResult(folder)

        searching, training = joined([]), chosen.seeded("finetune")
        if entwined:
            assert relevance is not None
            intact = replace(full_masks(graph.widths, chosen.members), depth=depth)
            ensemble = SubnetEnsemble(backbone.model, graph, intact, backbone.card, chosen.ensemble)
            *first, last = phases(backbone, graph, splits, relevance, quotas, chosen, progress)
            searching, training = entwine(ensemble, first, backbone, splits, folder, accelerator, progress), last.config
            if choose := last.masks:
                ensemble.set_masks(masks or from_main(accelerator, lambda: choose(ensemble)))
        else:
            masks = masks or from_main(
                accelerator,
                lambda: search(backbone, graph, splits, relevance, quotas, chosen, depth, progress),
            )
            ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, chosen.ensemble)
        if accelerator.is_main_process and folder.masks() is None:
            folder.save_masks(ensemble.masks)
            log.info("searched by %s: mean IoU of the members %.3f", ensemble.algorithm, ensemble.masks.mean_iou())
        masks = ensemble.masks
        if until == "search":
            return RunResult(folder, masks)

        fine = train(ensemble, training, backbone, splits, chosen, folder, accelerator, progress)
        history = joined([searching, fine])
        log.info("fine-tuned on %d samples in %.1f s", history.samples_seen, sum(history.seconds))
        if until == "finetune" or not accelerator.is_main_process:
            return RunResult(folder, masks, ensemble)

        inputs |= evaluation_digests(splits)
        metrics = folder.metrics(chosen, inputs) if until == "export" and "images" not in passed else None
        if metrics is not None and splits.held_out is not None and not known_limits(metrics["ensemble"]["metrics"]):
            metrics = None  # of a version that found no limits
        if metrics is None:
            folder.report.unlink(missing_ok=True)  # of other figures
            answers: dict[str, Answers] = {}
            metrics = figures(ensemble, backbone, graph, splits, history, chosen, inputs, progress, answers)
            folder.save_evidence(evidence_of(answers, splits.judged, ensemble, history, metrics, passed))
            write_json(folder.metrics_file, metrics)
            if folder.ensemble.exists() and _damage(folder.ensemble) is None:
                update_figures(folder.ensemble, metrics["ensemble"]["metrics"], to_dict(chosen))
            for name, row in metrics.items():
                log.info("%s: accuracy %.4f, NLL %.4f", name, row["metrics"]["cls/Acc"], row["metrics"]["cls/NLL"])
        if until == "export":
            export(ensemble, folder, metrics, chosen)
        if report and not folder.report.exists():
            write_run_report(folder)
            log.info("reported in %s", folder.report)
        if until == "export" and chosen.export.formats:  # last: not every network has every form
            export_formats(ensemble, folder, splits, metrics, chosen, progress)
        return RunResult(folder, masks, ensemble, metrics)


def figures(
    ensemble: SubnetEnsemble,
    backbone: Backbone,
    graph: GroupGraph,
    splits: Splits,
    history: History,
    config: RunConfig,
    inputs: Mapping[str, str],
    progress: Progress | None = None,
    answers: dict[str, Answers] | None = None,
) -> dict[str, Any]:
    """Evaluates the dense network and the ensemble side by side: `{"dense": row, "ensemble": row}`.

    The `inputs` stand with the settings in the rows. What they said of each sample goes to `answers`, as `dense/test` and `ensemble/ood/NAME`.
    """
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
            test=splits.judged,
            validation=splits.held_out,
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
            settings={**to_dict(config), "inputs": dict(inputs)},
            metrics=metrics,
            device=device_name(next(ensemble.parameters()).device),
            seconds=time.perf_counter() - began + (0.0 if name == "dense" else sum(history.seconds)),
        )
    return rows


def export(ensemble: SubnetEnsemble, folder: RunFolder, metrics: Mapping[str, Any], config: RunConfig) -> None:
    """Writes the ensemble as this package loads it, where it is not there yet, or is damaged."""
    if folder.ensemble.exists():
        problem = _damage(folder.ensemble)
        if problem is None:
            return
        log.warning("exported again, because: %s", problem)
        own = {MANIFEST, WEIGHTS}
        if folder.ensemble.is_dir() and {path.name for path in folder.ensemble.iterdir()} <= own:
            for (
                name
            ) in own:  # beside files of others nothing is taken away: the export refuses such a folder, and says so
                (folder.ensemble / name).unlink(missing_ok=True)
    export_ensemble(
        ensemble,
        folder.ensemble,
        budget=config.budget.budget,
        metrics=metrics["ensemble"]["metrics"],
        settings=to_dict(config),
    )
    log.info("exported to %s", folder.ensemble)


def export_formats(
    ensemble: SubnetEnsemble,
    folder: RunFolder,
    splits: Splits,
    metrics: Mapping[str, Any],
    config: RunConfig,
    progress: Progress | None = None,
) -> None:
    """Writes the ensemble in the other forms asked for; an error says which of them there are not."""
    refuse = known_limits(metrics["ensemble"]["metrics"])
    try:
        write_formats(ensemble, folder.formats, config.export, splits.train, splits.validation, progress, refuse)
    except SubnetSearchError as problem:
        raise SubnetSearchError(f"{problem}\nall else of the run is in {folder.path}") from problem
    log.info("exported as %s to %s", ", ".join(config.export.formats), folder.formats)


def _damage(folder: Path) -> SubnetSearchError | None:
    """What is wrong with the files of an exported ensemble."""
    try:
        check_files(folder)
    except SubnetSearchError as problem:
        return problem
    return None
