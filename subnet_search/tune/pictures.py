"""The figures of a study: its front, and its hypervolume over trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from subnet_search.data import source_name
from subnet_search.plots.front import Axis, Mark, front
from subnet_search.plots.hypervolume import Course, hypervolume
from subnet_search.plots.page import WIDTH
from subnet_search.tune.objectives import OBJECTIVES
from subnet_search.tune.points import Point, Points
from subnet_search.tune.reference import reference_of


def drawn_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Returns which objectives are drawn across, up and in colour: the cost across, where it is one of them."""
    across = "macs" if "macs" in names else names[1] if len(names) > 1 else names[0]
    return (across, *(name for name in names if name != across))[:3]


def front_figure(points: Points, width: float = WIDTH) -> Figure | None:
    """Draws the trials in full in the plane of two objectives, the third in colour.

    Args:
        points: What a study has found.
        width: Width of the figure in inches.

    Returns:
        The figure; None where there is one objective only, or no trial in full.
    """
    order, best = drawn_objectives(tuple(points.lower)), points.front()
    numbers = {point.number for point in best}
    marks = [
        Mark(
            name=str(point.number) if point.role == "search" else f"{point.role} {point.number}",
            role=point.role,
            values=tuple(point.values[name] for name in order),
            front=point.number in numbers,
        )
        for point in points.full
    ]
    axes = [Axis(OBJECTIVES[name].label, points.lower[name]) for name in order]
    dense = [points.figure(points.dense, name) for name in order]
    return front(_titled("Front", points), axes, marks, dense, _note(points, best, order), width)


def _note(points: Points, best: Sequence[Point], order: Sequence[str]) -> str:
    """How many trials are drawn, of what, and what is not drawn."""
    count = points.counts()
    others = {
        "stopped early": count["stopped_early"],
        "over the limit of MACs": count["infeasible"],
        "without a result": count["failed"],
    }
    finished = len(points.points) + points.failed
    parts = [
        f"Study {points.study}: n = {count['full']} trials at fidelity 1 (all epochs of their settings) of {finished} finished, one seed each; "
        f"figures of the validation images. Numbers are those of the trials on the front (n = {len(best)}).",
        "Not drawn: " + (", ".join(f"{n} {why}" for why, n in others.items() if n) or "none") + ".",
    ]
    beyond = [name for name in points.lower if name not in order]
    if beyond:
        parts.append(f"The front is one of {', '.join(points.lower)}; {', '.join(beyond)} is not drawn.")
    absent = [name for name in order if points.figure(points.dense, name) is None]
    if absent:
        parts.append(f"The dense network has no {' and no '.join(OBJECTIVES[name].label for name in absent)}.")
    return " ".join(parts)


def volume_figure(studies: Mapping[str, Points], width: float = WIDTH) -> Figure | None:
    """Draws the hypervolume over the trials of studies of the same objectives, network and limits.

    Args:
        studies: What the legend calls a study → what it has found.
        width: Width of the figure in inches.

    Returns:
        The figure; None where no trial has finished.
    """
    first = next(iter(studies.values()))
    reference = reference_of(first)
    courses = [Course(name, reference.volumes(points), len(points.full)) for name, points in studies.items()]
    given = replace(first, points=tuple(point for point in first.points if point.role != "search"))
    levels = {"default and control alone": reference.volumes(given)[-1]} if given.full else {}
    note = (
        f"{reference.rule}: {reference.words()}. Trials that were stopped early count as trials, and add no volume; "
        "those in full are at fidelity 1, one seed each, on the validation images."
    )
    return hypervolume(_titled("Hypervolume over trials", first), courses, levels, note, width)


def _titled(what: str, points: Points) -> str:
    config = points.config
    return f"{what}: {config['network']['backbone']} on {source_name(config['images']['data'])}"
