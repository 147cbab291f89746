"""What a second worker is worth, and what tuning costs beside the training: studies of the digits, one thread a worker.

python -m benchmarks.tune --speedup

Each study of a turn trains the same trials in full, drawn at random with the same seed, so that one worker and two have
the same work. The time is that of the whole study, with what it takes to start processes and to load network and images.
The overhead is measured with TPE and the ladder, from the first trial's begin to the last one's end: the share of the
time in which nothing was scored, searched, trained or evaluated.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks import rows
from benchmarks.markdown import markdown_table
from subnet_search.finetune import FinetuneConfig
from subnet_search.provenance import current_commit, device_name, library_versions
from subnet_search.settings import DataConfig
from subnet_search.tune import SpaceConfig, TuneConfig, tune

TURNS, TRIALS, EPOCHS = 3, 32, 40


def main(console: Console, turns: int = TURNS, trials: int = TRIALS, epochs: int = EPOCHS) -> None:
    """Measures one worker and two in turns, then the overhead, and appends a row.

    Args:
        console: Where the progress is shown.
        turns: How often each is measured; the medians count.
        trials: Trials of a study.
        epochs: Epochs of a trial at most.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    overheads = []
    try:
        for turn in range(turns):
            for workers in (1, 2):
                seconds[workers].append(_timed(workers, trials, epochs, turn, console)[0])
            overheads.append(
                overhead(_timed(1, trials, epochs, turn, console, sampler="tpe", rungs=(0.0, 1 / 3, 1.0))[1])
            )
    finally:
        torch.set_num_threads(threads)
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    row = {
        "trials": trials,
        "epochs": epochs,
        "turns": turns,
        "seconds": {"1": seconds[1], "2": seconds[2]},
        "speedup": one / two,
        "overhead": overheads,
        "load_before": load,
        "cores": os.cpu_count(),
        "device": device_name("cpu"),
        "commit": current_commit(),
        "versions": library_versions() | {"optuna": optuna.__version__},
    }
    rows.append("tune_speed", row)
    console.print(table(), soft_wrap=True)


def overhead(trials: Sequence[optuna.trial.FrozenTrial]) -> float:
    """Returns the share of the time of one worker in which it did nothing that a run would have to do as well.

    Args:
        trials: The finished trials of a study of one worker.
    """
    begins, ends = zip(*((trial.datetime_start, trial.datetime_complete) for trial in trials), strict=True)
    work = sum(sum(trial.user_attrs["stages"].values()) for trial in trials)
    return float(1 - work / (max(ends) - min(begins)).total_seconds())


def table() -> str:
    """Speed-up and overhead."""
    titles = ("trials", "1 worker, s", "2 workers, s", "speed-up", "overhead of tuning", "load before", "device")
    lines = [
        [
            str(row["trials"]),
            *(f"{statistics.median(row['seconds'][workers]):.0f}" for workers in ("1", "2")),
            f"{row['speedup']:.2f}",
            f"{100 * statistics.median(row['overhead']):.1f} %",
            f"{row['load_before']:.1f}",
            f"{row['device'].partition(',')[0]}, {row['cores']} cores",
        ]
        for row in rows.read("tune_speed")
    ]
    return markdown_table(titles, lines)


def _timed(
    workers: int, trials: int, epochs: int, seed: int, console: Console, **changes: Any
) -> tuple[float, list[optuna.trial.FrozenTrial]]:
    """Seconds of a whole study in an empty folder, and its trials."""
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        config = TuneConfig(
            **{
                "out": Path(folder) / "study",
                "trials": trials,
                "workers": workers,
                "seed": seed,
                "sampler": "random",
                "rungs": (1.0,),
                "images": DataConfig(ood=()),
                "finetune": FinetuneConfig(epochs=epochs),
                "space": SpaceConfig(epochs=(epochs, epochs)),
                **changes,
            }
        )
        began = time.perf_counter()
        study = tune(config, progress=progress)
        return time.perf_counter() - began, study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
