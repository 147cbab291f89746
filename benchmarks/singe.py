"""One pruned network: our criteria beside those of torch-pruning, at the same widths and the same fine-tuning.

    python -m benchmarks.singe --speedups 2.1 2.6 --criteria ig magnitude tp-taylor --seeds 0 1 2 --epochs 10

Every cell prunes in rounds, the scores alone differ. A killed grid continues where it was, in the middle of a cell too.
Each row goes to `results/singe.jsonl`; `table` and `published` make the tables.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks import cifar, rows
from benchmarks.markdown import markdown_table
from benchmarks.tp_importance import IMPORTANCES, score_by_torch_pruning
from subnet_search.baselines import BaselineConfig, Setup, System, train
from subnet_search.baselines.singe import pruned, singe
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.evaluate import EvaluateConfig, evaluate, result_row
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import find_groups
from subnet_search.inputs import Splits, example_of, open_backbone, open_splits
from subnet_search.provenance import device_name
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig, allocate_quotas
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig
from subnet_search.tables import spread

RUNS = Path(__file__).parent / "runs"
Cell = tuple[int, float, str | None]
"""Seed, speed-up, criterion; without a criterion the dense network."""

OURS = ("ig", "singe", "taylor", "magnitude")
SOURCE = "npz:cifar10-train.npz"

PUBLISHED = (
    ("DepGraph, no sparse learning", 2.11, 93.53, 93.46),
    ("DepGraph, sparse learning", 2.13, 93.53, 93.77),
    ("DepGraph, no sparse learning", 2.51, 93.53, 93.36),
    ("DepGraph, sparse learning", 2.57, 93.53, 93.64),
)
"""Method, speed-up, accuracy of the base and of the pruned network in per cent, as Torch-Pruning's repository gives
them for ResNet-56 / CIFAR-10 (`reproduce/readme.md`; Fang et al. 2023). Not measured by us."""


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        backbone: `resnet20`, `resnet32` or `resnet56`.
        speedups: MACs of the dense network / MACs of the pruned one.
        criteria: Criteria of `subnet_search.relevance`, or `tp-magnitude`, `tp-taylor`, `tp-hessian`, `tp-random`.
        seeds: Seeds.
        epochs: Epochs of fine-tuning, 45,000 images each, shared out to the rounds; the later ones get the rest.
        rounds: Rounds of scoring, cutting and training.
        learning_rate: Peak of each round's one-cycle schedule.
        images: Only the first so many images of each set, to try the command; such rows are printed and not kept.
    """

    backbone: str = "resnet56"
    speedups: tuple[float, ...] = (2.1, 2.6)
    criteria: tuple[str, ...] = (*OURS, *IMPORTANCES)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    rounds: int = 5
    learning_rate: float = 0.01
    images: int | None = None


def main(grid: Grid) -> None:
    """Runs the cells that have no row yet, seed by seed, so that every criterion has its first seed first."""
    console = Console()
    cells: list[Cell] = [(grid.seeds[0], 1.0, None)]
    cells += [(seed, speedup, name) for seed in grid.seeds for speedup in grid.speedups for name in grid.criteria]
    runs = [settings(grid, cell) for cell in cells]  # all of them first: what is wrong is told before the work
    backbone = open_backbone(runs[0].network)
    splits = _first(open_splits(runs[0].images, backbone.card), grid.images)
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card))
    accelerator = Accelerator()
    for cell, run in zip(cells, runs, strict=True):
        if grid.images is None and _done(grid, cell):
            continue
        seed, speedup, criterion = cell
        console.print(f"{grid.backbone} {_method(criterion)} at {speedup}x, seed {seed}")
        with Progress(console=console) as progress:
            setup = Setup(backbone, graph, splits, run, BaselineConfig(rounds=grid.rounds), progress)
            row = _row(setup, grid, cell, accelerator)
        if grid.images is None:
            rows.append("singe", row)
        figures = {key: row["metrics"][key] for key in ("cls/Acc", "cls/NLL", "cplx/MACsRatio")}
        console.print(figures, f"{row['seconds']:.0f} s")


def settings(grid: Grid, cell: Cell) -> RunConfig:
    """Returns the settings of one cell; everything but speed-up, criterion and seed is the same in all of them."""
    seed, speedup, criterion = cell
    relevance = RelevanceConfig()
    if criterion is not None and criterion not in IMPORTANCES:
        # on weights, group by group, it is no better and costs a pass for each of 27 groups (benchmarks/README.md)
        path = "joint" if criterion == "singe" else relevance.path
        relevance = replace(relevance, criterion=criterion, path=path)  # type: ignore[arg-type] # checked there
    return RunConfig(
        members=2,  # of which there is one; a run has at least two
        seed=seed,
        network=BackboneConfig(grid.backbone, cifar.weights(grid.backbone)),
        images=DataConfig(data=cifar.npz("cifar10-train"), test=cifar.npz("cifar10-test"), ood=(), validation=0.1),
        budget=BudgetConfig(budget=1 / speedup),
        relevance=relevance,
        finetune=FinetuneConfig(
            epochs=grid.epochs, batch_size=128, learning_rate=grid.learning_rate, augment="crop-flip"
        ),
        evaluate=EvaluateConfig(precision="auto"),
    )


