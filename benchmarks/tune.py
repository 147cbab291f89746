"""A study of the main job's settings, and the same number of trials drawn at random.

    python -m benchmarks.train_resnet        # its network, where its weights are not there: one that has not seen the
                                             # validation images
    python -m benchmarks.tune                # with it on CIFAR-10: TPE, then random sampling
    python -m benchmarks.tune --confirm      # what beats the defaults in the study, on test images and with other seeds
    python -m benchmarks.tune --speedup      # two workers against one, and what tuning costs beside training

A killed study goes on where it was. Every finished trial goes to `results/tune.jsonl`, what all trials of a study have in
common to `results/tune_studies.jsonl`; `python -m benchmarks.tables` makes tables and figures.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import tyro
from rich.console import Console
from rich.progress import Progress

import subnet_search
from benchmarks import cifar, rows, tune_speed
from benchmarks.main_job import OOD
from benchmarks.markdown import markdown_table
from subnet_search.ensemble import EnsembleConfig
from subnet_search.evaluate import EvaluateConfig
from subnet_search.files import write_bytes
from subnet_search.finetune import FinetuneConfig
from subnet_search.plots.page import FORMATS, rendered
from subnet_search.provenance import current_commit, device_name, library_versions
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig
from subnet_search.tables import spread
from subnet_search.tune import SpaceConfig, TuneConfig, ledger, tune
from subnet_search.tune.pick import settings_of_run
from subnet_search.tune.pictures import front_figure, volume_figure
from subnet_search.tune.points import Point, Points, read_points
from subnet_search.tune.reference import reference_of
from subnet_search.tune.study import read_study

RUNS = Path(__file__).parent / "runs" / "tune"
FIGURES = rows.RESULTS / "tune"
COMPARED = ("nll", "error_correlation", "macs")


@dataclass(frozen=True)
class Grid:
    """The studies.

    Attributes:
        network: `resnet20-45k` (of `benchmarks.train_resnet`) on CIFAR-10, or `digits`, to try this out. The pretrained
            ResNets know all images that could validate.
        samplers: Samplers of Optuna, by the names of `subnet-search tune`.
        seeds: A study of every sampler for each.
        trials: Finished trials of a study, low fidelities counted.
        images: Training images of CIFAR-10, the first ones; the 5,000 that are held out validate.
        epochs: Epochs of a trial in full, at most; what the default takes.
        budget: The default's budget, and the largest that is searched.
        workers: Processes.
        confirm: Runs the default and what beats it in full, on the test images, once for each of `confirm_seeds`; rows
            go to `results/tune_confirm.jsonl`.
        confirm_seeds: Seeds that no study has had.
        speedup: Measures two workers against one, and the overhead, and nothing else.
    """

    network: Literal["resnet20-45k", "digits"] = "resnet20-45k"
    samplers: tuple[str, ...] = ("tpe", "random")
    seeds: tuple[int, ...] = (0,)
    trials: int = 64
    images: int = 15_000
    epochs: int = 3
    budget: float = 2.0
    workers: int = 1
    confirm: bool = False
    confirm_seeds: tuple[int, ...] = (101, 102, 103)
    speedup: bool = False


def settings(grid: Grid, sampler: str, seed: int) -> TuneConfig:
    """Returns the settings of a study; all but the sampler and its seed are the same in all of them."""
    real = grid.network != "digits"
    length = f"{grid.epochs}x{grid.images}" if real else str(grid.epochs)
    return TuneConfig(
        out=RUNS / f"{grid.network}-{sampler}-{length}-{seed}",
        trials=grid.trials,
        workers=grid.workers,
        seed=seed,
        sampler=sampler,  # type: ignore[arg-type] # TuneConfig checks it
        network=BackboneConfig("resnet20", cifar.weights(grid.network)) if real else BackboneConfig(),
        images=_images(grid.images) if real else DataConfig(),
        budget=BudgetConfig(budget=grid.budget, trunk_keep=1.0),
        search=SearchConfig(),
        ensemble=EnsembleConfig(),  # without a trunk
        finetune=FinetuneConfig(epochs=grid.epochs, batch_size=256, augment="crop-flip" if real else "none"),
        evaluate=EvaluateConfig(precision="auto"),
        space=SpaceConfig(budget=(0.5, grid.budget)),
    )


def _images(count: int) -> DataConfig:
    return DataConfig(
        data=cifar.npz("cifar10-45k", count),
        test=cifar.npz("cifar10-test"),
        ood=tuple(f"{name}={cifar.npz(name)}" for name in OOD),
        held_out=cifar.npz("cifar10-held-out"),
    )


def main(grid: Grid) -> None:
    """Runs what has no rows yet."""
    console = Console(stderr=True)
    if grid.speedup:
        tune_speed.main(console)
        return
    for seed in grid.seeds:
        for sampler in grid.samplers:
            config = settings(grid, sampler, seed)
            console.print(f"{config.name}: {grid.trials} trials")
            with Progress(console=console) as progress:
                study = tune(config, progress=progress)
            record(study)
    if grid.confirm:
        for seed in grid.seeds:
            confirm(grid, settings(grid, grid.samplers[0], seed), console)


def record(study: optuna.Study) -> None:
    """Adds the trials that have no row yet, and what they have in common."""
    points = read_points(study)
    there = {row["trial"] for row in rows.read("tune") if row["study"] == points.study}
    versions = library_versions() | {"optuna": optuna.__version__}
    about = {"commit": current_commit(), "versions": versions, "device": device_name("cpu")}
    for point in points.points:
        if point.number not in there:
            row = {"study": points.study, "trial": point.number, **dataclasses.asdict(point), **about}
            for name in ("number", "settings", "artifact"):  # the settings are the study's and the parameters
                del row[name]
            rows.append("tune", row)
    row = {
        "study": points.study,
        "lower": dict(points.lower),
        "config": _public(points.config),
        "dense": points.dense,
        "failed": points.failed,
        "overhead": _overhead(study),
    }
    if not any(row.items() <= other.items() for other in rows.read("tune_studies")):
        rows.append("tune_studies", row | about)


def _overhead(study: optuna.Study) -> float | None:
    """Share of the worker's time that tuning takes; None where several took part, or one after the other."""
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    alone = len({json.dumps(trial.user_attrs.get(ledger.WORKER)) for trial in trials}) == 1
    known = alone and all("stages" in trial.user_attrs for trial in trials)
    return tune_speed.overhead(trials) if known else None


