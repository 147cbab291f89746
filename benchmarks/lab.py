"""The laboratory of masks: ideas beside controls, at the same cost, in a short setting for choosing or a long one.

    python -m benchmarks.lab --ideas random flow flow-trunk-36 --budgets 1.0 2.0 --seeds 0
    python -m benchmarks.lab --ideas random flow --setting long --test --seeds 0 1 2

An idea is a name in `IDEAS` and some settings of the run that differ from the defaults; everything else is the same for
all. Choosing happens on 5,000 images held out of the training set and on Tiny-ImageNet; `--test` measures what was chosen,
once, on the test images and the other OOD sets. Every cell is one `subnet_search.run`, so a killed grid goes on where it
was. Rows go to `results/lab.jsonl`; what was predicted and found is in `search/README.md`.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

import subnet_search
from benchmarks import cifar, rows
from benchmarks.markdown import markdown_table
from subnet_search.data import ArrayDataset
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits, open_backbone
from subnet_search.pipeline import RunResult
from subnet_search.search import CONTROLS, BudgetConfig, shuffled
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig
from subnet_search.tables import spread

RUNS = Path(__file__).parent / "runs" / "lab"
SEARCHES = ("flow", "draft", "core", "pairs", "progressive", "gates")
TRUNKS = {f"trunk-{share}": {"ensemble.trunk": share / 100} for share in (18, 36, 52, 68, 84)}

OVERLAPS = {f"overlap-{value:g}": value for value in (0.0, 0.1, 0.3, 3.0, 10.0)}

IDEAS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"search.algorithm": name} for name in (*CONTROLS, *SEARCHES)},
    **{
        f"{algorithm}-{name}": {"search.algorithm": algorithm, **setting}
        for algorithm in ("random", "masksembles", *SEARCHES)
        for name, setting in TRUNKS.items()
    },
    **{f"flow-{name}": {"search.lambda_overlap": value} for name, value in OVERLAPS.items()},
    **{
        f"flow-{trunk}-{name}": {**setting, "search.lambda_overlap": value}
        for trunk, setting in TRUNKS.items()
        for name, value in OVERLAPS.items()
    },
    "flow-head": {"ensemble.head": "member"},
    "flow-bagging": {"finetune.bagging": True},
    "flow-distill": {"finetune.distill": 0.5},
}
"""Name → settings of the run, with dots, that differ from its defaults. `IDEA-shuffled` is the shuffled twin of an idea."""

SHUFFLED = "-shuffled"

SETTINGS = {"short": (25_000, 4), "long": (45_000, 12)}
"""Name → training images, epochs."""

OOD = {"tinyimagenet": 2500}
TEST_OOD = {"cifar100": 5000, "svhn": 5000, "tinyimagenet": 5000}
"""Set → how many of its images, the first ones, are looked at."""


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        ideas: Names in `IDEAS`, each with `-shuffled` for its shuffled twin.
        setting: `short` (25,000 images, 4 epochs) or `long` (45,000 images, 12 epochs).
        budgets: MACs of the whole ensemble / MACs of the dense network.
        seeds: Seeds; all ideas have their first seed first.
        backbone: `resnet20`, `resnet32` or `resnet56`; with `-45k`, those of `benchmarks.train_resnet`.
        epochs: Other numbers of epochs than the setting's; None takes that.
        test: Measures on the test images and all OOD sets, for what has been chosen.
    """

    ideas: tuple[str, ...] = ("random", "flow")
    setting: Literal["short", "long"] = "short"
    budgets: tuple[float, ...] = (2.0, 1.0)
    seeds: tuple[int, ...] = (0,)
    backbone: str = "resnet20"
    epochs: int | None = None
    test: bool = False


def settings(grid: Grid, idea: str, budget: float, seed: int) -> RunConfig:
    """Returns the settings of one cell; data are named and not read here, so that no path gets into a row."""
    images, epochs = SETTINGS[grid.setting]
    epochs = epochs if grid.epochs is None else grid.epochs
    config = RunConfig(
        out=RUNS / f"{grid.backbone}-{idea}-{budget}-{images}-{epochs}-{seed}",
        seed=seed,
        network=BackboneConfig(cifar.architecture(grid.backbone), Path(cifar.WEIGHTS[grid.backbone])),
        images=DataConfig(data=f"cifar10-train:{images}", validation=0.1),
        budget=BudgetConfig(budget=budget),
        finetune=FinetuneConfig(epochs=epochs, batch_size=256, augment="crop-flip"),
        evaluate=EvaluateConfig(precision="auto"),
    )
    for name, value in IDEAS[idea.removesuffix(SHUFFLED)].items():
        config = _with(config, name, value)
    return config


def _with(config: Any, name: str, value: Any) -> Any:
    """The settings with one changed, which is named with dots."""
    first, _, rest = name.partition(".")
    return dataclasses.replace(config, **{first: _with(getattr(config, first), rest, value) if rest else value})


