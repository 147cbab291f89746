"""A figure of every method against its MACs, with names at the points: what `nll_cost` and `ood_cost` share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from subnet_search.plots.families import FAMILIES
from subnet_search.plots.labels import Array, side_by_side
from subnet_search.plots.names import Name, on_sheet, write_names
from subnet_search.plots.page import (
    FAINT,
    FRONT,
    LINE,
    MARGIN,
    WIDE,
    WIDTH,
    axes_at,
    caption,
    house_style,
    legend_below,
    legend_height,
    new_page,
    titled,
)
from subnet_search.plots.summary import Method, Metrics, Rows, Spread, by_method

HEIGHT, LEFT, BELOW = 4.3, 0.68, 0.5
"""Inches: the axes, what is left of them and below them (ticks and label)."""
MARK = 7.0
"""Width of a mark in points."""
CIRCLE, TRIANGLE = "o", "^"


@dataclass(frozen=True)
class Figured:
    """What is drawn against the MACs.

    Attributes:
        title: Title of the figure.
        label: Label of the axis.
        of: Looks the figure up in the metrics of a row; None where it is absent.
        absent: What a method without it does not have.
        lower: Whether lower is better.
        positive: Whether it can be drawn on a logarithmic axis.
    """

    title: str
    label: str
    of: Callable[[Metrics], float | None]
    absent: str
    lower: bool
    positive: bool


@dataclass(frozen=True)
class _Point:
    method: Method
    macs: Spread
    figure: Spread


def cost_plane(rows: Rows, what: Figured, missing: Mapping[str, str], width: float = WIDTH) -> Figure | None:
    """Draws one point a method, at the means over its seeds, with bars of one standard deviation.

    Args:
        rows: Result rows of one comparison.
        what: The figure.
        missing: Methods that could not be run, with the reason.
        width: Width of the figure in inches.

    Returns:
        The drawing; None where no method has the figure.
    """
    methods = by_method(rows)
    points = []
    for method in methods:
        figure, macs = method.spread(what.of), method.spread(lambda metrics: metrics.get("cplx/MACsRatio"))
        if figure is not None and macs is not None:
            points.append(_Point(method, macs, figure))
    if not points:
        return None
    first = (
        "Points are means, bars one standard deviation over seeds; points of like cost stand side by side where they "
        "would hide each other. The front joins the means that no other beats in both."
    )
    note = caption(first, methods, {p.method.name: p.figure.n for p in points}, what.absent, missing)
    with house_style():
        handles = _handles(points)
        legend = legend_height(len(handles), width)
        page, bottom = new_page(titled(what.title, rows), HEIGHT + BELOW + legend, note, width)
        better = f"({'lower' if what.lower else 'higher'} is better)".replace(" ", "\N{NO-BREAK SPACE}")
        label = textwrap.wrap(f"{what.label} {better}", 62)
        left = LEFT + 1.2 * LINE * (len(label) - 1)
        axes = axes_at(page, left, bottom + legend + BELOW, width - left - MARGIN, HEIGHT)
        axes.set_ylabel("\n".join(label))
        _scales(axes, points, what)
        front = _front(axes, points, lower=what.lower)
        asides = side_by_side(_marks(axes, points) + np.array([0, -2, 0, 2]), MARK + 1, 4)
        for point, aside in zip(points, asides, strict=True):
            _draw(axes, point, float(aside))
        legend_below(page, handles, bottom + legend)
        marks = _marks(axes, points) + np.outer(asides, [1.0, 0.0, 1.0, 0.0])
        write_names(axes, _names(points, asides), marks, front)
    return page


def front_of(macs: list[float], figures: list[float], *, lower: bool) -> list[int]:
    """Returns the Pareto front: which points no other beats in one of the two without being worse in the other.

    Args:
        macs: Costs; less is better.
        figures: Figures.
        lower: Whether a lower figure is better.

    Returns:
        Indices, from the cheapest up.
    """
    sign = 1 if lower else -1
    order = sorted(range(len(macs)), key=lambda k: (macs[k], sign * figures[k]))
    front: list[int] = []
    for k in order:
        if not front or sign * figures[k] < sign * figures[front[-1]]:
            front.append(k)
    return front


def _scales(axes: Axes, points: list[_Point], what: Figured) -> None:
    """Axes with round ticks and room for the labels at the borders."""
    macs = np.log2([point.macs.mean for point in points])
    axes.set_xscale("log", base=2)
    axes.set_xlim(2.0 ** (macs.min() - 0.75), 2.0 ** (macs.max() + 0.75))
    powers = 2.0 ** np.arange(np.ceil(macs.min() - 0.75), np.floor(macs.max() + 0.75) + 1)
    axes.xaxis.set_major_locator(FixedLocator(list(powers)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("MACs of a prediction, relative to dense (log scale)")
    means = np.array([point.figure.mean for point in points])
    bars = np.array([point.figure.sd or 0.0 for point in points])
    if what.positive and means.min() > 0 and means.max() / means.min() > WIDE:
        axes.set_yscale("log")
        low, high = np.log(np.maximum(means - bars, means / 2)).min(), np.log(means + bars).max()
        room = 0.08 * (high - low)
        axes.set_ylim(np.exp(low - room), np.exp(high + room))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel(axes.get_ylabel() + ", log scale")
    else:
        low, high = (means - bars).min(), (means + bars).max()
        room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
        axes.set_ylim(low - room, high + room)
    axes.grid(visible=True, linewidth=0.6)
    axes.tick_params(length=3)


def _front(axes: Axes, points: list[_Point], *, lower: bool) -> Array:
    """Steps through the points of the front, on to the right border: what a cost buys at best. Returns the corners."""
    front = front_of([point.macs.mean for point in points], [point.figure.mean for point in points], lower=lower)
    x = [points[k].macs.mean for k in front] + [axes.get_xlim()[1]]
    y = [points[k].figure.mean for k in front] + [points[front[-1]].figure.mean]
    axes.plot(x, y, drawstyle="steps-post", color=FRONT, linewidth=1.6, zorder=1.5, gid="front")
    return np.column_stack([np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]])


def _draw(axes: Axes, point: _Point, aside: float) -> None:
    """Draws a point at its means, moved aside on the sheet by some points."""
    page = axes.get_figure(root=True)
    assert page is not None
    axes.errorbar(
        point.macs.mean,
        point.figure.mean,
        xerr=point.macs.sd or None,
        yerr=point.figure.sd,
        fmt=TRIANGLE if point.method.scratch else CIRCLE,
        markersize=7.5 if point.method.scratch else 6.5,
        color=point.method.family.color,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.1,
        capsize=2.0,
        zorder=3,
        label=point.method.name,
        transform=axes.transData + ScaledTranslation(aside / 72, 0, page.dpi_scale_trans),
    )


def _handles(points: list[_Point]) -> list[Line2D]:
    """What colours and shapes mean; only those that are there."""
    used = [family for family in FAMILIES if any(point.method.family == family for point in points)]
    handles = [Line2D([], [], color=f.color, marker="s", linestyle="", markersize=6, label=f.title) for f in used]
    for scratch, marker, words in ((False, CIRCLE, "from the backbone"), (True, TRIANGLE, "from scratch")):
        if any(point.method.scratch == scratch for point in points):
            shape = Line2D([], [], color=FAINT, marker=marker, linestyle="", markersize=7, label=words)
            handles.append(shape)
    return [*handles, Line2D([], [], color=FRONT, linewidth=1.6, label="Pareto front")]


def _names(points: list[_Point], asides: Array) -> list[Name]:
    """Every method by name, in the colour of its family."""
    return [
        Name(p.method.title, (p.macs.mean, p.figure.mean), p.method.family.ink, p.method.family.color, float(aside))
        for p, aside in zip(points, asides, strict=True)
    ]


def _marks(axes: Axes, points: list[_Point]) -> Array:
    """What each point takes with its error bar: left, bottom, right and top on the sheet, in points of 1/72 inch."""
    lowest = axes.get_ylim()[0]  # a bar may reach below zero, which a logarithmic axis does not know
    sheet = []
    for sign in (-1, 0, 1):
        ends = [(p.macs.mean, max(p.figure.mean + sign * (p.figure.sd or 0.0), lowest)) for p in points]
        sheet.append(on_sheet(axes, ends))
    low, middle, high = sheet
    half = MARK / 2
    left, right = middle[:, 0] - half, middle[:, 0] + half
    bottom, top = np.minimum(low, middle - half)[:, 1], np.maximum(high, middle + half)[:, 1]
    return np.stack([left, bottom, right, top], axis=1)
