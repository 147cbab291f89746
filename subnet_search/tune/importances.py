"""Which settings decide an objective: Optuna's own evaluator, on the trials that can be compared.

Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces": how much
the best trials differ in a parameter from all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from subnet_search.tune.points import FULL
from subnet_search.tune.study import quiet

BEST = 5
"""Trials that must be among the best, for the evaluator to be stable, as its documentation says."""
SHARE = 0.25
"""The greatest share of the trials that are called the best."""
FEWEST = int(BEST / SHARE)


@dataclass(frozen=True)
class Importances:
    """What the objectives depend on.

    Attributes:
        of: Objective → parameter → its share of the importance, from the greatest down; empty with too few trials.
        trials: Number of trials in full that they come from.
        note: How they were computed, or why they were not.
    """

    of: Mapping[str, Mapping[str, float]]
    trials: int
    note: str


def parameter_importances(study: optuna.Study, objectives: Mapping[str, bool]) -> Importances:
    """Computes the importance of every parameter for every objective.

    Trials that stopped early are left out: what they lack is training, whatever their parameters.

    Args:
        study: The study.
        objectives: Objective → whether lower is better, in the order of the study.

    Returns:
        The importances; none of fewer than 20 trials in full.
    """
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("fidelity", 0.0) >= FULL
    ]
    if len(trials) < FEWEST:
        return Importances({}, len(trials), f"too few: {len(trials)} trials in full, expected at least {FEWEST}")
    share = max(0.1, BEST / len(trials))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    full = _copy(trials, study)
    found: dict[str, dict[str, float]] = {}
    said: dict[str, None] = {}
    for index, (name, lower) in enumerate(objectives.items()):
        sign = 1.0 if lower else -1.0

        def loss(trial: FrozenTrial, index: int = index, sign: float = sign) -> float:
            return sign * float(trial.values[index])

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found[name] = {
                k: float(v) for k, v in get_param_importances(full, evaluator=evaluator, target=loss).items()
            }
        said |= dict.fromkeys(words for warning in caught if "`target`" not in (words := str(warning.message)))
    note = f"PED-ANOVA: what sets the best {share:.0%} of {len(trials)} trials in full apart from all of them"
    return Importances(found, len(trials), " ".join([f"{note}.", *said]))


def _copy(trials: list[FrozenTrial], study: optuna.Study) -> optuna.Study:
    """A study in memory of some trials: the evaluator looks at all that there are."""
    with quiet():
        copy = optuna.create_study(directions=study.directions)
    copy.add_trials(trials)
    return copy
