"""Names written beside the points of a figure, each with a leader where it stands further off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from subnet_search.plots.labels import GAPS, Array, place_labels
from subnet_search.plots.page import SMALL


@dataclass(frozen=True)
class Name:
    """What stands beside a point.

    Attributes:
        text: The name.
        place: The point, in the units of the axes.
        ink: Colour of the name.
        leader: Colour of the leader.
        aside: By how much the point is drawn further right than it is, in 1/72 inch.
    """

    text: str
    place: tuple[float, float]
    ink: str
    leader: str
    aside: float = 0.0


def write_names(axes: Axes, names: Sequence[Name], marks: Array, corners: Array) -> None:
    """Writes names where they cover neither each other nor what is drawn, as far as there is room.

    Args:
        axes: The axes, with their final limits and scales.
        names: At least one.
        marks: What points take, left, bottom, right and top on the sheet, `[mark, 4]`: first those of the names, in
            their order, then any others.
        corners: Corners of a line of steps that names should not cover, in the units of the axes, `[corner, 2]`.
    """
    page = axes.get_figure(root=True)
    assert isinstance(page, Figure)
    scale = 72 / page.dpi
    texts = [axes.text(0, 0, name.text, size=SMALL) for name in names]
    sizes = np.array([text.get_window_extent().size for text in texts]) * scale + 1.0
    for text in texts:
        text.remove()
    anchors = on_sheet(axes, [name.place for name in names]) + np.outer([name.aside for name in names], [1.0, 0.0])
    turns = on_sheet(axes, corners)
    steps = np.hstack([np.minimum(turns[:-1], turns[1:]) - 1, np.maximum(turns[:-1], turns[1:]) + 1])
    window = np.asarray(axes.get_window_extent().extents) * scale + np.array([2, 2, -2, -2])
    boxes, ends = place_labels(anchors, sizes, window, marks, steps)
    for name, anchor, box, end in zip(names, anchors, boxes, ends, strict=True):
        if np.linalg.norm(end - anchor) > GAPS[0] + 2:
            x, y = axes.transData.inverted().transform(np.stack([anchor, end]) / scale).T
            axes.plot(x, y, color=name.leader, linewidth=0.6, zorder=2.5, label="_leader")
        beside = np.array([name.aside, 0.0]) - anchor  # from the sheet to the point that is named
        written = axes.annotate(
            name.text,
            name.place,
            tuple(box[:2] + beside + 0.5),
            textcoords="offset points",
            size=SMALL,
            color=name.ink,
            ha="left",
            va="bottom",
            zorder=6,
            gid="name",
        )
        written.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def on_sheet(axes: Axes, places: Array | Sequence[tuple[float, ...]]) -> Array:
    """Returns where points are on the sheet, `[point, 2]`, in units of 1/72 inch."""
    page = axes.get_figure(root=True)
    assert isinstance(page, Figure)
    return np.asarray(axes.transData.transform(np.array(places, dtype=float).reshape(-1, 2))) * (72 / page.dpi)
