"""The row of a network that no run has made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from subnet_search.backbones import Backbone
from subnet_search.ensemble import Predictor
from subnet_search.evaluate import evaluate, result_row
from subnet_search.finetune import History
from subnet_search.inputs import Splits
from subnet_search.provenance import device_name
from subnet_search.settings import RunConfig


def measured_row(
    method: str,
    network: Predictor,
    history: History,
    config: RunConfig,
    backbone: Backbone,
    splits: Splits,
    *,
    dense_macs: int,
    settings: Mapping[str, Any],
    iou: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures a trained network as a run measures its ensemble.

    Args:
        method: Name of the row.
        network: What was trained.
        history: Its training.
        config: Settings of the cell that it stands beside.
        backbone: What it was made from.
        splits: The images.
        dense_macs: Multiply-accumulates of the backbone.
        settings: What decided it.
        iou: Mean intersection over union of the members' masks, where there are any.
        progress: Bar to report to.

    Returns:
        A row as those of runs, with the budget of the cell; what the network costs is among its figures.
    """
    began = time.perf_counter()
    metrics = evaluate(
        network,
        card=backbone.card,
        test=splits.judged,
        validation=splits.held_out,
        ood=splits.ood,
        config=config.evaluate,
        macs=network.macs(),
        dense_macs=dense_macs,
        iou=iou,
        progress=progress,
    )
    return result_row(
        method=method,
        backbone=backbone.card.name,
        data=config.images.data,
        seed=config.seed,
        members=network.members,
        budget=config.budget.budget,
        epochs=config.finetune.epochs,
        samples_seen=history.samples_seen,
        settings=settings,
        metrics=metrics,
        device=device_name(next(network.parameters()).device),
        seconds=time.perf_counter() - began + sum(history.seconds),
    )
