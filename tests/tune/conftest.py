"""Studies whose trials nobody trained, and studies at the smallest scale: a narrow network and a few dozen images."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import subnet_search
from subnet_search.backbones import Backbone, load_backbone
from subnet_search.data import ArrayDataset
from subnet_search.evaluate import EvaluateConfig
from subnet_search.evaluate.keys import FIXED_KEYS
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits, open_splits
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig
from subnet_search.settings import DataConfig, RunConfig
from subnet_search.tune import SpaceConfig, tune
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.objectives import directions_of, values_of
from subnet_search.tune.trial import settings_of

ALGORITHMS = ("flow", "draft", "random")


def figures(**known: float | None) -> dict[str, float | None]:
    """All figures of a row: those that are given, the others null."""
    return {**dict.fromkeys(FIXED_KEYS), **{key.replace("_", "/", 1): value for key, value in known.items()}}


@pytest.fixture
def made_up_study() -> Callable[..., optuna.Study]:
    """Makes a study in memory: two enqueued trials, then one in four of those that a sampler might choose in full."""

    def make(trials: int = 24, out: Path = Path("runs/tune"), storage: Any = None, **settings: Any) -> optuna.Study:
        config = TuneConfig(**{"out": out, **settings})
        names = config.objectives
        study = optuna.create_study(study_name=config.name, directions=directions_of(names), storage=storage)
        study.set_user_attr("objectives", list(names))
        study.set_user_attr("directions", directions_of(names))
        study.set_user_attr("config", config.record())
        dense = figures(cls_NLL=0.373, cls_Acc=0.917, cal_ECE=0.05, cplx_MACsRatio=1.0)
        study.set_user_attr("dense", dense)
        draw = np.random.default_rng(3)
        for number in range(trials):
            role = {0: "default", 1: "control"}.get(number, "search")
            members, budget = (4, 2.0) if number < 2 else (int(draw.integers(2, 9)), float(2 ** draw.uniform(-1, 2)))
            algorithm = {0: "flow", 1: "random"}.get(number) or str(draw.choice(ALGORITHMS))
            fidelity = 1.0 if number < 2 else (0.0, 1 / 3, 0.0, 1.0)[number % 4]
            error = 0.02 * float(draw.normal()) + {"flow": 0.0, "draft": 0.02, "random": 0.01}[algorithm]
            metrics = figures(
                cls_NLL=0.25 + 0.07 / budget + 0.5 * (1 - fidelity) + error,
                cls_Acc=0.92 - error,
                cal_ECE=0.03 + error / 10,
                ens_ErrCorr=min(1.0, max(0.0, 0.8 - 0.06 * members + 0.5 * error)),
                ens_IoU=0.3 + error,
                cplx_MACsRatio=budget - 0.01,
            )
            run = RunConfig.of(config, seed=config.seed)
            run = replace(run, members=members, budget=replace(run.budget, budget=budget))
            run = replace(run, search=replace(run.search, algorithm=algorithm))
            values = values_of(metrics, names)
            limit = {} if config.max_macs is None else {"budget": budget - 0.01 - config.max_macs}
            study.add_trial(
                optuna.trial.create_trial(
                    values=values,
                    params={"members": members, "budget": budget, "algorithm": algorithm},
                    distributions={
                        "members": IntDistribution(2, 8),
                        "budget": FloatDistribution(0.5, 4.0, log=True),
                        "algorithm": CategoricalDistribution(ALGORITHMS),
                    },
                    constraints={"fidelity": 1 - fidelity, **limit},
                    user_attrs={
                        "settings": settings_of(run),
                        "metrics": metrics,
                        "fidelity": fidelity,
                        "rung_values": [values],
                        "role": role,
                        "seconds": 10.0,
                        "stages": {"finetune": 9.0, "evaluate": 0.5},
                        "artifact": f"masks-of-{number}",
                    },
                )
            )
        return study

    return make


@pytest.fixture
def lowered_study(made_up_study: Callable[..., optuna.Study]) -> optuna.Study:
    """Such a study, the trials of which had a budget of 0.25, whatever the sampler chose."""
    made = made_up_study(24)
    study = optuna.create_study(study_name=made.study_name, directions=made.directions)
    for name, value in made.user_attrs.items():
        study.set_user_attr(name, value)
    for trial in made.get_trials():
        trial.user_attrs["settings"]["budget"]["budget"] = 0.25
        study.add_trial(trial)
    return study


TINY: dict[str, Any] = {
    "trials": 6,
    "members": 2,
    "budget": BudgetConfig(budget=1.5),
    "relevance": RelevanceConfig(samples=8, nodes=2, precision="fp32"),
    "finetune": FinetuneConfig(epochs=3, batch_size=24, precision="fp32"),
    "evaluate": EvaluateConfig(latency_repeats=0),
    "space": SpaceConfig(members=(2, 3)),
}

WORKER = """
import json, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from subnet_search.backbones import load_backbone
from subnet_search.inputs import Splits, open_splits
from subnet_search.settings import DataConfig, from_dict
from subnet_search.tune import TuneConfig, tune
from subnet_search.errors import SubnetSearchError
import subnet_search.tune.storage as storage
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore it
torch.set_num_threads(1)
storage.PATIENCE = float(sys.argv[3])
pause = float(sys.argv[2])
step = torch.optim.SGD.step
def slow(*arguments, **named):
    time.sleep(pause)
    return step(*arguments, **named)
torch.optim.SGD.step = slow
config = replace(from_dict(TuneConfig, json.loads(sys.argv[1]), "arguments"), storage=os.environ.get("STORAGE"))
backbone = load_backbone("digits", "random", seed=9, width=4)
whole = open_splits(DataConfig(ood=()), backbone.card)
splits = Splits(whole.train.subset(range(48)), whole.validation.subset(range(40)))
try:
    tune(config, backbone=backbone, splits=splits)
except SubnetSearchError as problem:
    print("error:", problem, file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="session")
def network() -> Backbone:
    return load_backbone("digits", "random", seed=9, width=4)


@pytest.fixture(scope="session")
def few(network: Backbone) -> Splits:
    whole = open_splits(DataConfig(ood=()), network.card)
    assert isinstance(whole.train, ArrayDataset)
    assert isinstance(whole.validation, ArrayDataset)
    return Splits(whole.train.subset(range(48)), whole.validation.subset(range(40)))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TuneConfig]:
    """Makes settings of a study in a folder."""
    return lambda out, **changes: TuneConfig(**{"out": out, **TINY, **changes})


@pytest.fixture(scope="session")
def run(network: Backbone, few: Splits) -> Callable[..., Any]:
    """Runs a study on the narrow network and the few images."""
    return lambda config, **given: tune(config, **{"backbone": network, "splits": few, **given})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts workers as processes of their own, with `pause` seconds in each training step; they end with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        config: TuneConfig, pause: float = 0.0, url: str | None = None, patience: float = 60.0
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(subnet_search.__file__).parents[1])}
        if url:
            environment["STORAGE"] = url
        command = [sys.executable, "-c", WORKER, json.dumps(config.record()), str(pause), str(patience)]
        errors = (tmp_path / f"errors-{len(started)}.txt").open("w")
        process = subprocess.Popen(command, env=environment, stderr=errors, text=True)
        errors.close()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for something to become true, and returns it."""

    def wait(found: Callable[[], Any], seconds: float = 600.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < deadline, "this takes too long"
            time.sleep(0.1)
        return value

    return wait
