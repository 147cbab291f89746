"""Samplers and pruners by name: what they draw depends on the seed and the place in the study alone."""

from collections.abc import Sequence
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import TrialState

from subnet_search.tune.config import Pruner, Sampler
from subnet_search.tune.ledger import queue_again
from subnet_search.tune.sampler import POPULATION, make_pruner, make_sampler

SAMPLERS = get_args(Sampler)
TRIALS = {"tpe": 14, "nsga2": POPULATION + 4, "gp": 12, "random": 12}
"""So many that each has begun to learn: Optuna's begin at random, with 10 trials or a population."""
PRUNERS = get_args(Pruner)


def objective(trial: optuna.Trial) -> Sequence[float]:
    """Conditional parameters, two objectives and a constraint, as studies have them."""
    kind = trial.suggest_categorical("kind", ("flow", "random"))
    x = trial.suggest_float("x", 0.5, 4.0, log=True)
    k = trial.suggest_int("k", 2, 8)
    y = trial.suggest_float("y", 0.0, 1.0) if kind == "flow" else 0.5
    trial.set_constraint("fidelity", 0.5 if k % 3 == 0 else 0.0)
    return x + (y - 0.3) ** 2, k / x


def study_of(name: Sampler, seed: int = 1) -> optuna.Study:
    return optuna.create_study(sampler=make_sampler(name, seed), directions=["minimize", "minimize"])


def outcome(study: optuna.Study) -> list[tuple[Any, Any]]:
    return [(t.params, t.values) for t in study.trials if t.state is TrialState.COMPLETE]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[tuple[Any, Any]]]:
    found = {}
    for name in SAMPLERS:
        study = study_of(name)
        study.enqueue_trial({"kind": "flow", "x": 2.0, "k": 4, "y": 1.0})
        study.optimize(objective, n_trials=TRIALS[name])
        found[name] = outcome(study)
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_decides_all(name, undisturbed) -> None:
    again = study_of(name)
    again.enqueue_trial({"kind": "flow", "x": 2.0, "k": 4, "y": 1.0})
    again.optimize(objective, n_trials=12)
    assert outcome(again) == undisturbed[name][:12]
    other = study_of(name, seed=2)
    other.optimize(objective, n_trials=3)
    assert outcome(other)[1:] != undisturbed[name][1:3]


@pytest.mark.parametrize("chosen_all", [True, False])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_interrupted_study_goes_on_as_if_nothing_had_been(name, chosen_all, undisturbed) -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(
        sampler=make_sampler(name, 1), directions=["minimize"] * 2, storage=storage, study_name="s"
    )
    study.enqueue_trial({"kind": "flow", "x": 2.0, "k": 4, "y": 1.0})
    study.optimize(objective, n_trials=11)
    dying = study.ask()
    if chosen_all:
        objective(dying)
        dying.set_user_attr("settings", {})
    else:
        dying.suggest_categorical("kind", ("flow", "random"))
    # another process, with a new sampler
    study = optuna.load_study(sampler=make_sampler(name, 1), storage=storage, study_name="s")
    study.tell(11, state=TrialState.FAIL)
    queue_again(study, study.trials[11])
    study.optimize(objective, n_trials=TRIALS[name] - 11)
    assert outcome(study) == undisturbed[name]


def test_no_two_places_draw_the_same(undisturbed) -> None:
    for name in ("tpe", "random"):  # children of NSGA-II take after their parents
        drawn = [params["x"] for params, _ in undisturbed[name]]
        assert len(set(drawn)) == len(drawn)


def test_enqueued_trials_have_children() -> None:
    study = study_of("nsga2")
    study.enqueue_trial({"kind": "flow", "x": 2.0, "k": 4, "y": 1.0})
    study.optimize(objective, n_trials=2)
    generations = [{k: v for k, v in t.system_attrs.items() if "generation" in k} for t in study.trials]
    assert generations[0] == generations[1] != {}


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_stop_what_is_worse_and_nothing_better(name) -> None:
    study = optuna.create_study(sampler=make_sampler("random", 0), pruner=make_pruner(name, 3, 2), study_name="s")

    def climb(trial: optuna.Trial) -> float:
        badness = float(trial.number if trial.number < 6 else trial.number % 2 * 100)
        for rung in range(3):
            trial.report(badness, 2**rung)
            if rung < 2 and trial.should_prune():
                raise optuna.TrialPruned
        return badness

    study.optimize(climb, n_trials=40)
    states = {t.number: t.state for t in study.trials}
    assert states[0] is TrialState.COMPLETE
    assert TrialState.PRUNED in states.values()
    assert all(states[number] is TrialState.COMPLETE for number in range(6, 40, 2))


def test_hyperband_gives_brackets_seeds_of_their_own() -> None:
    study = optuna.create_study(
        sampler=make_sampler("random", 0), pruner=make_pruner("hyperband", 3, 2), study_name="s"
    )

    def climb(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 1)
        trial.should_prune()
        return x

    study.optimize(climb, n_trials=12)
    assert len({t.params["x"] for t in study.trials}) == 12
