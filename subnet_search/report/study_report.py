"""The report of a study: which accuracy, at which independence, at which cost, and which settings give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnet_search.report.command import command_of, settings_of
from subnet_search.report.page import Drawing, Page, Section, Table, Tile, Verdict
from subnet_search.report.wording import listed, percent
from subnet_search.report.write import write_page

_SHARES = ("error", "ece", "ood_auroc")


@dataclass(frozen=True)
class TrialLine:
    """A trial of a study.

    Attributes:
        number: Its number.
        role: `search`, or why it was enqueued: `default` or `control`.
        values: Objective → its value.
        params: What was searched, as the trial had it.
        words: The same in words, with what was asked for where that is something else.
        front: Whether no other beats it.
    """

    number: int
    role: str
    values: Mapping[str, float]
    params: Mapping[str, Any]
    words: Mapping[str, str]
    front: bool


@dataclass(frozen=True)
class StudyContent:
    """What a study has come to.

    Attributes:
        title: Network and data.
        lower: Objective → whether lower is better.
        labels: Objective → what it is, in words.
        trials: The trials in full that meet all constraints.
        dense: Objective → figure of the dense network; None where it has none.
        counts: Kind of trial → how many there are.
        volume: Hypervolume of the front, in [0, 1].
        importances: Objective → parameter → its share; empty where there are too few trials.
        note: How the importances were computed, or why they were not.
        drawings: The front, and the hypervolume over trials, as far as there is something to draw.
        config: All settings, a dataclass, without addresses that may hold a password.
        stored: Whether the study is kept in a database, whose address the command cannot name.
        versions: Library → version.
    """

    title: str
    lower: Mapping[str, bool]
    labels: Mapping[str, str]
    trials: Sequence[TrialLine]
    dense: Mapping[str, float | None]
    counts: Mapping[str, int]
    volume: float
    importances: Mapping[str, Mapping[str, float]]
    note: str
    drawings: Sequence[Drawing]
    config: Any
    stored: bool
    versions: Mapping[str, str]

    @property
    def front(self) -> list[TrialLine]:
        """The trials that no other beats, the best in the first objective first."""
        first, lower = next(iter(self.lower.items()))
        best = [trial for trial in self.trials if trial.front]
        return sorted(best, key=lambda trial: trial.values[first] if lower else -trial.values[first])


def write(path: Path, study: StudyContent) -> Path:
    """Writes the report of a study; see `subnet_search.report.write_study_report`."""
    counts = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in study.counts.items() if n)
    note = "The study is kept in a database: give its address with --storage." if study.stored else ""
    page = Page(
        title=f"{study.title}: what can be had by choosing the settings",
        facts=[
            listed(list(study.labels.values())),
            f"trials: {counts or 'none'}",
            "figures of the validation images",
            "one seed each",
        ],
        lead=_lead(study),
        tiles=[_tile(study, name) for name in study.lower] if study.trials else [],
        sections=_sections(study),
        command=command_of("tune", study.config),
        command_note=note,
        settings=settings_of(study.config),
        versions=study.versions,
    )
    return write_page(page, path)


def _lead(study: StudyContent) -> str:
    front = study.front
    if not front:
        return "No trial has been trained in full yet, so there is nothing to choose from."
    text = (
        f"{len(front)} of {len(study.trials)} trials in full are beaten by no other in all objectives at once: these are "
        f"the choices. Together they cover {percent(study.volume)} of what could be had."
    )
    for trial in study.trials:
        if trial.role != "search":
            what = "The hand-set default" if trial.role == "default" else "The control with random masks"
            text += f" {what} (trial {trial.number}) is {'one of them' if trial.front else 'beaten'}."
    return text


def _tile(study: StudyContent, name: str) -> Tile:
    """The best that can be had of one objective, whatever the others cost."""
    lower = study.lower[name]
    best = (min if lower else max)(study.front, key=lambda trial: trial.values[name])
    default = next((trial for trial in study.trials if trial.role == "default"), None)
    known = {"dense": study.dense.get(name), "default": default.values[name] if default else None}
    values = {what: _written(name, value) for what, value in known.items() if value is not None}
    values["best"] = _written(name, best.values[name])
    verdict: Verdict = "even" if default is None or best.values[name] == default.values[name] else "better"
    direction = "Lower" if lower else "Higher"
    words = f"{direction} is better. The best is what can be had where nothing else counts."
    label = study.labels[name]
    return Tile(label[0].upper() + label[1:], words, values, verdict, f"trial {best.number}")


def _written(name: str, value: float) -> str:
    if name == "macs":
        return f"{value:.2f}\N{NO-BREAK SPACE}×"
    return percent(value, 1) if name in _SHARES else f"{value:.3f}"


def _sections(study: StudyContent) -> list[Section]:
    names = list(study.lower)
    rows = [
        [
            f"{trial.number}" + ("" if trial.role == "search" else f" ({trial.role})"),
            *(_written(name, trial.values[name]) for name in names),
            " ".join(f"{key}={words}" for key, words in trial.words.items()),
        ]
        for trial in study.front
    ]
    searched = dict.fromkeys(key for trial in study.front for key in trial.params)
    figures = [
        {
            "trial": trial.number,
            "role": trial.role,
            **{name: trial.values[name] for name in names},
            **{f"params/{key}": trial.params.get(key) for key in searched},
        }
        for trial in study.front
    ]
    front = Table(
        "The trials that no other beats, the best in the first objective first; MACs relative to the dense network",
        ["trial", *names, "settings"],
        rows,
        name="front-trials",
        data=figures,
    )
    words = (
        "Each point is a trial. Choose one on the front by what counts for you, and make it with subnet-search pick."
    )
    sections = [Section("front", "What can be chosen from?", words, study.drawings, [front] if rows else [])]
    if study.importances:
        params = list(dict.fromkeys(key for of in study.importances.values() for key in of))
        shares = [
            [key, *(percent(study.importances[name].get(key, 0.0)) for name in study.importances)] for key in params
        ]
        tables = [
            Table(
                f"Importance of each setting, {study.note}",
                ["setting", *study.importances],
                shares,
                name="importances",
                data=[
                    {"setting": key, **{n: of.get(key, 0.0) for n, of in study.importances.items()}} for key in params
                ],
            )
        ]
        missing = []
    else:
        tables, missing = [], [f"The importance of the settings is not known: {study.note}."]
    return [*sections, Section("importance", "Which settings decide?", tables=tables, missing=missing)]
