"""What comes out of a study: the front as a table and a picture, what it is worth, and what decides it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from subnet_search.files import write_bytes, write_json, write_text
from subnet_search.plots.page import FORMATS, rendered
from subnet_search.tune.dashboard import write_dashboard
from subnet_search.tune.importances import Importances, parameter_importances
from subnet_search.tune.pictures import front_figure, volume_figure
from subnet_search.tune.points import FULL, Point, Points, read_points
from subnet_search.tune.reference import Reference, reference_of

TABLE, JSON, FIGURES, DASHBOARD = "front.csv", "front.json", "figures", "dashboard.log"


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
        What was written: `front.csv` and `front.json`, a copy of the study for optuna-dashboard (`dashboard.log`), and
        in `figures` the front and the hypervolume over trials, as SVG and PNG. Of a study in which no trial was trained
        in full the front is empty and not drawn.

    Raises:
        SubnetSearchError: where the study is not one of this tool.
    """
    out = Path(out)
    points = read_points(study)
    front, reference = points.front(), reference_of(points)
    volumes = reference.volumes(points)
    importances = parameter_importances(study, points.lower)
    pictures = {
        "front": front_figure(points),
        "hypervolume": volume_figure({points.study: points}),
    }
    files: dict[Path, bytes] = {}
    for name, figure in pictures.items():
        if figure is not None:
            files |= {out / FIGURES / f"{name}.{kind}": rendered(figure, kind) for kind in FORMATS}
    write_json(out / JSON, _content(points, front, reference, volumes, importances))
    write_text(out / TABLE, _table(tuple(points.lower), front))
    for path, content in files.items():
        write_bytes(path, content)
    write_dashboard(study, out / DASHBOARD)
    written = (out / TABLE, out / JSON, out / DASHBOARD, *files)
    return Front(points, front, reference, volumes, importances, written)


def _content(
    points: Points, front: Sequence[Point], reference: Reference, volumes: Sequence[float], importances: Importances
) -> dict[str, Any]:
    content = {
        "study": points.study,
        "objectives": {name: "minimize" if lower else "maximize" for name, lower in points.lower.items()},
        "figures_of": "validation images",
        "fidelity": FULL,
        "trials": points.counts(),
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
        "params": point.used,
        "asked": point.params,
        "metrics": point.metrics,
        "settings": point.settings,
        "artifact": point.artifact,
        "seconds": point.seconds,
    }


def _table(objectives: Sequence[str], front: Sequence[Point]) -> str:
    """The front as comma-separated values: one line a point."""
    used = [point.used for point in front]
    params = sorted({name for settings in used for name in settings})
    metrics = list(dict.fromkeys(name for point in front for name in point.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = [f"params/{name}" for name in params]
    writer.writerow(["trial", "role", *objectives, *named, *metrics, "artifact", "seconds"])
    for point, settings in zip(front, used, strict=True):
        values = [point.values[name] for name in objectives]
        chosen = [settings.get(name) for name in params]
        figures = [point.metrics.get(name) for name in metrics]
        writer.writerow([point.number, point.role, *values, *chosen, *figures, point.artifact, point.seconds])
    return text.getvalue()
