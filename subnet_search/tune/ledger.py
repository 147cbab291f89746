"""Which trials of a study count: what is asked for is done once, whatever happens to the workers.

A trial of a worker that died, was interrupted or lost the storage has failed in Optuna's terms. It is queued again with
what it had chosen, and names those that it stands for (`lineage`), so that the failed ones no longer count. Optuna's
`RetryHeartbeatStaleTrialCallback` copies constraints too, which a trial can set only once, and forgets the trial of a
worker that dies between failing and queueing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

DEATHS = 3
"""After how many dead workers a trial is given up: it may be what kills them."""

ROLE, WORKER, LINEAGE, DIED = "role", "worker", "lineage", "died"
"""User attributes of a trial: `search`, `default` or `control`; the process that runs it; the trials that it stands for;
how many workers died of those."""
SETTINGS = "settings"
"""All settings of its run, kept as soon as all are chosen."""
WITHDRAWN, ERROR, STOPPED = "withdrawn", "error", "stopped"
"""Those of a failed one: why it gave way to another; what was wrong with its settings; what its worker was stopped by."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials that count towards the number asked for: finished, running, waiting, and tried in vain."""
    replaced = _replaced(trials)
    return [trial for trial in trials if _counts(trial, replaced)]


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns those of them that nothing more will come of."""
    over = (*FINISHED, TrialState.FAIL)
    lost_ones = {trial.number for trial in lost(trials)}
    return [trial for trial in counted(trials) if trial.state in over and trial.number not in lost_ones]


def lost(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the failed trials that have to be queued again."""
    replaced = _replaced(trials)
    return [
        trial
        for trial in trials
        if trial.state is TrialState.FAIL
        and _counts(trial, replaced)
        and ERROR not in trial.user_attrs
        and _died(trial) < DEATHS
    ]


def position(trials: Sequence[FrozenTrial], number: int) -> int:
    """Returns how many trials that count came before one.

    As storages number trials one after the other, of any number of workers that begin one at once, exactly as many
    find a position below the total as there is room for.
    """
    return sum(trial.number < number for trial in counted(trials))


def rival(trials: Sequence[FrozenTrial], number: int) -> FrozenTrial | None:
    """Returns an earlier trial that does the same as one: of the same role, or queued again for the same trial.

    Two workers can queue the same thing at once.
    """
    own = next(trial for trial in trials if trial.number == number)
    parents = lineage(own)[-1:]
    for other in trials:
        if other.number >= number or other.state is TrialState.FAIL:
            continue
        if (role(own) != "search" and role(own) == role(other)) or (parents and parents[0] in lineage(other)):
            return other
    return None


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues a lost trial, with what it had chosen; one that had not chosen everything chooses again, from the start."""
    system = {name: value for name, value in trial.system_attrs.items() if name == "fixed_params"}
    chosen = SETTINGS in trial.user_attrs
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params if chosen else {},
            distributions=trial.distributions if chosen else {},
            user_attrs={ROLE: role(trial), LINEAGE: [*lineage(trial), trial.number], DIED: _died(trial)},
            system_attrs=system,
        )
    )


def role(trial: FrozenTrial) -> str:
    """Returns `search`, `default` or `control`."""
    return str(trial.user_attrs.get(ROLE, "search"))


def lineage(trial: FrozenTrial) -> list[int]:
    """Returns the numbers of the failed trials that a trial stands for, the first begun first."""
    return list(trial.user_attrs.get(LINEAGE, []))


def _died(trial: FrozenTrial) -> int:
    """How many workers died of a failed trial and of those it stood for; to be stopped is not to die."""
    return int(trial.user_attrs.get(DIED, 0)) + (STOPPED not in trial.user_attrs)


def _replaced(trials: Sequence[FrozenTrial]) -> Collection[int]:
    return {number for trial in trials for number in lineage(trial)}


def _counts(trial: FrozenTrial, replaced: Collection[int]) -> bool:
    if trial.state is not TrialState.FAIL:
        return True
    if WITHDRAWN in trial.user_attrs or trial.number in replaced:
        return False
    return ERROR not in trial.user_attrs or role(trial) == "search"
