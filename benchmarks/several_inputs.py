"""A masked ensemble each of whose members takes in two images at once (MIMO, Havasi et al. 2021), in a cell of the lab.

`--ideas flow-trunk-89-mimo-50` of `benchmarks.lab` takes it; the number is ρ in per cent, the share of the rows in which
both inputs see one image. Images are not repeated within a step, so that members see as many as without it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import Progress

from benchmarks.measured import measured_row
from subnet_search.backbones import Backbone
from subnet_search.baselines import BaselineConfig, Setup, build, train
from subnet_search.groups import find_groups
from subnet_search.inputs import Splits
from subnet_search.records import kept_masks
from subnet_search.run_folder import MASKS
from subnet_search.settings import RunConfig


def several_inputs_row(
    config: RunConfig, repetition: float, backbone: Backbone, splits: Splits, progress: Progress | None = None
) -> dict[str, Any]:
    """Searches, trains and measures it; what was killed goes on where it was.

    Args:
        config: Settings of the cell that it stands beside: budget, search, training, seed, and a folder of its own.
        repetition: Input repetition ρ, in [0, 1).
        backbone: The network.
        splits: The images.
        progress: Bar to report to.

    Returns:
        A row as those of runs. What the wider first layer and heads cost is in the budget.
    """
    graph = find_groups(backbone.model, torch.zeros(2, *backbone.card.input_shape))
    baselines = BaselineConfig(input_repetition=repetition, batch_repetition=1)
    kept = partial(kept_masks, config.out / MASKS)
    setup = Setup(backbone, graph, splits, config, baselines, progress, kept)
    system = build("search+mimo", setup)
    history = train(system, setup, config.out, Accelerator())
    return measured_row(
        "search+mimo",
        system.predictor,
        history,
        config,
        backbone,
        splits,
        dense_macs=graph.dense_macs,
        settings={"run": config, "baselines": baselines},
        iou=system.iou,
        progress=progress,
    )
