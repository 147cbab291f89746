"""A copy of a study for optuna-dashboard, in which only trials in full can be on the front.

Trials that were stopped early carry a constraint that they do not meet. The dashboard (0.21) does not know constraints of
trials as Optuna 5 keeps them, and shows such trials as the best. In the copy they are what the dashboard calls pruned;
all else, numbers and artifacts included, is as in the study.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from subnet_search.files import write_bytes
from subnet_search.tune.study import quiet


def write_dashboard(study: optuna.Study, path: str | Path) -> None:
    """Writes the journal of a copy of a study, whole; one that is there is replaced.

    Args:
        study: A study of `subnet-search tune`.
        path: The file.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        journal = Path(folder) / "journal.log"
        copy = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=study.study_name,
            directions=study.directions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            copy.set_metric_names(study.user_attrs["objectives"])
        for name, value in study.user_attrs.items():
            copy.set_user_attr(name, value)
        copy.add_trials([_shown(trial) for trial in study.get_trials()])
        write_bytes(path, journal.read_bytes())


def _shown(trial: FrozenTrial) -> FrozenTrial:
    """The trial as the dashboard is to see it."""
    if trial.state is TrialState.COMPLETE and any(value > 0 for value in trial.constraints.values()):
        trial.state, trial.values = TrialState.PRUNED, None
    return trial
