"""Every system on the same images, seed by seed: each is trained, evaluated and kept as a row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor

from subnet_search.backbones import Backbone
from subnet_search.baselines import Setup, build, train
from subnet_search.compare.absences import reasons_of
from subnet_search.compare.config import CompareConfig
from subnet_search.compare.rows import cell_name, curves_by_cell, decisive_settings, digest_of, finished_row, read_rows
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Outputs, evaluate, reliability, result_row, risk_coverage
from subnet_search.files import append_line, check_out, write_json
from subnet_search.groups import find_groups
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
from subnet_search.masks import MaskSet
from subnet_search.plots import draw_comparison
from subnet_search.processes import from_main, open_accelerator
from subnet_search.provenance import device_name
from subnet_search.records import kept_masks
from subnet_search.report import write_compare_report
from subnet_search.tracking import check_log, tracked

log = logging.getLogger("subnet_search")

ROWS, CURVES, MISSING, FIGURES = "rows.jsonl", "curves.jsonl", "missing.json", "figures"
CELLS, MASKS = "cells", "masks.safetensors"


@dataclass(frozen=True)
class Comparison:
    """What a comparison has come to.

    Attributes:
        rows: One result row for each method and seed that could be run, in the order asked for; of `msp`, which has
            nothing random, one.
        missing: Method → why it could not be run; where only some of its seeds could not, the reason names them.
    """

    rows: tuple[Mapping[str, Any], ...]
    missing: Mapping[str, str]


def compare(
    config: CompareConfig | None = None,
    *,
    backbone: Backbone | None = None,
    splits: Splits | None = None,
    human_counts: Tensor | None = None,
    rows_file: Path | None = None,
    curves_file: Path | None = None,
    accelerator: Accelerator | None = None,
    report: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Trains and evaluates every method for every seed, seed by seed, and keeps a row of each.

    A comparison that was interrupted goes on where it was, in the middle of a training too. A method that the network
    or the settings do not allow, or a seed of it whose training fails, is reported as missing; the others are run all
    the same.

    Args:
        config: All settings.
        backbone: A network of the caller's own, instead of the one that `config.network` names.
        splits: Images of the caller's own, instead of those that `config.images` names.
        human_counts: How many people gave each test image each label, `[sample, class]`, in the order of the test set.
        rows_file: Where the rows are kept, one JSON object a line; by default `rows.jsonl` in the folder.
        curves_file: Where the curves of each row are kept (reliability, and risk against coverage), in the same form; by
            default `curves.jsonl` in the folder.
        accelerator: Device and processes; by default accelerate's own choice.
        report: Whether `report.html` is written.
        progress: Bar to report to.

    Returns:
        The rows, and what is missing, which is in `missing.json` in the folder too; beside it, in `figures`, the rows
        are drawn: likelihood and OOD detection against cost, reliability, risk against coverage; and `report.html` says
        what has come out.

    Raises:
        SubnetSearchError: where network, images or settings are wrong for every method.
    """
    config = config or CompareConfig()
    rows_file, curves_file = rows_file or config.out / ROWS, curves_file or config.out / CURVES
    check_log(config.log)
    accelerator = accelerator or open_accelerator()
    passed = tuple(name for name, own in (("network", backbone), ("images", splits)) if own is not None)
    backbone = backbone or open_backbone(config.network)
    splits = splits or open_splits(config.images, backbone.card)
    check_splits(splits, backbone.card, config.evaluate.shift_samples > 0)
    trained_on = training_digests(backbone, splits)
    inputs = {**trained_on, **evaluation_digests(splits)}
    if human_counts is not None:
        inputs["human labels"] = hashlib.sha256(human_counts.cpu().contiguous().numpy().data).hexdigest()
    decisive = {**decisive_settings(config), "inputs": inputs}
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card), required=False)
    check_logits(graph, backbone.card)
    from_main(accelerator, lambda: _check_files(config, rows_file, curves_file))
    grid = dict.fromkeys((method, seed) for seed in config.seeds for method in config.methods)
    cells = [(method, seed) for method, seed in grid if method != "msp" or seed == config.seeds[0]]
    task = progress.add_task("comparing", total=len(cells)) if progress else None
    rows: list[Mapping[str, Any]] = []
    failed: dict[tuple[str, int], str] = {}
    for method, seed in cells:
        if progress and task is not None:
            progress.update(task, description=f"{method}, seed {seed}")
        row = from_main(
            accelerator,
            lambda: finished_row(read_rows(rows_file), read_rows(curves_file), decisive, method, seed),  # noqa: B023 - called at once
        )
        if row is None:
            folder = config.out / CELLS / cell_name(decisive, trained_on, method, seed)
            setup = Setup(
                backbone, graph, splits, config.run(seed), config.baselines, progress, _keeper(folder, accelerator)
            )
            try:
                row, line = _cell(method, setup, config, decisive, folder, human_counts, accelerator)
                if accelerator.is_main_process:
                    append_line(curves_file, json.dumps(line))
                    append_line(rows_file, json.dumps(row, ensure_ascii=False))  # last: a row says that all is there
            except SubnetSearchError as problem:
                failed[method, seed] = str(problem)  # its other seeds may train well
                log.info("%s, seed %d, is missing: %s", method, seed, problem)
        rows += [] if row is None else [row]
        if progress and task is not None:
            progress.advance(task)
            for done in progress.task_ids:
                if done != task:
                    progress.remove_task(done)
    seeds = {method: [seed for name, seed in cells if name == method] for method, _ in cells}
    missing = reasons_of(failed, seeds)
    if accelerator.is_main_process:
        write_json(config.out / MISSING, missing)
    if not rows:
        reasons = "; ".join(f"{method}: {reason}" for method, reason in missing.items())
        raise SubnetSearchError(f"none of the methods could be run: {reasons}")
    if not accelerator.is_main_process:
        return Comparison(tuple(rows), missing)
    curves = list(curves_by_cell(read_rows(curves_file), digest_of(decisive)).values())
    draw_comparison(rows, curves, config.out / FIGURES, missing)
    if report:
        write_compare_report(config.out, rows, curves, missing, config, passed)
    return Comparison(tuple(rows), missing)


