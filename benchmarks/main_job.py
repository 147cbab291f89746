"""The main job on a pretrained ResNet and CIFAR-10: the search beside its controls, at the same cost.

    python -m benchmarks.main_job --budgets 2.0 1.0 --methods random masksembles search --seeds 0 1 2

Every cell is one `subnet_search.run`, so a killed grid continues where it was, in the middle of a cell too. Each row
goes to `results/main_job.jsonl`; `python -m benchmarks.tables` makes the tables.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress

import subnet_search
from benchmarks import cifar, rows
from benchmarks.markdown import markdown_table
from benchmarks.tuned import TUNED, tuned_row
from benchmarks.twin import take_twin
from subnet_search.ensemble import EnsembleConfig
from subnet_search.ensemble.subnet_ensemble import Sharing
from subnet_search.evaluate import EvaluateConfig
from subnet_search.evaluate.keys import CRITERIA, ood_key
from subnet_search.finetune import FinetuneConfig
from subnet_search.finetune.config import Mode
from subnet_search.inputs import open_backbone, open_splits
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig
from subnet_search.tables import spread

OOD = ("cifar100", "svhn", "tinyimagenet")
CHOOSING = "tinyimagenet"
"""The set on which the OOD criterion is chosen."""
TWIN = "shuffled"
"""The method whose masks are the shuffled twin of those of `search`."""
RUNS = Path(__file__).parent / "runs"
Cell = tuple[Any, ...]
"""Network, method, budget and seed, with epochs and members where they matter."""


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        backbone: `resnet20`, `resnet32` or `resnet56`; with `-45k`, those of `benchmarks.train_resnet`.
        methods: Search algorithms; `search` is the default one, `shuffled` the shuffled twin of its masks, `tuned` the
            dense network, trained on (the same for all budgets: name one).
        budgets: MACs of the whole ensemble / MACs of the dense network.
        seeds: Seeds.
        epochs: Epochs of fine-tuning, 45,000 images each, `split` among the members.
        members: Number of members K.
        distill: Share of the loss that is distillation from the dense network; where it is positive, the rows are
            those of the method `METHOD+distill`.
        trunk: Share of the dense MACs that members have in common (`ensemble.trunk`); where it is positive, the rows
            are those of the method `METHOD+trunk`, with the share in per cent.
        trunk_keep: Kept fraction of the channels inside the trunk's blocks (`budget.trunk_keep`); below 1 the rows are
            those of the method `METHOD+trunkSHARE+thinNUMBER`, in per cent.
        overlap: Price of overlaps (`search.lambda_overlap`); where it is not 1, the rows of `search` and its twin are those of
            the method `METHOD+overlapNUMBER`.
        mode: How images are shown to the members (`finetune.mode`); with another one than `split` the rows are those
            of the method `METHOD+MODE`.
        head: Whether the members share the classifier (`ensemble.head`); with one for each the rows are those of the
            method `METHOD+head`.
        noisy: Weight of the members' correlation on noisy images in the loss (`finetune.decorrelate`, in `repeat` mode);
            where it is positive, the rows are those of the method `METHOD+noisyNUMBER`, in per cent.
        learn_noisy: Weight of the members' cross-entropy on noisy images in the loss (`finetune.learn_probes`, in `repeat`
            mode); where it is positive, the rows are those of the method `METHOD+learnnoisyNUMBER`, in per cent.
        again: Measures cells again whose rows lack figures that there are today; those whose run folder is gone are
            trained again for it. Of several rows of a cell the last counts.
    """

    backbone: str = "resnet20"
    methods: tuple[str, ...] = ("random", "masksembles", "search")
    budgets: tuple[float, ...] = (2.0, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    members: int = 4
    distill: float = 0.0
    trunk: float = 0.0
    trunk_keep: float = 1.0
    overlap: float = 1.0
    mode: Mode = "split"
    head: Sharing = "shared"
    noisy: float = 0.0
    learn_noisy: float = 0.0
    again: bool = False


def settings(grid: Grid, method: str, budget: float, seed: int) -> RunConfig:
    """Returns the settings of one cell; everything but masks, budget and seed is the same in all of them."""
    algorithm = "flow" if method in ("search", TWIN, TUNED) else method
    # one network has nobody to be parted from
    noisy, learned = (0.0, 0.0) if method == TUNED else (grid.noisy, grid.learn_noisy)
    search = SearchConfig(algorithm, lambda_overlap=grid.overlap)  # type: ignore[arg-type] # checked there
    return RunConfig(
        out=RUNS / f"{grid.backbone}-{_key(grid, method)}-{budget}-{grid.epochs}-{seed}",
        members=grid.members,
        seed=seed,
        network=BackboneConfig(cifar.architecture(grid.backbone), cifar.weights(grid.backbone)),
        images=DataConfig(
            data=cifar.npz("cifar10-train"),
            test=cifar.npz("cifar10-test"),
            ood=tuple(f"{name}={cifar.npz(name)}" for name in OOD),
            validation=0.1,
        ),
        budget=BudgetConfig(budget=budget, trunk_keep=grid.trunk_keep),
        search=search,
        ensemble=EnsembleConfig(trunk=grid.trunk, head=grid.head),
        finetune=FinetuneConfig(
            epochs=grid.epochs,
            batch_size=256,
            augment="crop-flip",
            distill=grid.distill,
            mode=grid.mode,
            decorrelate=noisy,
            learn_probes=learned,
            probes="noisy" if noisy or learned else "images",
        ),
        evaluate=EvaluateConfig(precision="auto"),
    )


def main(grid: Grid) -> None:
    """Runs the cells that have no row yet, seed by seed, so that every method has its first seed first."""
    console = Console()
    for seed in grid.seeds:
        for budget in grid.budgets:
            for method in grid.methods:
                key = _key(grid, method)
                if _done(grid, key, budget, seed):
                    continue
                console.print(f"{grid.backbone} {key} budget {budget} seed {seed}")
                with Progress(console=console) as progress:
                    if method == TUNED:
                        config = settings(grid, method, budget, seed)
                        backbone = open_backbone(config.network)
                        splits = open_splits(config.images, backbone.card)
                        rows.append("main_job", _public(tuned_row(config, backbone, splits, progress), grid, key, seed))
                        continue
                    job = partial(
                        subnet_search.run, settings(grid, method, budget, seed), report=False, progress=progress
                    )
                    if method == TWIN:
                        take_twin(job(until="search"), seed)
                    result = job(until="evaluate")
                found = json.loads(json.dumps(dict(result.metrics)))
                if not _done(grid, "dense", None, seed):
                    rows.append("main_job", _public(found["dense"], grid, "dense", seed))
                rows.append("main_job", _public(found["ensemble"], grid, key, seed))


def measured() -> list[dict[str, Any]]:
    """Returns the last row of each cell."""
    return list({_cell(row): row for row in rows.read("main_job")}.values())


def ood_table() -> str:
    """AUROC by the criterion that tells Tiny-ImageNet best, the set for choosing, of rows that have all criteria."""
    grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in measured():
        if row["metrics"].get(ood_key(CHOOSING, "AUROC", "energy")) is not None:
            grouped[(row["backbone"], row["budget"] or 0.0, row["epochs"] or 0, row["method"])].append(row["metrics"])
    lines: list[list[str]] = []
    for (backbone, budget, epochs, method), metrics in sorted(grouped.items()):
        found = metrics[:1] if method == "dense" else metrics  # the same network for every seed
        defined = [c for c in CRITERIA if found[0][ood_key(CHOOSING, "AUROC", c)] is not None]
        best = max(defined, key=lambda c: statistics.mean(m[ood_key(CHOOSING, "AUROC", c)] for m in found))
        by = {
            criterion: [spread([m[ood_key(name, "AUROC", criterion)] for m in found], 3) for name in OOD]
            for criterion in (best, "entropy")
        }
        asked = ["–", "–"] if method == "dense" else [str(budget), str(epochs)]
        lines.append([backbone, *asked, method, best, *by[best], *by["entropy"], str(len(found))])
    sets = ("C100", "SVHN", "Tiny")
    titles = ("network", "budget", "epochs", "masks", "chosen", *sets, *(f"{name}, entropy" for name in sets), "n")
    return markdown_table(titles, lines)


def _key(grid: Grid, method: str) -> str:
    if method == TUNED:
        return method
    trunk = f"+trunk{100 * grid.trunk:.0f}" if grid.trunk else ""
    thin = f"+thin{100 * grid.trunk_keep:.0f}" if grid.trunk_keep < 1 else ""
    overlap = f"+overlap{grid.overlap:g}" if grid.overlap != 1 and method in ("search", TWIN) else ""
    mode = f"+{grid.mode}" if grid.mode != "split" else ""
    head = "+head" if grid.head == "member" else ""
    noisy = f"+noisy{100 * grid.noisy:.0f}" if grid.noisy else ""
    noisy += f"+learnnoisy{100 * grid.learn_noisy:.0f}" if grid.learn_noisy else ""
    return f"{method}{trunk}{thin}{overlap}{mode}{head}{noisy}{'+distill' if grid.distill else ''}"


def _public(row: dict[str, object], grid: Grid, method: str, seed: int) -> dict[str, object]:
    """The row under its network and method key, without the paths of this machine."""
    plain = rows.without_paths(row, cifar.CACHE, cifar.folder(), cifar.TRAINED, RUNS)
    return {**plain, "backbone": grid.backbone, "method": method, "seed": seed}


def _done(grid: Grid, method: str, budget: float | None, seed: int) -> bool:
    wanted: Cell = (grid.backbone, method, budget, seed)
    if method != "dense":
        wanted += (grid.epochs, 1 if method == TUNED else grid.members)
    return any(
        _cell(row)[: len(wanted)] == wanted and (not grid.again or set(_ood_keys()) <= set(row["metrics"]))
        for row in rows.read("main_job")
    )


def _ood_keys() -> list[str]:
    return [ood_key(name, "AUROC", criterion) for name in OOD for criterion in CRITERIA]


def _cell(row: Mapping[str, Any]) -> Cell:
    return tuple(row[key] for key in ("backbone", "method", "budget", "seed", "epochs", "members"))


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
