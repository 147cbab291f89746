"""What a worker does: trial after trial, until as many are finished as were asked for."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from rich.progress import Progress

from subnet_search.errors import SubnetSearchError
from subnet_search.tune import ledger
from subnet_search.tune.liveness import runs, this_process
from subnet_search.tune.setup import TuneSetup
from subnet_search.tune.storage import AWAY, explained, reason_of
from subnet_search.tune.study import quiet
from subnet_search.tune.trial import run_trial

log = logging.getLogger("subnet_search")

PAUSE = 0.5
"""Seconds between two looks at what other workers still do."""
FAILURES = 3
"""How often in a row the storage may fail a worker that reaches it again afterwards."""


class GaveWayError(Exception):
    """A trial ends without a result, and the worker goes on: it is not needed, or its settings cannot work."""


@dataclass
class Worker:
    """One process that takes part in a study.

    Attributes:
        study: The study.
        setup: Settings, network and images.
        unclaimed: Running trials that no worker has put its name to → when that was first seen.
        at_hand: Number of the trial that was begun last.
    """

    study: optuna.Study
    setup: TuneSetup
    unclaimed: dict[int, float] = field(default_factory=dict)
    at_hand: int = -1

    def work(self) -> None:
        """Runs trials until the study has as many as were asked for, exactly.

        Trials of workers that died are run again, here too. A worker that finds nothing to begin waits for those that
        run, as one of them may die; of a journal that several machines share, for those of this machine.

        Raises:
            SubnetSearchError: where the storage went away for good, or the job's own settings cannot work.
            KeyboardInterrupt: after the trial at hand was left to be run again.
        """
        failures = 0
        with explained(self.setup.config), quiet(), _young_objects_only():
            while (left := self._left()) != "nothing":
                if left == "others":
                    time.sleep(PAUSE)
                    continue
                try:
                    self._run_one()
                    failures = 0
                except AWAY as problem:
                    failures += 1
                    if failures >= FAILURES:
                        raise
                    log.warning("trial %d is left to be run again: %s", self.at_hand, reason_of(problem))

    def _left(self) -> Literal["trials", "others", "nothing"]:
        """What is left to do: `trials` to begin, `others` to wait for, or `nothing`."""
        heal(self.study, self.unclaimed, 2 * self.setup.config.heartbeat)
        trials, total = self.study.get_trials(deepcopy=False), self.setup.config.trials
        show(self.setup.progress, trials, total)
        if len(ledger.finished(trials)) >= total:
            return "nothing"
        if sum(trial.state is not TrialState.WAITING for trial in ledger.counted(trials)) < total:
            return "trials"
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        if running and not any(self._judged(trial) for trial in running):
            log.info("%d trials are still run on other machines", len(running))
            return "nothing"
        return "others"

    def _judged(self, trial: FrozenTrial) -> bool:
        """Whether it would be noticed here if the worker of a running trial died."""
        process = trial.user_attrs.get(ledger.WORKER)
        return self.setup.config.storage is not None or process is None or runs(process) is not None

    def _run_one(self) -> None:
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(GaveWayError,))
        except SubnetSearchError:
            raise
        except UnboundLocalError as hiding:
            # Optuna 5.0 trips over a variable of its own when the storage is away at the end of a trial
            if isinstance(hiding.__context__, AWAY):
                raise hiding.__context__ from None
            raise
        except (ValueError, UpdateFinishedTrialError):
            # Optuna says so when the storage has given the trial to another worker, taking this one for dead
            if self.study.trials[self.at_hand].state is not TrialState.FAIL:
                raise
            log.warning("trial %d was taken over by another worker", self.at_hand)

    def _objective(self, trial: optuna.Trial) -> list[float]:
        self.at_hand = trial.number
        trial.set_user_attr(ledger.WORKER, this_process())
        role = trial.user_attrs.get(ledger.ROLE, "search")
        trials = self.study.get_trials(deepcopy=False)
        other = ledger.rival(trials, trial.number)
        if other is not None or ledger.position(trials, trial.number) >= self.setup.config.trials:
            reason = "the study is complete without it" if other is None else f"trial {other.number} is the same"
            trial.set_user_attr(ledger.WITHDRAWN, reason)
            raise GaveWayError(reason)
        trial.set_user_attr(ledger.ROLE, role)
        try:
            return run_trial(trial, self.setup)
        except SubnetSearchError as problem:
            trial.set_user_attr(ledger.ERROR, str(problem))
            if role == "search":
                log.warning("trial %d: %s", trial.number, problem)
                raise GaveWayError(str(problem)) from problem
            own = "the job's own settings" if role == "default" else "the job's own settings with control masks"
            raise SubnetSearchError(
                f"{own} cannot be tried, so nothing can be compared with them: {problem}"
            ) from problem
        except (KeyboardInterrupt, *AWAY) as problem:
            with suppress(Exception):
                trial.set_user_attr(ledger.STOPPED, type(problem).__name__)
            raise
        finally:
            self.setup.accelerator.free_memory()  # it holds on to every network that it has prepared


@contextmanager
def _young_objects_only() -> Iterator[None]:
    """While open, collections of garbage leave out all that was there before, which takes longer than a small trial."""
    gc.collect()  # what is garbage already must not be kept
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def heal(study: optuna.Study, unclaimed: dict[int, float], grace: float) -> None:
    """Fails the trials of workers that are dead, and queues again what was lost.

    Args:
        study: The study; the caller runs no trial of it.
        unclaimed: Running trials that no worker has put its name to → when that was first seen; kept up to date.
        grace: Seconds after which such a trial is a dead worker's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    now, own = time.monotonic(), this_process()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get(ledger.WORKER)
        if process is None:
            dead = now - unclaimed.setdefault(trial.number, now) > grace
        else:
            dead = process == own or runs(process) is False
        if dead:
            with suppress(
                UpdateFinishedTrialError
            ):  # another worker may be as quick between Optuna's look and its word
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    for trial in ledger.lost(study.get_trials(deepcopy=False)):
        ledger.queue_again(study, trial)


def show(progress: Progress | None, trials: list[FrozenTrial], total: int) -> None:
    """Shows how many trials are finished, and drops the bars of those that ended."""
    if progress is None:
        return
    done, label = min(total, len(ledger.finished(trials))), "trials"
    mine = [task for task in progress.tasks if task.description == label]
    task = mine[0].id if mine else progress.add_task(label, total=total)
    progress.update(task, completed=done)
    for other in progress.task_ids:
        if other != task:
            progress.remove_task(other)