def data(grid: Grid, card: Any) -> Splits:
    """Returns the images of all cells."""
    train, validation = cifar.divided(card)
    count = SETTINGS[grid.setting][0]
    train = ArrayDataset(train.images[:count], train.labels[:count], "cifar10-train")
    ood = {name: cifar.images(name, card, count) for name, count in (TEST_OOD if grid.test else OOD).items()}
    return Splits(train, validation, cifar.images("cifar10-test", card) if grid.test else None, ood)


def main(grid: Grid) -> None:
    """Runs the cells that have no row yet."""
    console = Console()
    backbone = open_backbone(BackboneConfig(cifar.architecture(grid.backbone), cifar.weights(grid.backbone)))
    splits = data(grid, backbone.card)
    for seed in grid.seeds:
        for budget in grid.budgets:
            for idea in grid.ideas:
                config = settings(grid, idea, budget, seed)
                if _done(grid, idea, config):
                    continue
                console.print(f"{grid.backbone} {idea} budget {budget} seed {seed}, {grid.setting}")
                with Progress(console=console) as progress:
                    job = partial(
                        subnet_search.run, config, backbone=backbone, splits=splits, report=False, progress=progress
                    )
                    if idea.endswith(SHUFFLED):
                        _shuffle(job(until="search"), seed)
                    result = job(until="evaluate")
                for name, row in result.metrics.items():
                    if name == "ensemble" or not _done(grid, "dense", config):
                        plain = rows.without_paths(row, RUNS)
                        label = idea if name == "ensemble" else "dense"
                        rows.append(
                            "lab",
                            {
                                **plain,
                                "backbone": grid.backbone,
                                "method": label,
                                "settings": {**plain["settings"], "on": _on(grid)},
                            },
                        )


def _shuffle(result: RunResult, seed: int) -> None:
    """Puts the shuffled twin of the masks in their place, before anything is trained."""
    assert result.masks is not None
    if not result.masks.algorithm.endswith("+shuffled"):
        result.folder.save_masks(shuffled(result.masks, seed))


def _on(grid: Grid) -> str:
    return "test" if grid.test else "validation"


def _done(grid: Grid, idea: str, config: RunConfig) -> bool:
    wanted = (grid.backbone, idea, _on(grid)) + (() if idea == "dense" else _cell(config))
    found = (
        (row["backbone"], row["method"], row["settings"]["on"]) + (() if idea == "dense" else _row_cell(row))
        for row in rows.read("lab")
    )
    return wanted in found


def _cell(config: RunConfig) -> tuple[Any, ...]:
    return (config.budget.budget, config.seed, config.finetune.epochs, config.images.data)


def _row_cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["budget"], row["seed"], row["epochs"], row["data"])


FIGURES = (
    ("Acc %", "cls/Acc", 100, 2),
    ("NLL", "cls/NLL", 1, 3),
    ("ECE", "cal/ECE", 1, 3),
    ("AURC", "sc/AURC", 1, 4),
    ("member %", "ens/MemberAcc", 100, 2),
    ("err. corr.", "ens/ErrCorr", 1, 2),
    ("IoU", "ens/IoU", 1, 2),
    ("Tiny", "ood/tinyimagenet/AUROC/entropy", 1, 3),
    ("C100", "ood/cifar100/AUROC/entropy", 1, 3),
    ("SVHN", "ood/svhn/AUROC/entropy", 1, 3),
    ("MACs", "cplx/MACsRatio", 1, 2),
)


def table() -> str:
    """Mean ± standard deviation over seeds, sorted by NLL within a network, budget, setting and set of images."""
    cells: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    dense: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows.read("lab"):
        if row["method"] == "dense":
            dense[(row["backbone"], row["settings"]["on"])] = row["metrics"]
        else:
            images = int(row["data"].rpartition(":")[2])
            key = (row["backbone"], row["settings"]["on"], row["budget"], images * row["epochs"])
            cells[key][row["method"]].append(row["metrics"])
    titles = ("network", "on", "budget", "samples", "idea", *(title for title, *_ in FIGURES), "n")
    lines: list[list[str]] = []
    for key, ideas in sorted(cells.items()):
        backbone, on, budget, samples = key
        listed = sorted(ideas.items(), key=lambda item: sum(m["cls/NLL"] for m in item[1]) / len(item[1]))
        if (backbone, on) in dense:
            listed.append(("dense", [dense[(backbone, on)]]))
        for idea, found in listed:
            figures = [spread([m.get(name) for m in found], digits, scale) for _, name, scale, digits in FIGURES]
            lines.append([backbone, on, str(budget), f"{samples:,}", idea, *figures, str(len(found))])
    return markdown_table(titles, lines)


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
