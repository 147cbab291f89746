"""What comes out of a study: the front as a table and a picture, what it is worth, and what decides it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure

from subnet_search.files import write_bytes, write_json, write_text
from subnet_search.plots.front import Axis, Mark
from subnet_search.plots.front import front as draw_front
from subnet_search.plots.hypervolume import Course
from subnet_search.plots.hypervolume import hypervolume as draw_hypervolume
from subnet_search.plots.page import FORMATS, rendered
from subnet_search.tune.importances import Importances, parameter_importances
from subnet_search.tune.points import FULL, Point, Points, read_points
from subnet_search.tune.reference import Reference, reference_of

TABLE, JSON, FIGURES = "front.csv", "front.json", "figures"

LABELS = {
    "nll": "negative log likelihood, nats",
    "error": "error rate",
    "ece": "expected calibration error",
    "ood_auroc": "OOD detection, AUROC by entropy",
    "error_correlation": "error correlation of the members",
    "mask_iou": "mask IoU of the members",
    "macs": "MACs, relative to the dense network",
}
"""Objective → what a figure calls it."""


@dataclass(frozen=True)
class Front:
    """What a study has come to.

    Attributes:
        points: All finished trials.
        front: Those that no other beats, the best in the first objective first.
        reference: The point from which hypervolumes are measured.
        volumes: Hypervolume after each finished trial, `[trial]`.
        importances: What the objectives depend on.
        files: What was written.
    """

    points: Points
    front: tuple[Point, ...]
    reference: Reference
    volumes: tuple[float, ...]
    importances: Importances
    files: tuple[Path, ...]


def write_front(study: optuna.Study, out: str | Path) -> Front:
    """Writes the front of a study as it is now, each file whole; those of earlier calls are replaced.

    Args:
        study: A study of `subnet-search tune`, finished or not.
        out: Its folder.

    Returns:
        What was written: `front.csv` and `front.json`, and in `figures` the front and the hypervolume over trials, as
        SVG and PNG. Of a study in which no trial was trained in full the front is empty and not drawn.

    Raises:
        SubnetSearchError: where the study is not one of this tool.
    """
    out = Path(out)
    points = read_points(study)
    front = points.front()
    reference = reference_of(points)
    volumes = reference.volumes(points)
    importances = parameter_importances(study, points.lower)
    pictures = {
        "front": _drawn_front(points, front),
        "hypervolume": _drawn_volumes(points, reference, volumes),
    }
    files: dict[Path, bytes] = {}
    for name, figure in pictures.items():
        if figure is not None:
            files |= {out / FIGURES / f"{name}.{kind}": rendered(figure, kind) for kind in FORMATS}
    write_json(out / JSON, _content(points, front, reference, volumes, importances))
    write_text(out / TABLE, _table(tuple(points.lower), front))
    for path, content in files.items():
        write_bytes(path, content)
    return Front(points, front, reference, volumes, importances, (out / TABLE, out / JSON, *files))


def counted(points: Points) -> dict[str, int]:
    """Returns how many trials there are of each kind; all but `failed` add up to the finished ones."""
    short = sum(point.fidelity < FULL for point in points.points)
    return {
        "full": len(points.full),
        "stopped_early": short,
        "infeasible": len(points.points) - len(points.full) - short,
        "failed": points.failed,
    }


def _content(
    points: Points, front: Sequence[Point], reference: Reference, volumes: Sequence[float], importances: Importances
) -> dict[str, Any]:
    content = {
        "study": points.study,
        "objectives": {name: "minimize" if lower else "maximize" for name, lower in points.lower.items()},
        "figures_of": "validation images",
        "fidelity": FULL,
        "trials": counted(points),
        "front": [_entry(point) for point in front],
        "dense": points.dense,
        "hypervolume": {
            "value": volumes[-1] if volumes else 0.0,
            "reference": reference.worst,
            "ideal": reference.best,
            "rule": reference.rule,
        },
        "importances": {"note": importances.note, "trials": importances.trials, "of": importances.of},
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _entry(point: Point) -> dict[str, Any]:
    return {
        "trial": point.number,
        "role": point.role,
        "values": point.values,
        "params": point.params,
        "metrics": point.metrics,
        "settings": point.settings,
        "artifact": point.artifact,
        "seconds": point.seconds,
    }


def _table(objectives: Sequence[str], front: Sequence[Point]) -> str:
    """The front as comma-separated values: one line a point."""
    params = sorted({name for point in front for name in point.params})
    metrics = list(dict.fromkeys(name for point in front for name in point.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = [f"params/{name}" for name in params]
    writer.writerow(["trial", "role", *objectives, *named, *metrics, "artifact", "seconds"])
    for point in front:
        values = [point.values[name] for name in objectives]
        chosen = [point.params.get(name) for name in params]
        figures = [point.metrics.get(name) for name in metrics]
        writer.writerow([point.number, point.role, *values, *chosen, *figures, point.artifact, point.seconds])
    return text.getvalue()


def drawn_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Returns which objectives are drawn across, up and in colour: the cost across, where it is one of them."""
    across = "macs" if "macs" in names else names[1] if len(names) > 1 else names[0]
    return (across, *(name for name in names if name != across))[:3]


def _drawn_front(points: Points, front: Sequence[Point]) -> Figure | None:
    order = drawn_objectives(tuple(points.lower))
    best = {point.number for point in front}
    marks = [
        Mark(
            name=str(point.number) if point.role == "search" else f"{point.role} {point.number}",
            role=point.role,
            values=tuple(point.values[name] for name in order),
            front=point.number in best,
        )
        for point in points.full
    ]
    axes = [Axis(LABELS[name], points.lower[name]) for name in order]
    dense = [points.figure(points.dense, name) for name in order]
    return draw_front(_titled("Front", points), axes, marks, dense, _note(points, front, order))


def _note(points: Points, front: Sequence[Point], order: Sequence[str]) -> str:
    """How many trials are drawn, of what, and what is not drawn."""
    count = counted(points)
    others = {
        "stopped early": count["stopped_early"],
        "over the limit of MACs": count["infeasible"],
        "without a result": count["failed"],
    }
    finished = len(points.points) + points.failed
    parts = [
        f"n = {count['full']} trials at fidelity 1 (all epochs of their settings) of {finished} finished, one seed each; "
        f"figures of the validation images. Numbers are those of the trials on the front (n = {len(front)}).",
        "Not drawn: " + (", ".join(f"{n} {why}" for why, n in others.items() if n) or "none") + ".",
    ]
    beyond = [name for name in points.lower if name not in order]
    if beyond:
        parts.append(f"The front is one of {', '.join(points.lower)}; {', '.join(beyond)} is not drawn.")
    absent = [name for name in order if points.figure(points.dense, name) is None]
    if absent:
        parts.append(f"The dense network has no {' and no '.join(LABELS[name] for name in absent)}.")
    return " ".join(parts)


def _drawn_volumes(points: Points, reference: Reference, volumes: Sequence[float]) -> Figure | None:
    course = Course(points.study, volumes, len(points.full))
    given = replace(points, points=tuple(point for point in points.points if point.role != "search"))
    levels = {"default and control alone": reference.volumes(given)[-1]} if given.full else {}
    note = f"{reference.rule}: {reference.words()}. Trials that were stopped early count as trials, and add no volume."
    return draw_hypervolume(_titled("Hypervolume over trials", points), [course], levels, note)


def _titled(what: str, points: Points) -> str:
    config = points.config
    return f"{what}, study {points.study}: {config['network']['backbone']} on {config['images']['data']}"
