"""Every uncertainty system on one harness: the same images, the same training loop, the cost in the same row.

    python -m benchmarks.compare --methods msp masksembles search --seeds 0 1 2 --epochs 2

Each cell is one training and one evaluation; a killed grid continues where it was, in the middle of a cell too. Rows go
to `results/compare.jsonl`, the curves behind the figures to `results/compare_curves.jsonl`; `python -m benchmarks.tables`
makes the table and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress

from benchmarks import cifar, rows
from subnet_search.baselines import BaselineConfig
from subnet_search.compare import CompareConfig, compare
from subnet_search.data import split
from subnet_search.ensemble import EnsembleConfig
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits, open_backbone
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig
from subnet_search.tables import comparison_table

FROM_BACKBONE = (
    "msp",
    "search",
    "random",
    "masksembles",
    "mc_dropout",
    "deep_ensemble_finetuned",
    "bagging",
    "stochastic_depth",
    "depth_masks",
    "antirandom",
    "magnitude",
    "best_of_8",
    "singe",
    "masksembles+repeat",
    "masksembles+stochastic_depth",
    "masksembles+bagging",
    "masksembles+mimo",
    "search+stochastic_depth",
    "search+bagging",
    "search+mimo",
)
FROM_SCRATCH = ("deep_ensemble", "mimo", "packed", "batch_ensemble")
OOD = {"cifar100": 2500, "tinyimagenet": 2500, "svhn": 1083, "mnist-test": 1000}
"""Set → how many of its images, the first ones, are looked at: near CIFAR-10 the first two, far the last two."""

WORK = Path(__file__).parent / "runs" / "compare"


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        backbone: `resnet20`, `resnet32` or `resnet56`.
        methods: See `subnet-search compare --help`.
        seeds: Seeds; all methods have their first seed first.
        epochs: Epochs of training, 45,000 images each.
        scratch_epochs: Epochs of the systems that start from scratch; None trains them as long as the others.
        budget: MACs of a masked ensemble / MACs of the dense network.
        members: Number of members K.
        shift_samples: Of how many test images all corruptions are made.
        dropout: Rate of MC Dropout, chosen on validation (benchmarks/README.md).
        depth_drop: Rate of stochastic depth in the last block, chosen on validation.
        input_repetition: Input repetition of MIMO.
        validation: Compares on the validation images, with no others looked at: for choosing settings. Rows go to
            `results/compare_choice.jsonl`.
    """

    backbone: str = "resnet20"
    methods: tuple[str, ...] = FROM_BACKBONE + FROM_SCRATCH
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 2
    scratch_epochs: int | None = None
    budget: float = 2.0
    members: int = 4
    shift_samples: int = 200
    dropout: float = 0.05
    depth_drop: float = 0.1
    input_repetition: float = BaselineConfig.input_repetition
    validation: bool = False


def settings(grid: Grid) -> CompareConfig:
    """Returns the settings of the comparison; the images are named and not read here, so that no path gets into a row."""
    return CompareConfig(
        methods=grid.methods,
        seeds=grid.seeds,
        out=WORK,
        members=grid.members,
        scratch_epochs=grid.scratch_epochs,
        network=BackboneConfig(grid.backbone, Path(cifar.WEIGHTS[grid.backbone])),
        images=DataConfig(
            data="cifar10-train",
            test=None if grid.validation else "cifar10-test",
            ood=() if grid.validation else tuple(f"{name}={name}:{count}" for name, count in OOD.items()),
            validation=0.1,
        ),
        budget=BudgetConfig(budget=grid.budget),
        search=SearchConfig(),
        ensemble=EnsembleConfig(),  # without a trunk
        baselines=BaselineConfig(grid.dropout, grid.depth_drop, input_repetition=grid.input_repetition),
        finetune=FinetuneConfig(epochs=grid.epochs, batch_size=256, augment="crop-flip"),
        evaluate=EvaluateConfig(precision="auto", shift_samples=0 if grid.validation else grid.shift_samples),
    )


def main(grid: Grid) -> None:
    """Runs the cells that have no row yet."""
    config = settings(grid)
    backbone = open_backbone(BackboneConfig(grid.backbone, cifar.weights(grid.backbone)))
    card = backbone.card
    train, validation = split(cifar.images("cifar10-train", card), config.images.validation, config.images.split_seed)
    test = None if grid.validation else cifar.images("cifar10-test", card)
    ood = {} if grid.validation else {name: cifar.images(name, card, count) for name, count in OOD.items()}
    human = None if grid.validation else torch.from_numpy(np.load(cifar.human_counts())["counts"])
    console = Console(stderr=True)
    name = "compare_choice" if grid.validation else "compare"
    with Progress(console=console) as progress:
        found = compare(
            config,
            backbone=backbone,
            splits=Splits(train, validation, test, ood),
            human_counts=human,
            rows_file=rows.RESULTS / f"{name}.jsonl",
            curves_file=rows.RESULTS / f"{name}_curves.jsonl",
            progress=progress,
        )
    Console().print(comparison_table(found.rows, found.missing, len(set(grid.seeds))))


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
