"""The report of a study, from its front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from subnet_search.data import source_name
from subnet_search.plots.page import NARROW, WIDTH
from subnet_search.provenance import library_versions
from subnet_search.report import Drawing, StudyContent, TrialLine, write_study_report
from subnet_search.settings import from_dict
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.front import Front
from subnet_search.tune.objectives import OBJECTIVES
from subnet_search.tune.pictures import front_figure, volume_figure


def report_front(front: Front, config: TuneConfig) -> Path:
    """Writes `report.html` into the folder of a study, with its figures and their data in `report`.

    Args:
        front: What the study has come to.
        config: Settings of the study, of which the folder and the kind of storage are taken.

    Returns:
        The page: one file that needs no other and no network.

    Raises:
        SubnetSearchError: where it cannot be written.
    """
    points = front.points
    best = {point.number for point in front.front}
    trials = [
        TrialLine(point.number, point.role, point.values, point.used, point.settings_in_words, point.number in best)
        for point in points.full
    ]
    kept = from_dict(TuneConfig, dict(points.config), f"study {points.study}")
    content = StudyContent(
        title=f"{kept.network.backbone} on {source_name(kept.images.data)}",
        lower=points.lower,
        labels={name: OBJECTIVES[name].short if name in OBJECTIVES else name for name in points.lower},
        trials=trials,
        dense={name: points.figure(points.dense, name) for name in points.lower},
        counts=points.counts(),
        volume=front.volumes[-1] if front.volumes else 0.0,
        importances=front.importances.of,
        note=front.importances.note,
        drawings=_drawings(front),
        config=kept,
        stored=config.storage is not None,
        versions=library_versions(),
    )
    return write_study_report(config.out, content)


def _drawings(front: Front) -> list[Drawing]:
    points = front.points
    names = tuple(points.lower)
    chosen = "; ".join(
        f"trial {point.number}: " + ", ".join(f"{name} {point.values[name]:.3g}" for name in names)
        for point in front.front[:10]
    )
    best = {point.number for point in front.front}
    rows = [
        {"trial": point.number, "role": point.role, "front": int(point.number in best), **point.values}
        for point in points.full
    ]
    end = f"{front.volumes[-1]:.3f} after {len(front.volumes)} trials" if front.volumes else "none"
    volumes = [{"finished_trials": k + 1, "hypervolume": v} for k, v in enumerate(front.volumes)]
    return [
        *_drawing(
            lambda width: front_figure(points, width),
            "front",
            "What can be had at once?",
            "Filled points are beaten by no other; colour is the third objective.",
            f"Front of {len(front.front)} of {len(rows)} trials in full. {chosen}.",
            rows,
            paper=True,
        ),
        *_drawing(
            lambda width: volume_figure({points.study: points}, width),
            "hypervolume",
            "Was it worth going on?",
            "How much of what could be had is covered after each trial; where the line is flat, more trials gave nothing.",
            f"Hypervolume over trials: {end}.",
            volumes,
        ),
    ]


def _drawing(
    draw: Callable[[float], Figure | None],
    name: str,
    title: str,
    words: str,
    alt: str,
    data: Sequence[Mapping[str, Any]],
    *,
    paper: bool = False,
) -> list[Drawing]:
    """A figure for a desk and for a phone; none where there is nothing to draw."""
    wide = draw(WIDTH)
    return [] if wide is None else [Drawing(name, title, words, alt, wide, data, draw(NARROW), paper)]
