"""What a study has found so far: its finished trials as points, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import TrialState

from subnet_search.errors import SubnetSearchError
from subnet_search.tune import ledger
from subnet_search.tune.ladder import non_dominated_ranks
from subnet_search.tune.objectives import OBJECTIVES
from subnet_search.tune.space import STAGES

FULL = 1.0
"""The fidelity of a trial that was not stopped early."""


@dataclass(frozen=True)
class Point:
    """A finished trial.

    Attributes:
        number: Its number in the study.
        role: `search`, or why it was enqueued: `default` for the hand-set settings, `control` for masks that are not
            searched.
        fidelity: How far it was trained, in [0, 1]; 1 is in full.
        feasible: Whether it meets every constraint. One that was stopped early does not.
        params: What the sampler chose; `used` is what came of it.
        values: Objective → its value, on the validation images.
        metrics: All figures, on the validation images; absent ones are None.
        settings: All settings of its run, as JSON values.
        artifact: Identifier of its masks in the store of the study; None where they were not kept.
        seconds: What it took; None where that was not kept.
    """

    number: int
    role: str
    fidelity: float
    feasible: bool
    params: Mapping[str, Any]
    values: Mapping[str, float]
    metrics: Mapping[str, float | None]
    settings: Mapping[str, Any]
    artifact: str | None
    seconds: float | None

    @property
    def used(self) -> dict[str, Any]:
        """What the sampler chose, as the trial had it: a trunk or budget that leaves no room is another there."""
        return {name: self._used(name) for name in self.params}

    @property
    def settings_in_words(self) -> dict[str, str]:
        """What the trial had, with what was asked for where that is something else: `0.27 (0.48 asked)`."""
        words = {}
        for name, asked in self.params.items():
            used = self._used(name)
            words[name] = _short(used) + (f" ({_short(asked)} asked)" if used != asked else "")
        return words

    def _used(self, name: str) -> Any:
        stage, setting = STAGES.get(name, (None, name))
        settings = self.settings if stage is None else self.settings.get(stage, {})
        return settings.get(setting, self.params[name])

    @property
    def full(self) -> bool:
        """Whether it was trained in full and meets every constraint: only such points can be compared."""
        return self.feasible and self.fidelity >= FULL


@dataclass(frozen=True)
class Points:
    """What a study has found so far.

    Attributes:
        study: Name of the study.
        lower: Objective → whether lower is better, in the order of the study.
        config: Settings of the study, as JSON values.
        dense: Figures of the dense network, on the validation images too.
        points: The finished trials in the order of their numbers.
        failed: Number of trials that came to nothing: their settings do not go together, or the training diverged.
    """

    study: str
    lower: Mapping[str, bool]
    config: Mapping[str, Any]
    dense: Mapping[str, float | None]
    points: tuple[Point, ...]
    failed: int

    @property
    def full(self) -> tuple[Point, ...]:
        """The points that can be compared."""
        return tuple(point for point in self.points if point.full)

    def counts(self) -> dict[str, int]:
        """Returns how many trials there are of each kind; all but `failed` add up to the points."""
        short = sum(point.fidelity < FULL for point in self.points)
        beyond = len(self.points) - len(self.full) - short
        return {"full": len(self.full), "stopped_early": short, "infeasible": beyond, "failed": self.failed}

    def losses(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """Returns the objectives of points, `[point, objective]`, turned so that lower is better in all."""
        signs = {name: 1.0 if lower else -1.0 for name, lower in self.lower.items()}
        rows = [[sign * point.values[name] for name, sign in signs.items()] for point in points]
        return np.array(rows, dtype=float).reshape(len(points), len(signs))

    def front(self) -> tuple[Point, ...]:
        """Returns the points in full that no other beats in one objective without being worse in another.

        Points with the same objectives are all on it. The best in the first objective stands first.
        """
        full = self.full
        if not full:
            return ()
        losses = self.losses(full)
        best = np.flatnonzero(non_dominated_ranks(losses) == 0)
        return tuple(full[k] for k in sorted(best, key=lambda k: (*losses[k], full[k].number)))

    def figure(self, metrics: Mapping[str, float | None], name: str) -> float | None:
        """Returns an objective, of this study or not, or a metric; None where it is absent.

        Args:
            metrics: Figures of a trial or of the dense network.
            name: Name of the objective or metric.
        """
        if name not in OBJECTIVES:
            return metrics.get(name)
        ood = (self.config.get("choose_ood") or "").partition("=")[0]
        try:
            return OBJECTIVES[name].read(metrics, ood)
        except KeyError:  # there were no OOD images to choose by
            return None


def read_points(study: optuna.Study) -> Points:
    """Reads the finished trials of a study.

    Args:
        study: A study of `subnet-search tune`.

    Returns:
        Its points.

    Raises:
        SubnetSearchError: where it is no study of this tool.
    """
    notes = study.user_attrs
    names = notes.get("objectives")
    if not isinstance(names, list) or len(names) != len(study.directions):
        raise SubnetSearchError(
            f"study {study.study_name!r} has {len(study.directions)} objectives and says that they are {names!r}; "
            "expected a study that `subnet-search tune` has made"
        )
    lower = {
        str(name): direction is StudyDirection.MINIMIZE for name, direction in zip(names, study.directions, strict=True)
    }
    finished = ledger.finished(study.get_trials(deepcopy=False))
    return Points(
        study=study.study_name,
        lower=lower,
        config=notes.get("config") or {},
        dense=notes.get("dense") or {},
        points=tuple(_point(trial, lower) for trial in finished if trial.state is not TrialState.FAIL),
        failed=sum(trial.state is TrialState.FAIL for trial in finished),
    )


def _point(trial: optuna.trial.FrozenTrial, lower: Mapping[str, bool]) -> Point:
    notes = trial.user_attrs
    missing = [name for name in ("settings", "metrics", "fidelity", "rung_values") if name not in notes]
    if missing:
        raise SubnetSearchError(
            f"trial {trial.number} lacks {', '.join(missing)}; expected a trial that `subnet-search tune` has made"
        )
    values = notes["rung_values"][-1]  # where a pruner stopped it, Optuna keeps no values
    return Point(
        number=trial.number,
        role=ledger.role(trial),
        fidelity=float(notes["fidelity"]),
        feasible=trial.state is TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values()),
        params=dict(trial.params),
        values=dict(zip(lower, values, strict=True)),
        metrics=notes["metrics"],
        settings=notes["settings"],
        artifact=notes.get("artifact"),
        seconds=notes.get("seconds"),
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