def _check_files(config: CompareConfig, rows_file: Path, curves_file: Path) -> None:
    """Finds before the first training what would fail after it: a folder without room for files, and damaged rows."""
    for path in (config.out / MISSING, config.out / FIGURES / MISSING, rows_file, curves_file):
        check_out(path)
    for path in (rows_file, curves_file):
        read_rows(path)


def _keeper(folder: Path, accelerator: Accelerator) -> Callable[[Callable[[], MaskSet]], MaskSet]:
    """Keeps masks beside the training that begins with them: searched anew, they could come out otherwise."""
    return lambda search: from_main(accelerator, lambda: kept_masks(folder / MASKS, search))


def _cell(
    method: str,
    setup: Setup,
    config: CompareConfig,
    decisive: Mapping[str, Any],
    folder: Path,
    human_counts: Tensor | None,
    accelerator: Accelerator,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains and evaluates one method with one seed; returns its row and curves."""
    began = time.perf_counter()
    setup.backbone.model.to(accelerator.device)
    system = build(method, setup)
    epochs = setup.run.finetune.epochs
    if system.origin == "scratch" and config.scratch_epochs is not None:
        epochs = config.scratch_epochs
        longer = (replace(phase, config=replace(phase.config, epochs=epochs)) for phase in system.phases)
        system = replace(system, phases=tuple(longer))
    training = time.perf_counter()
    with tracked(accelerator, config.log, config.out / "tensorboard", f"{method}-{setup.run.seed}"):
        history = train(system, setup, folder, accelerator)
    # epochs that an earlier process has done took time too
    earlier = max(0.0, sum(history.seconds) - (time.perf_counter() - training))

    def judged() -> tuple[dict[str, Any], dict[str, Any]]:
        predictor, card, splits = system.predictor, setup.backbone.card, setup.splits
        kept: dict[str, dict[str, Any]] = {}

        def keep(images: str, outputs: Outputs) -> None:
            if images == "test":
                kept["reliability"] = dataclasses.asdict(reliability(outputs))
                kept["risk_coverage"] = dataclasses.asdict(risk_coverage(outputs))

        metrics = evaluate(
            predictor,
            card=card,
            test=splits.judged,
            validation=splits.held_out,
            ood=splits.ood,
            config=config.evaluate,
            macs=predictor.macs(),
            dense_macs=setup.graph.dense_macs,
            iou=system.iou,
            human_counts=human_counts,
            seen=keep,
            progress=setup.progress,
        )
        row = result_row(
            method=method,
            backbone=card.name,
            data=config.images.data,
            seed=setup.run.seed,
            members=predictor.members,
            budget=system.budget,
            epochs=epochs if system.phases else None,
            samples_seen=history.samples_seen if system.phases else None,
            settings={**decisive, "origin": system.origin},
            metrics=metrics,
            device=device_name(accelerator.device),
            seconds=earlier + time.perf_counter() - began,
        )
        curves = {
            "method": method,
            "seed": setup.run.seed,
            "settings": digest_of(decisive),
            **kept,
        }
        return row, curves

    return from_main(accelerator, judged)