def studies() -> dict[str, Points]:
    """Returns what the rows know of each study, by name."""
    found: dict[str, Points] = {}
    for row in rows.read("tune_studies"):  # of several rows of a study the last one counts
        own = sorted((r for r in rows.read("tune") if r["study"] == row["study"]), key=lambda r: r["trial"])
        points = tuple(
            Point(number=r["trial"], settings={}, artifact=None, **{name: r[name] for name in _KEPT}) for r in own
        )
        found[row["study"]] = Points(row["study"], row["lower"], row["config"], row["dense"], points, row["failed"])
    return found


_KEPT = tuple(f.name for f in dataclasses.fields(Point) if f.name not in ("number", "settings", "artifact"))


def beating(points: Points, given: Point) -> list[Point]:
    """Returns the trials in full that are better than a given one in some objective, and worse in none."""
    full = points.full
    losses, own = points.losses(full), points.losses([given])[0]
    better = (losses <= own).all(axis=1) & (losses < own).any(axis=1)
    return [point for point, is_better in zip(full, better, strict=True) if is_better]


def closest_to_all(points: Points, given: Point) -> Point | None:
    """Returns, of the trials that beat a given one, the one that does so by most in the objective where it does least.

    Gains are shares of the given trial's own value. None where nothing beats it.
    """
    found = beating(points, given)
    if not found:
        return None
    own = points.losses([given])[0]
    gains = ((own - points.losses(found)) / np.abs(own)).min(axis=1)
    return found[int(gains.argmax())]


