"""The laboratory of masks: ideas beside controls, at the same cost, in a short setting for choosing or a long one.

    python -m benchmarks.lab --ideas random flow flow-trunk-36 --budgets 1.0 2.0 --seeds 0
    python -m benchmarks.lab --ideas random flow --setting long --test --seeds 0 1 2

An idea is a search algorithm and what is added to it: `flow-trunk-36-overlap-10` is `flow` behind a trunk of 36 %, with
overlaps at ten times the price, `-shuffled` takes the shuffled twin of the masks, `-unequal` members of unequal sizes,
`-mimo-50` gives each member two inputs, with that input repetition in per cent, `-decorrelate-25-noisy` parts the
members on noisy images, `-learn-25-noisy` trains them on these, too; `tuned` is the dense network, trained on.
Everything else is the same for all.
Choosing happens on 5,000 images held out of the training set and on Tiny-ImageNet; `--test` measures what was chosen,
once, on the test images and the other OOD sets. Every cell is one `subnet_search.run`, so a killed grid goes on where it
was. Rows go to `results/lab.jsonl`; what was predicted and found is in `search/README.md`.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from benchmarks.several_inputs import several_inputs_row
from benchmarks.tuned import TUNED, tuned_row
from benchmarks.twin import take_twin
from benchmarks.unequal import take_unequal
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits, open_backbone
from subnet_search.search import CONTROLS, BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig
from subnet_search.tables import spread

RUNS = Path(__file__).parent / "runs" / "lab"
ALGORITHMS = (*sorted(CONTROLS), "flow", "draft", "core", "pairs", "swap", "progressive", "gates")

REPETITION = "baselines.input_repetition"
"""What MIMO is told apart by; no setting of a run, as a run has no members with several inputs."""

AMOUNTS: Mapping[str, tuple[str, float]] = {
    "trunk": ("ensemble.trunk", 100),
    "thin": ("budget.trunk_keep", 100),
    "overlap": ("search.lambda_overlap", 1),
    "corr": ("relevance.lambda_corr", 1),
    "distill": ("finetune.distill", 100),
    "joint": ("finetune.joint", 100),
    "decorrelate": ("finetune.decorrelate", 100),
    "learn": ("finetune.learn_probes", 100),
    "rate": ("finetune.learning_rate", 100),
    "mimo": (REPETITION, 100),
}
"""What is added to an algorithm with a number → the setting that it changes, by its name with dots, and its divisor."""

SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "head": {"ensemble.head": "member"},
    "bagging": {"finetune.bagging": True},
    "rescored": {"search.rescoring": 2},
    "repeat": {"finetune.mode": "repeat"},
    "independent": {"finetune.mode": "independent"},
    "depth": {"budget.depth": True},
    "mixed": {"finetune.probes": "mixed"},
    "noisy": {"finetune.probes": "noisy"},
    "jumbled": {"finetune.probes": "jumbled"},
    "shuffled": {},  # the masks are, no setting is
    "unequal": {},  # so are these
}
"""What is added without a number → the settings that it changes."""

SETTINGS = {"short": (25_000, 4), "long": (45_000, 12)}
"""Name → training images, epochs."""

OOD = {"tinyimagenet": 2500}
TEST_OOD = {"cifar100": 5000, "svhn": 5000, "tinyimagenet": 5000}
"""Set → how many of its images, the first ones, are looked at."""


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        ideas: Names in `ALGORITHMS`, each with any of `SWITCHES` and `AMOUNTS` behind it, or `tuned`.
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
        budget=BudgetConfig(budget=budget, trunk_keep=1.0),
        search=SearchConfig(),
        ensemble=EnsembleConfig(),  # without a trunk, unless the idea has one
        finetune=FinetuneConfig(epochs=epochs, batch_size=256, augment="crop-flip"),
        evaluate=EvaluateConfig(precision="auto"),
    )
    # all of a section at once, as some losses cannot be had without a mode
    sections: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in changes(idea).items():
        section, _, setting = name.partition(".")
        if name != REPETITION:
            sections[section][setting] = value
    changed = {section: dataclasses.replace(getattr(config, section), **new) for section, new in sections.items()}
    return dataclasses.replace(config, **changed)


def changes(idea: str) -> dict[str, Any]:
    """Returns the settings that an idea changes, by their names with dots.

    Raises:
        SubnetSearchError: where the name is not understood.
    """
    if idea == TUNED:
        return {}
    algorithm = next((name for name in ALGORITHMS if idea == name or idea.startswith(f"{name}-")), "")
    added = re.compile(rf"-(?:({'|'.join(SWITCHES)})|({'|'.join(AMOUNTS)})-(\d+(?:\.\d+)?))(?=-|$)")
    rest = idea.removeprefix(algorithm)
    if not algorithm or added.sub("", rest):
        raise SubnetSearchError(
            f"idea {idea!r} is not understood; expected one of {', '.join(ALGORITHMS)}, and behind it any of "
            f"{', '.join((*SWITCHES, *(f'{name}-NUMBER' for name in AMOUNTS)))}, as in flow-trunk-36"
        )
    found: dict[str, Any] = {"search.algorithm": algorithm}
    for switch, amount, number in added.findall(rest):
        if switch:
            found |= SWITCHES[switch]
        else:
            setting, divisor = AMOUNTS[amount]
            found[setting] = float(number) / divisor
    if REPETITION in found and (other := other_masks(idea)):
        raise SubnetSearchError(f"idea {idea!r}: mimo searches its own masks, which cannot be {' and '.join(other)}")
    return found


def other_masks(idea: str) -> set[str]:
    """Returns what an idea puts in the place of the masks that were searched; nothing of it shows in `changes`."""
    return {name for name, changed in SWITCHES.items() if not changed} & set(idea.split("-"))


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
                    if idea == TUNED:
                        _append(grid, idea, tuned_row(config, backbone, splits, progress))
                        continue
                    if REPETITION in changes(idea):
                        row = several_inputs_row(config, changes(idea)[REPETITION], backbone, splits, progress)
                        _append(grid, idea, row)
                        continue
                    job = partial(
                        subnet_search.run, config, backbone=backbone, splits=splits, report=False, progress=progress
                    )
                    if "shuffled" in other_masks(idea):
                        take_twin(job(until="search"), seed)
                    if "unequal" in other_masks(idea):
                        take_unequal(job(until="search"))
                    result = job(until="evaluate")
                if not _done(grid, "dense", config):
                    _append(grid, "dense", result.metrics["dense"])
                _append(grid, idea, result.metrics["ensemble"])


def _append(grid: Grid, method: str, row: Mapping[str, Any]) -> None:
    """Appends a row under the names of its network and idea, without the paths of this machine."""
    plain = rows.without_paths(row, RUNS)
    settings = {**plain["settings"], "on": _on(grid)}
    rows.append("lab", {**plain, "backbone": grid.backbone, "method": method, "settings": settings})


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
    """Mean ± standard deviation over seeds, sorted by NLL within a network, budget, setting and set of images.

    An image counts as a sample once for each member that it is shown to in training.
    """
    cells: dict[tuple[Any, ...], dict[tuple[str, int, int], list[Mapping[str, Any]]]]
    cells = defaultdict(lambda: defaultdict(list))
    dense: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows.read("lab"):
        if row["method"] == "dense":
            dense[(row["backbone"], row["settings"]["on"])] = row["metrics"]
        else:
            images = int(row["data"].rpartition(":")[2])
            key = (row["backbone"], row["settings"]["on"], row["budget"], images)
            cells[key][row["method"], row["epochs"], row["samples_seen"]].append(row["metrics"])
    titles = ("network", "on", "budget", "images", "idea", "epochs", "samples", *(title for title, *_ in FIGURES), "n")
    lines: list[list[str]] = []
    for key, ideas in sorted(cells.items()):
        about = [str(key[0]), str(key[1]), str(key[2]), f"{key[3]:,}"]
        for (idea, epochs, samples), found in sorted(ideas.items(), key=lambda item: _mean_nll(item[1])):
            lines.append([*about, idea, str(epochs), f"{samples:,}", *_figures(found)])
        if key[:2] in dense:
            lines.append([*about, "dense", "–", "–", *_figures([dense[key[:2]]])])
    return markdown_table(titles, lines)


def _mean_nll(found: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(float(metrics["cls/NLL"]) for metrics in found)


def _figures(found: Sequence[Mapping[str, Any]]) -> list[str]:
    figures = [spread([metrics.get(name) for metrics in found], digits, scale) for _, name, scale, digits in FIGURES]
    return [*figures, str(len(found))]


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
