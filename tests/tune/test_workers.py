"""Several processes that share a study through a journal: all of it is done once, and the dead are replaced."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

import subnet_search
import subnet_search.tune.work as work
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.run_folder import RunFolder
from subnet_search.search import BudgetConfig
from subnet_search.tune import SpaceConfig, TuneConfig, ledger
from subnet_search.tune.liveness import this_process
from subnet_search.tune.study import read_study

LONG = {
    "finetune": FinetuneConfig(epochs=4, batch_size=16, precision="fp32"),
    "rungs": (1.0,),
    "space": SpaceConfig(names=("budget", "lambda_overlap"), budget=(1.0, 1.9)),
}


def complete(config: TuneConfig, total: int) -> optuna.Study:
    """Checks that all was done exactly once, and that what it left is whole."""
    study = read_study(config)
    done = ledger.finished(study.trials)
    assert len(done) == len(ledger.counted(study.trials)) == total
    assert {t.state for t in done} <= {TrialState.COMPLETE}
    assert Counter(t.user_attrs["role"] for t in done) == {"default": 1, "control": 1, "search": total - 2}
    roots = [[*ledger.lineage(t), t.number][0] for t in done]
    assert len(set(roots)) == total
    for trial in study.trials:
        assert trial in done or trial.state is TrialState.FAIL
    for trial in done:
        for name in ("artifact", "artifact_metrics"):
            assert (config.out / "artifacts" / trial.user_attrs[name]).exists()
    for path in (config.out / "artifacts").iterdir():
        content = path.read_bytes()
        if content.startswith(b"{\n"):
            json.loads(content)
        else:
            copy = config.out / "masks.safetensors"
            copy.write_bytes(content)
            assert RunFolder(config.out).masks() is not None
    return study


def running(config: TuneConfig, number: int) -> dict[int, dict[str, Any]]:
    """The workers that have put their name to a running trial and chosen its settings, once there are so many."""
    if not (config.out / "journal.log").exists():
        return {}
    try:
        trials = read_study(config).get_trials(states=(TrialState.RUNNING,))
    except SubnetSearchError:
        return {}
    found = {t.number: t.user_attrs["worker"] for t in trials if {"worker", "settings"} <= t.user_attrs.keys()}
    return found if len(found) >= number else {}


def test_two_workers_share_a_study(tiny, run, tmp_path) -> None:
    config = tiny(tmp_path / "s", trials=5, workers=2, **LONG)
    study = run(config)
    assert len(ledger.finished(study.trials)) == 5
    pids = {t.user_attrs["worker"]["pid"] for t in complete(config, 5).trials}
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_workers_that_join_may_die_at_any_time(tiny, start, until, tmp_path) -> None:
    config = tiny(tmp_path / "s", trials=7, **LONG)
    processes = [start(config, pause=0.05) for _ in range(3)]
    victims = until(lambda: running(config, 2))
    killed = sorted(victims)[:2]
    for number in killed:
        os.kill(victims[number]["pid"], signal.SIGKILL)
    ends = Counter(process.wait(timeout=600) for process in processes)
    assert ends == {-signal.SIGKILL: 2, 0: 1}
    study = complete(config, 7)
    replaced = {number for t in study.trials for number in ledger.lineage(t)}
    assert set(killed) <= replaced


def test_a_study_whose_only_worker_was_killed_is_taken_up(tiny, run, start, until, tmp_path) -> None:
    config = tiny(tmp_path / "s", trials=3, **LONG)
    process = start(config, pause=0.2)
    until(lambda: running(config, 1))
    until(lambda: list(config.out.rglob("checkpoint.pt")))
    process.kill()
    process.wait()
    undisturbed = run(replace(config, out=tmp_path / "undisturbed", study_name="s"))
    study = run(config)
    values = [sorted((t.params["budget"], t.values) for t in ledger.finished(s.trials)) for s in (study, undisturbed)]
    assert values[0] == values[1]
    complete(config, 3)


def test_ctrl_c_stops_all_workers_and_loses_nothing(tiny, start, until, tmp_path) -> None:
    config = tiny(tmp_path / "s", trials=4, workers=2, **LONG)
    long = replace(config, finetune=replace(LONG["finetune"], epochs=3000))
    process = start(long)
    found = until(lambda: running(config, 2))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130
    for worker in found.values():
        assert not Path(f"/proc/{worker['pid']}").exists()
    trials = read_study(config).trials
    assert {t.user_attrs.get("stopped") for t in trials if t.state is TrialState.FAIL} == {"KeyboardInterrupt"}
    assert {t.number for t in ledger.lost(trials)} == set(found)


def test_workers_end_with_the_process_that_started_them(tiny, start, until, tmp_path) -> None:
    config = tiny(tmp_path / "s", trials=4, workers=2, **{**LONG, "finetune": replace(LONG["finetune"], epochs=3000)})
    process = start(config)
    found = until(lambda: running(config, 2))
    process.kill()
    process.wait()
    until(lambda: not any(Path(f"/proc/{worker['pid']}").exists() for worker in found.values()), 60.0)


def test_what_a_worker_finds_wrong_is_said_by_the_one_that_started_it(tiny, run, tmp_path) -> None:
    config = tiny(tmp_path / "s", workers=2, budget=BudgetConfig(budget=1e-6))
    with pytest.raises(SubnetSearchError, match=r"the job's own settings .*cannot be met with 2 members"):
        run(config)


def test_trials_without_a_name_are_given_up_after_a_while(monkeypatch) -> None:
    study = optuna.create_study()
    study.ask()
    other = study.ask()
    other.set_user_attr("worker", {"host": "elsewhere", "pid": 1, "started": "1"})
    seen: dict[int, float] = {}
    work.heal(study, seen, grace=60.0)
    assert [t.state for t in study.trials] == [TrialState.RUNNING] * 2
    later = time.monotonic() + 61.0
    monkeypatch.setattr(work.time, "monotonic", lambda: later)
    work.heal(study, seen, grace=60.0)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert study.trials[2].user_attrs["lineage"] == [0]


def test_a_trial_that_this_process_left_behind_is_run_again() -> None:
    study = optuna.create_study()
    study.ask().set_user_attr("worker", this_process())  # the storage went away before it could be ended
    work.heal(study, {}, grace=60.0)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_two_workers_may_heal_the_same_trial_at_once(monkeypatch) -> None:
    study = optuna.create_study()
    study.ask().set_user_attr("worker", this_process())
    other = optuna.load_study(study_name=study.study_name, storage=study._storage)

    def tell(number: int, state: TrialState, **_: object) -> None:
        other.tell(number, state=state)  # between Optuna's look at the state and what this worker says of it
        raise UpdateFinishedTrialError

    monkeypatch.setattr(study, "tell", tell)
    work.heal(study, {}, grace=60.0)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_worker_does_not_wait_for_machines_that_it_knows_nothing_of(tiny, run, tmp_path, caplog) -> None:
    config = tiny(tmp_path / "s", trials=2, **LONG)
    run(replace(config, trials=1))
    study = read_study(config)
    study.ask().set_user_attr("worker", {"host": "elsewhere", "pid": 1, "started": "1"})
    with caplog.at_level("INFO", logger="subnet_search"):
        run(config)
    assert "1 trials are still run on other machines" in caplog.text


def test_a_trial_that_was_taken_over_is_left_to_the_other(tiny, run, tmp_path, monkeypatch, caplog) -> None:
    config = tiny(tmp_path / "s", trials=3, **LONG)
    begun = []

    def slow(trial, _):
        begun.append(trial.number)
        if len(begun) == 2:  # meanwhile another worker takes this one for dead
            other = read_study(config)
            other.tell(trial.number, state=TrialState.FAIL)
        trial.set_user_attr("settings", {})
        return [1.0, 1.0, 1.0]

    monkeypatch.setattr(work, "run_trial", slow)
    study = run(config)
    assert "was taken over by another worker" in caplog.text
    assert len(ledger.finished(study.trials)) == 3
    assert len(begun) == 4


def test_a_storage_that_fails_now_and_then_costs_a_trial_at_hand(tiny, run, tmp_path, monkeypatch) -> None:
    config = tiny(tmp_path / "s", trials=3, **LONG)
    begun = []

    def flaky(trial, _):
        begun.append(trial.number)
        if len(begun) in (1, 3):
            raise optuna.exceptions.StorageInternalError("commit")
        return [1.0, 1.0, 1.0]

    monkeypatch.setattr(work, "run_trial", flaky)
    study = run(config)
    assert len(ledger.finished(study.trials)) == 3
    assert len(begun) == 5
    assert {t.user_attrs.get("stopped") for t in study.trials if t.state is TrialState.FAIL} == {"StorageInternalError"}

    def away(*_):
        raise optuna.exceptions.StorageInternalError("commit")

    monkeypatch.setattr(work, "run_trial", away)
    with pytest.raises(SubnetSearchError, match=r"cannot be used .*give the same command again"):
        run(replace(config, trials=9))


def test_a_fault_of_the_program_is_no_error_of_the_user(tiny, run, tmp_path, monkeypatch) -> None:
    config = tiny(tmp_path / "s", trials=2, **LONG)

    def broken(*_):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(work, "run_trial", broken)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        run(config)
    monkeypatch.undo()
    assert len(ledger.finished(run(config).trials)) == 2


def test_a_script_that_every_worker_would_run_again_is_told_of_the_guard(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from subnet_search.tune import TuneConfig, tune\n"
        f"tune(TuneConfig(out={str(tmp_path / 'study')!r}, trials=2, workers=2))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(subnet_search.__file__).parents[1])}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=600)
    last = ended.stderr.strip().splitlines()[-1]
    assert "the workers ended with 1, 1 before the study was complete" in last
    assert 'calls tune outside of `if __name__ == "__main__":`' in last
