"""The front of a study: two objectives against each other, the third in colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from subnet_search.plots.labels import Array
from subnet_search.plots.names import Name, on_sheet, write_names
from subnet_search.plots.page import (
    FAINT,
    FRONT,
    INK,
    MARGIN,
    WIDE,
    WIDTH,
    axes_at,
    house_style,
    legend_below,
    legend_height,
    new_page,
)

HEIGHT, LEFT, BELOW = 4.3, 0.72, 0.5
"""Inches: the axes, what is left of them and below them (ticks and label)."""
BAR, GAP = 0.13, 0.12
"""Inches: width of the colour bar, and what is between it and the axes."""
PLAIN = "#D55E00"
"""Colour of the front where there is no third objective."""
SHAPES = {"search": ("o", 8.0), "default": ("D", 7.0), "control": ("^", 8.5)}
TITLES = {"search": "chosen by the sampler", "default": "hand-set default", "control": "control"}
DENSE = ("*", 13.0)
HOLLOW = 0.7
"""Size of a point that is not on the front, relative to one that is."""


@dataclass(frozen=True)
class Axis:
    """An objective that is drawn.

    Attributes:
        label: What it is, with its unit.
        lower: Whether lower is better.
    """

    label: str
    lower: bool

    @property
    def words(self) -> str:
        """The label, with the direction."""
        return f"{self.label} ({'lower' if self.lower else 'higher'} is better)"


@dataclass(frozen=True)
class Mark:
    """A trial that is drawn.

    Attributes:
        name: What stands beside it where it is on the front or was enqueued, such as its number.
        role: `search`, `default` or `control`.
        values: Its objectives in the order of the axes.
        front: Whether it is on the front.
    """

    name: str
    role: str
    values: tuple[float, ...]
    front: bool


def front(
    title: str,
    axes: Sequence[Axis],
    marks: Sequence[Mark],
    dense: Sequence[float | None],
    note: str,
    width: float = WIDTH,
) -> Figure | None:
    """Draws trials in the plane of two objectives.

    Args:
        title: Title of the figure.
        axes: The objectives across, up and, where there is a third, in colour.
        marks: The trials.
        dense: Figures of the dense network in the order of the axes, None where it has none. It is drawn where it has
            the first two, or as a line where it has one of them.
        note: How many trials are drawn and at which fidelity, and what is not drawn.
        width: Width of the figure in inches.

    Returns:
        The figure; None where there is no trial or only one objective.
    """
    if len(axes) < 2 or not marks:
        return None
    coloured = len(axes) > 2
    with house_style():
        handles = _handles(marks, dense)
        legend = legend_height(len(handles), width)
        page, bottom = new_page(title, HEIGHT + BELOW + legend, note, width)
        right = MARGIN + (GAP + BAR + 0.62 if coloured else 0.0)
        plane = axes_at(page, LEFT, bottom + legend + BELOW, width - LEFT - right, HEIGHT)
        plane.set_xlabel(axes[0].words)
        plane.set_ylabel(axes[1].words)
        plane.grid(visible=True, linewidth=0.6)
        plane.tick_params(length=3)
        _limits(plane, marks, dense)
        colours = _colours(marks, dense) if coloured else None
        if colours is not None:
            place = axes_at(page, width - right + GAP, bottom + legend + BELOW, BAR, HEIGHT)
            page.colorbar(colours, cax=place, label=axes[2].words)
            place.tick_params(length=2)
            if axes[2].lower:
                place.invert_yaxis()  # better is up, as dark is
        corners = np.empty((0, 2)) if coloured else _steps(plane, axes, marks)
        for mark in sorted(marks, key=lambda mark: mark.front):
            _draw(plane, mark, colours)
        _dense(plane, dense, colours)
        legend_below(page, handles, bottom + legend)
        _name(plane, marks, dense, corners)
    return page


def _limits(plane: Axes, marks: Sequence[Mark], dense: Sequence[float | None]) -> None:
    """Room for the names at the borders; a logarithmic scale where the largest value is many times the smallest."""
    for axis, index, limit in ((plane.xaxis, 0, plane.set_xlim), (plane.yaxis, 1, plane.set_ylim)):
        other = dense[index]
        known = [mark.values[index] for mark in marks] + ([] if other is None else [other])
        low, high = min(known), max(known)
        if low > 0 and high / low > WIDE:
            (plane.set_xscale if index == 0 else plane.set_yscale)("log")
            room = (high / low) ** 0.1
            limit(low / room, high * room)
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
            axis.set_label_text(f"{axis.get_label_text()}, log scale")
        else:
            room = 0.1 * (high - low) or 0.05 * abs(high) or 0.05
            limit(low - room, high + room)
            axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))


def _map() -> Colormap:
    """From dark to light, and never so light that a point gets lost on white."""
    return LinearSegmentedColormap.from_list("front", ["#0B1F5C", "#2A6FB0", "#35A7A0", "#8FD06B", "#D9B420"])


def _colours(marks: Sequence[Mark], dense: Sequence[float | None]) -> ScalarMappable:
    known = [mark.values[2] for mark in marks] + ([] if dense[2] is None else [dense[2]])
    low, high = min(known), max(known)
    return ScalarMappable(Normalize(low, high if high > low else low + 1e-9), _map())


def _steps(plane: Axes, axes: Sequence[Axis], marks: Sequence[Mark]) -> Array:
    """What the first objective buys at best of the second. Returns the corners."""
    corners = sorted((mark.values for mark in marks if mark.front), reverse=not axes[0].lower)
    end = plane.get_xlim()[1 if axes[0].lower else 0]
    x = [values[0] for values in corners] + [end]
    y = [values[1] for values in corners] + [corners[-1][1]]
    plane.plot(x, y, drawstyle="steps-post", color=FRONT, linewidth=1.6, zorder=1.5, gid="front")
    return np.column_stack([np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]])


def _draw(plane: Axes, mark: Mark, colours: ScalarMappable | None) -> None:
    shape, size = SHAPES[mark.role]
    colour = PLAIN if colours is None else colours.to_rgba(np.array(mark.values[2]))
    plane.plot(
        mark.values[0],
        mark.values[1],
        marker=shape,
        markersize=size if mark.front else HOLLOW * size,
        linestyle="",
        color=colour if mark.front else "white",
        markeredgecolor=INK if mark.front else colour,
        markeredgewidth=0.7 if mark.front else 1.3,
        zorder=4 if mark.front else 3,
        label=mark.name,
        gid="on the front" if mark.front else "beaten",
    )


def _dense(plane: Axes, dense: Sequence[float | None], colours: ScalarMappable | None) -> None:
    x, y = dense[:2]
    shape, size = DENSE
    third = dense[2] if colours is not None else None
    if x is not None and y is not None:
        fill = "black" if colours is None or third is None else colours.to_rgba(np.array(third))
        plane.plot(
            x, y, marker=shape, markersize=size, linestyle="", color=fill, markeredgecolor=INK, zorder=5, gid="dense"
        )
    elif x is not None:
        plane.axvline(x, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2, gid="dense")
    elif y is not None:
        plane.axhline(y, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2, gid="dense")


def _handles(marks: Sequence[Mark], dense: Sequence[float | None]) -> list[Line2D]:
    """What shapes and fillings mean, and of how many trials; only those that are there."""
    handles = []
    for on_front, words in ((True, "on the front"), (False, "beaten by another")):
        count = sum(mark.front == on_front for mark in marks)
        if count:
            handle = Line2D([], [], marker="o", linestyle="", markersize=7, label=f"{words} (n = {count})")
            handle.set(color=FAINT if on_front else "white", markeredgecolor=INK if on_front else FAINT)
            handles.append(handle)
    for role, (shape, size) in SHAPES.items():
        count = sum(mark.role == role for mark in marks)
        if count:
            label = f"{TITLES[role]} (n = {count})"
            handle = Line2D([], [], marker=shape, linestyle="", markersize=0.9 * size, color=FAINT, label=label)
            handles.append(handle)
    if dense[0] is not None and dense[1] is not None:
        handles.append(
            Line2D([], [], marker=DENSE[0], linestyle="", markersize=10, color="black", label="dense network")
        )
    elif dense[0] is not None or dense[1] is not None:
        handles.append(Line2D([], [], linestyle=(0, (4, 3)), linewidth=1.0, color=INK, label="dense network"))
    return handles


def _name(plane: Axes, marks: Sequence[Mark], dense: Sequence[float | None], corners: Array) -> None:
    """Writes the names of the front and of what was enqueued beside the points."""
    named = [mark for mark in marks if mark.front or mark.role != "search"]
    if not named:
        return
    names = [Name(mark.name, (mark.values[0], mark.values[1]), INK, FAINT) for mark in named]
    others = [mark.values[:2] for mark in marks if mark not in named]
    if dense[0] is not None and dense[1] is not None:
        others.append((dense[0], dense[1]))
    every = on_sheet(plane, [*(name.place for name in names), *others])
    write_names(plane, names, np.hstack([every - 4.0, every + 4.0]), corners)
