"""What a study has come to, for a terminal."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from subnet_search.tune import ledger


def study_table(study: optuna.Study) -> Table:
    """Returns the front of a study, and what it has to be better than.

    Args:
        study: A study of `subnet-search tune`.

    Returns:
        A row for each trial on the front, in the order of the first objective, and for the job's own settings and the
        control where they are not on it.
    """
    names = study.user_attrs["objectives"]
    trials = study.get_trials(deepcopy=False)
    ended = ledger.finished(trials)
    full = [t for t in ended if t.state is TrialState.COMPLETE and all(value <= 0 for value in t.constraints.values())]
    front = {trial.number for trial in study.best_trials}
    shown = [trial for trial in full if trial.number in front or ledger.role(trial) != "search"]
    title = f"study {study.study_name}: {len(ended)} trials, {len(full)} of them in full and affordable"
    table = Table(title=title, caption="on the validation images")
    for name in ("trial", *names, "settings"):
        table.add_column(name, justify="left" if name == "settings" else "right")
    for trial in sorted(shown, key=lambda trial: (trial.number not in front, trial.values)):
        values = [f"{value:.4f}" for value in trial.values]
        table.add_row(str(trial.number), *values, _settings(trial) + ("" if trial.number in front else " (beaten)"))
    return table


def _settings(trial: FrozenTrial) -> str:
    """What was searched, as `members=4 budget=1.5`; the name of what was given."""
    chosen = (
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.params.items()
    )
    given = {"default": "the job's own", "control": "the job's own, with random masks"}
    return given.get(ledger.role(trial)) or " ".join(chosen)
