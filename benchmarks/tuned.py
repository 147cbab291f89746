"""The dense network, trained on as the ensembles that are cut from it are: what of their gain the further training is.

`--methods tuned` of `benchmarks.main_job` and `--ideas tuned` of `benchmarks.lab` take it. An epoch costs what one of an
ensemble at the MACs of the dense network costs in `repeat` mode.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from rich.progress import Progress

from benchmarks.measured import measured_row
from subnet_search.backbones import Backbone
from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.finetune import finetune
from subnet_search.groups import find_groups
from subnet_search.inputs import Splits
from subnet_search.settings import RunConfig

TUNED = "tuned"


def tuned_row(
    config: RunConfig, backbone: Backbone, splits: Splits, progress: Progress | None = None
) -> dict[str, Any]:
    """Trains a copy of the network on all images and measures it; a killed training goes on where it was.

    Args:
        config: Settings of the cell that it stands beside: budget, training, evaluation, seed, and a folder of its own.
        backbone: The network.
        splits: The images.
        progress: Bar to report to.

    Returns:
        A row as those of runs, with the budget of the cell; what the network costs is among its figures.
    """
    model = copy.deepcopy(backbone.model)
    macs = find_groups(model, torch.zeros(2, *backbone.card.input_shape)).dense_macs
    network = IndependentEnsemble([model], backbone.card, macs)
    training = replace(config.seeded("finetune"), mode="independent")
    config.out.mkdir(parents=True, exist_ok=True)
    history = finetune(network, splits.train, training, checkpoint=config.out / "finetune.pt", progress=progress)
    return measured_row(
        TUNED,
        network,
        history,
        config,
        backbone,
        splits,
        dense_macs=macs,
        settings={"run": config, "finetune": training},
        progress=progress,
    )