def confirm(grid: Grid, config: TuneConfig, console: Console) -> None:
    """Runs the default, and what beats it, with seeds and images that nothing was chosen by."""
    points = read_points(read_study(config))
    default = next(point for point in points.points if point.role == "default")
    chosen = closest_to_all(points, default)
    if chosen is None:
        console.print(f"{config.name}: nothing beats the default")
        return
    for point in (default, chosen):
        for seed in grid.confirm_seeds:
            key = (config.name, point.number, seed)
            if any((row["study"], row["trial"], row["seed"]) == key for row in rows.read("tune_confirm")):
                continue
            run = replace(settings_of_run(point, RUNS / f"{config.name}-confirm-{point.number}-{seed}"), seed=seed)
            console.print(f"{config.name}: trial {point.number}, seed {seed}")
            with Progress(console=console) as progress:
                result = subnet_search.run(run, until="evaluate", progress=progress)
            row = _public(result.metrics["ensemble"])
            rows.append("tune_confirm", {**row, "study": config.name, "trial": point.number, "role": point.role})


def _public(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without the paths of this machine."""
    data = os.environ.get("SUBNET_SEARCH_DATA")
    plain: dict[str, Any] = rows.without_paths(
        dict(content), RUNS, cifar.CACHE, cifar.TRAINED, *([Path(data)] if data else [])
    )
    return plain


def table() -> str:
    """The studies: how many trials, what their front is worth, and whether it beats what a person would set."""
    figures = ("NLL", "err. corr.", "MACs")
    about = ("study", "trials", "in full", "on the front", "hypervolume", "overhead of tuning")
    titles = (*about, "given", *figures, "beaten by", *figures)
    lines: list[list[str]] = []
    known = studies()
    overheads = {row["study"]: row["overhead"] for row in rows.read("tune_studies")}
    for name, points in known.items():
        reference = reference_of(_first(known, name))
        count = points.counts()
        own = [name, str(len(points.points) + points.failed), str(count["full"]), str(len(points.front()))]
        own.append(f"{reference.volumes(points)[-1]:.4f}" if points.points else "–")
        own.append("–" if overheads[name] is None else f"{100 * overheads[name]:.1f} %")
        for given in (point for point in points.full if point.role != "search"):
            best = closest_to_all(points, given)
            other = f"trial {best.number}, of {len(beating(points, given))}" if best else "nothing"
            lines.append([*own, given.role, *_values(given), other, *(_values(best) if best else ["–"] * 3)])
            own = [""] * len(about)
    return markdown_table(titles, lines)


def confirm_table() -> str:
    """The default and what beats it, on test images: mean ± standard deviation over seeds that chose nothing."""
    titles = ("study", "trial", "Acc %", "NLL", "ECE", "err. corr.", "MACs", "n")
    lines: list[list[str]] = []
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.read("tune_confirm"):
        label = "default" if row["role"] == "default" else f"trial {row['trial']}"
        cells.setdefault((row["study"], label), []).append(row["metrics"])
    for (name, label), found in cells.items():
        figures = [
            spread([metrics[key] for metrics in found], digits, scale)
            for key, digits, scale in (
                ("cls/Acc", 2, 100),
                ("cls/NLL", 3, 1),
                ("cal/ECE", 3, 1),
                ("ens/ErrCorr", 3, 1),
                ("cplx/MACsRatio", 2, 1),
            )
        ]
        lines.append([name, label, *figures, str(len(found))])
    return markdown_table(titles, lines)


def draw() -> None:
    """Draws the front of every study, and their hypervolumes over trials, into `results/tune`."""
    known = {name: points for name, points in studies().items() if points.points}
    pictures = {f"front-{name}": front_figure(points) for name, points in known.items()}
    for first in dict.fromkeys(_first(known, name).study for name in known):
        own = {name: points for name, points in known.items() if _first(known, name).study == first}
        pictures[f"hypervolume-{_job(first)}"] = volume_figure(own)
    for name, figure in pictures.items():
        if figure is not None:
            for kind in FORMATS:
                write_bytes(FIGURES / f"{name}.{kind}", rendered(figure, kind))


def _job(name: str) -> str:
    """Network and epochs of a study, by its name."""
    network, _, epochs, _ = name.rsplit("-", 3)
    return f"{network}-{epochs}"


def _first(known: Mapping[str, Points], name: str) -> Points:
    """The first study of the same network and epochs, from whose default the hypervolumes of all are measured."""
    return next(points for other, points in known.items() if _job(other) == _job(name))


def _values(point: Point) -> list[str]:
    return [f"{point.values[name]:.3f}" for name in COMPARED]


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