def system(setup: Setup, criterion: str) -> System:
    """Returns the pruning by one of our criteria or of torch-pruning's; rounds, widths and training are the same."""
    if criterion not in IMPORTANCES:
        return singe(setup)
    quotas = allocate_quotas(setup.graph, 1, setup.run.budget)
    thinned = [name for name, (width,) in quotas.items() if width < setup.graph[name].width]
    config: RelevanceConfig = setup.run.seeded("relevance")
    train_set, card = setup.splits.train, setup.backbone.card
    assert isinstance(train_set, ArrayDataset)

    def score(network: SubnetEnsemble, number: int) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(config.seed + 1_299_709 * number)
        order = torch.randperm(len(train_set), generator=generator)
        images, labels = train_set.__getitems__(order[: config.samples].tolist())
        device = next(network.parameters()).device
        prepared = card.prepare(images.to(device))
        return score_by_torch_pruning(network, thinned, criterion, prepared, labels.to(device), config.seed + number)

    return pruned(setup, setup.run.budget, score)


def _row(setup: Setup, grid: Grid, cell: Cell, accelerator: Accelerator) -> dict[str, Any]:
    """Prunes, trains and evaluates one cell."""
    began = time.perf_counter()
    _, speedup, criterion = cell
    run, card, splits, graph = setup.run, setup.backbone.card, setup.splits, setup.graph
    network: torch.nn.Module = setup.backbone.model.to(accelerator.device)
    macs, seen = graph.dense_macs, None
    if criterion is not None:
        made = system(setup, criterion)
        folder = RUNS / _name(grid, cell) if grid.images is None else None
        seen = train(made, setup, folder, accelerator).samples_seen
        network, macs = made.predictor, made.predictor.macs()
    assert splits.test is not None
    metrics = evaluate(
        network,
        card=card,
        test=splits.test,
        validation=splits.validation,
        config=run.evaluate,
        macs=macs,
        dense_macs=graph.dense_macs,
        progress=setup.progress,
    )
    return result_row(
        method=_method(criterion),
        backbone=card.name,
        data=SOURCE,
        seed=run.seed,
        members=1,
        budget=None if criterion is None else 1 / speedup,
        epochs=None if criterion is None else run.finetune.epochs,
        samples_seen=seen,
        settings={
            "speedup": speedup,
            "rounds": grid.rounds,
            "validation": run.images.validation,
            "budget": run.budget,
            "relevance": run.seeded("relevance"),
            "finetune": run.seeded("finetune"),
            "evaluate": run.evaluate,
        },
        metrics=metrics,
        device=device_name(accelerator.device),
        seconds=time.perf_counter() - began,
    )


def _first(splits: Splits, images: int | None) -> Splits:
    """The splits, or the first images of each."""
    if images is None:
        return splits
    parts = [part.subset(range(images)) for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr] # arrays, as all of the benchmark's sets
    return Splits(*parts)


def _method(criterion: str | None) -> str:
    return "dense" if criterion is None else f"singe+{criterion}"


def _done(grid: Grid, cell: Cell) -> bool:
    seed, speedup, criterion = cell
    wanted = (seed, speedup, grid.epochs, grid.rounds, grid.learning_rate)
    for row in rows.read("singe"):
        asked = row["settings"]
        found = (row["seed"], asked["speedup"], row["epochs"], asked["rounds"], asked["finetune"]["learning_rate"])
        same = (row["backbone"], row["method"]) == (grid.backbone, _method(criterion))
        if same and (criterion is None or found == wanted):
            return True
    return False


def _name(grid: Grid, cell: Cell) -> str:
    return "-".join(map(str, ("singe", grid.backbone, *cell, grid.epochs, grid.rounds, grid.learning_rate)))


def table() -> str:
    """Accuracy and NLL by speed-up: mean ± standard deviation over seeds, n in the last column."""
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows.read("singe"):
        asked = row["settings"]
        dense = row["method"] == "dense"
        key = (row["backbone"], asked["speedup"], 0 if dense else row["epochs"], 0 if dense else asked["rounds"])
        cells[(*key, row["method"].removeprefix("singe+"))].append(row["metrics"])
    titles = ("network", "speed-up", "epochs", "rounds", "criterion", "Acc %", "NLL", "measured speed-up", "n")
    lines: list[list[str]] = []
    for (backbone, speedup, epochs, rounds, criterion), found in sorted(cells.items()):
        figures = [
            spread([m["cls/Acc"] for m in found], 2, 100),
            spread([m["cls/NLL"] for m in found], 3),
            f"{1 / found[0]['cplx/MACsRatio']:.2f}",  # the same widths for all
        ]
        asked = [f"{speedup:g}", str(epochs or "–"), str(rounds or "–")]
        lines.append([backbone, *asked, criterion, *figures, str(len(found))])
    return markdown_table(titles, lines)


def published() -> str:
    """What others report, measured by them with their training of the base and longer fine-tuning."""
    titles = ("method", "speed-up", "base %", "pruned %")
    return markdown_table(titles, [[method, *(f"{value:.2f}" for value in figures)] for method, *figures in PUBLISHED])


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
