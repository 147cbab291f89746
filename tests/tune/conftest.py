"""Studies whose trials nobody trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from subnet_search.evaluate.keys import FIXED_KEYS
from subnet_search.settings import RunConfig
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
