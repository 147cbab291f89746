"""Which trials count, played through with many workers that die at any time."""

import random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from subnet_search.tune import ledger

DISTRIBUTIONS = {"x": FloatDistribution(0, 1)}


def trial(number: int, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> FrozenTrial:
    made = create_trial(state=state, value=0.0 if state is TrialState.COMPLETE else None, user_attrs=attrs)
    made.number = number
    return made


def test_what_counts_and_what_does_not() -> None:
    fail = TrialState.FAIL
    trials = [
        trial(0),
        trial(1, TrialState.PRUNED),
        trial(2, TrialState.RUNNING),
        trial(3, TrialState.WAITING),
        trial(4, fail, withdrawn="the study is complete without it"),
        trial(5, fail, error="no budget"),
        trial(6, fail, error="no budget", role="default"),
        trial(7, fail),
        trial(8, lineage=[7]),
        trial(9, fail),
        trial(10, fail, died=ledger.DEATHS - 1),
        trial(11, fail, died=ledger.DEATHS - 1, stopped="KeyboardInterrupt"),
    ]
    assert [t.number for t in ledger.counted(trials)] == [0, 1, 2, 3, 5, 8, 9, 10, 11]
    assert [t.number for t in ledger.finished(trials)] == [0, 1, 5, 8, 10]
    assert [t.number for t in ledger.lost(trials)] == [9, 11]
    assert [ledger.position(trials, number) for number in (0, 4, 8, 11)] == [0, 4, 5, 8]


def test_what_is_queued_again_keeps_its_choice_and_nothing_else() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"y": 2.0}, user_attrs={"role": "control"})
    running = study.ask()
    running.suggest_float("x", 0, 1)
    running.set_user_attr("settings", {"members": 2})
    running.set_user_attr("rung_values", [[1.0]])
    running.set_constraint("budget", 1.0)
    study.tell(running, state=TrialState.FAIL)
    ledger.queue_again(study, study.trials[0])
    again = study.trials[1]
    assert again.state is TrialState.WAITING
    assert again.params == study.trials[0].params
    assert again.user_attrs == {"role": "control", "lineage": [0], "died": 1}
    assert again.constraints == {}
    taken = study.ask()
    assert taken.suggest_float("x", 0, 1) == study.trials[0].params["x"]
    assert taken.suggest_float("y", 0, 9) == 2.0
    assert ledger.lost(study.trials) == []


def test_one_that_had_not_chosen_everything_chooses_again() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"y": 2.0})
    study.ask().suggest_float("x", 0, 1)
    study.tell(0, state=TrialState.FAIL)
    ledger.queue_again(study, study.trials[0])
    assert study.trials[1].params == {}
    assert study.ask().suggest_float("y", 0, 9) == 2.0


def test_a_trial_that_kills_its_workers_is_given_up() -> None:
    study = optuna.create_study()
    study.ask()
    for number in range(ledger.DEATHS):
        study.tell(number, state=TrialState.FAIL)
        for lost in ledger.lost(study.trials):
            ledger.queue_again(study, lost)
            study.ask()
    assert len(study.trials) == ledger.DEATHS
    assert [t.number for t in ledger.finished(study.trials)] == [ledger.DEATHS - 1]


def test_of_two_that_do_the_same_the_later_gives_way() -> None:
    running, waiting = TrialState.RUNNING, TrialState.WAITING
    trials = [
        trial(0, role="default"),
        trial(1, running, role="default"),
        trial(2, TrialState.FAIL),
        trial(3, running, lineage=[2]),
        trial(4, waiting, lineage=[2]),
        trial(5, TrialState.FAIL, role="control"),
        trial(6, running, role="control"),
        trial(7, running),
    ]
    rivals = {t.number: ledger.rival(trials, t.number) for t in trials if t.state is not TrialState.FAIL}
    assert {number: rival.number for number, rival in rivals.items() if rival} == {1: 0, 4: 3}


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), total=st.integers(1, 12), workers=st.integers(1, 5), deaths=st.integers(0, 10))
def test_exactly_as_many_are_done_as_were_asked_for_whoever_dies(seed, total, workers, deaths) -> None:
    """Plays the workers' rules, one step at a time in any order: begin, check the place, finish, die, heal."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    study.enqueue_trial({"x": 0.5}, user_attrs={"role": "default"})
    at_work: dict[int, tuple[optuna.Trial, bool]] = {}
    for _ in range(4000):
        trials = study.get_trials(deepcopy=False)
        if len(ledger.finished(trials)) >= total and not at_work:
            break
        worker = draw.randrange(workers)
        if worker not in at_work:
            lost = ledger.lost(trials)
            if lost and draw.random() < 0.7:
                ledger.queue_again(study, lost[0])
            begun = sum(t.state is not TrialState.WAITING for t in ledger.counted(trials))
            if begun < total:  # what the worker saw before others queued or began anything
                at_work[worker] = (study.ask(), False)
            continue
        begun_trial, admitted = at_work[worker]
        if deaths and draw.random() < 0.2:
            deaths -= 1
            study.tell(begun_trial, state=TrialState.FAIL)
            del at_work[worker]
        elif not admitted:
            place = ledger.position(trials, begun_trial.number)
            if place >= total or ledger.rival(trials, begun_trial.number):
                begun_trial.set_user_attr(ledger.WITHDRAWN, "no room")
                study.tell(begun_trial, state=TrialState.FAIL)
                del at_work[worker]
            else:
                begun_trial.suggest_float("x", 0, 1)
                at_work[worker] = (begun_trial, True)
        else:
            study.tell(begun_trial, 1.0)
            del at_work[worker]
    done = ledger.finished(study.trials)
    assert len(done) == total
    assert len(ledger.counted(study.trials)) == total
    assert sum(ledger.role(t) == "default" for t in done) == 1
    roots = [ledger.lineage(t)[0] if ledger.lineage(t) else t.number for t in done]
    assert len(set(roots)) == total  # none is done twice
    given_up = [t for t in done if t.state is TrialState.FAIL]
    assert all(len(ledger.lineage(t)) == ledger.DEATHS - 1 for t in given_up)


def test_a_sampler_that_is_asked_for_the_same_place_draws_the_same() -> None:
    from subnet_search.tune.sampler import make_sampler

    first, second = (optuna.create_study(sampler=make_sampler("random", 3)) for _ in range(2))
    params = [first.ask({"x": DISTRIBUTIONS["x"]}).params for _ in range(3)]
    for _ in range(2):  # a worker is killed, and its trial taken up by the next
        second.ask({"x": DISTRIBUTIONS["x"]})
        second.tell(len(second.trials) - 1, state=TrialState.FAIL)
        ledger.queue_again(second, second.trials[-1])
    assert [second.ask({"x": DISTRIBUTIONS["x"]}).params for _ in range(3)] == params
    assert params[0] != params[1]


@pytest.fixture(autouse=True)
def as_loud_as_before() -> Any:
    level = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(level)
