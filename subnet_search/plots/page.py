"""The sheet that every figure is drawn on: size, fonts, a title above and a note of what is missing below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from subnet_search.data import source_name
from subnet_search.plots.summary import Method, Rows, differing_settings

WIDTH = 7.0
"""Width of a figure in inches: a page of two columns, or a column of a README."""
NARROW = 4.0
"""Width of the same figure on a phone, in inches."""
INK, FAINT, GRID = "#222222", "#6B6B6B", "#E4E4E4"
SMALL = 8.0
"""The smallest font, in points."""
LINE = 0.155
"""Height of a line of the smallest font, in inches."""
MARGIN = 0.12
HEAD = 0.4
"""Height of the title, in inches."""
IN_A_LINE = 1.75
"""Inches for an entry of the legend."""
FRONT = "#C8C8C8"
"""Colour of a Pareto front."""
WIDE = 8.0
"""From this ratio between the largest and the smallest value on, a scale gives more room to small ones."""

FORMATS = ("svg", "png")

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that labels have the same size on every machine
    "font.size": SMALL,
    "axes.titlesize": SMALL,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "legend.fontsize": SMALL,
    "text.parse_math": False,  # a dollar in a file name is a dollar
    "svg.hashsalt": "subnet_search",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draws with our settings whatever the caller's are, and leaves these as they were."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_page(title: str, height: float, note: str, width: float = WIDTH) -> tuple[Figure, float]:
    """Starts a figure.

    Args:
        title: Its title.
        height: Height of what is between title and note, in inches.
        note: What must be said below.
        width: Its width in inches.

    Returns:
        The figure, and the height in inches where the note ends.
    """
    lines = [
        line
        for part in note.splitlines()
        for line in textwrap.wrap(part, int(106 * width / WIDTH), break_on_hyphens=False)
    ]
    below = MARGIN + LINE * len(lines) + (MARGIN if lines else 0.0)
    heading = textwrap.wrap(title, int(68 * width / WIDTH), break_on_hyphens=False)
    whole = below + height + HEAD + 0.17 * (len(heading) - 1)
    figure = Figure(figsize=(width, whole), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        MARGIN / width, 1 - MARGIN / whole, "\n".join(heading), size=10, weight="bold", color=INK, va="top", gid="title"
    )
    figure.text(
        MARGIN / width,
        MARGIN / whole,
        "\n".join(lines),
        size=SMALL,
        color=FAINT,
        va="bottom",
        linespacing=1.3,
        gid="note",
    )
    return figure, below


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes; the place is in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def legend_height(entries: int, width: float) -> float:
    """Returns what a legend of so many entries takes of a page of that width, in inches."""
    return 0.1 + 1.2 * LINE * math.ceil(entries / int(width / IN_A_LINE))


def legend_below(page: Figure, handles: list[Line2D], top: float) -> None:
    """Writes a legend below the axes, in lines across the page; `top` is its upper border, in inches."""
    across, up = page.get_size_inches()
    page.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(MARGIN / across, top / up),
        ncols=int(across / IN_A_LINE),
        frameon=False,
        handletextpad=0.3,
        columnspacing=1.2,
        borderaxespad=0.0,
    )


def titled(what: str, rows: Rows) -> str:
    """Returns a title with the network and the data."""
    return f"{what}: {rows[0]['backbone']} on {source_name(rows[0]['data'])}"


def caption(
    first: str, methods: Sequence[Method], seeds: Mapping[str, int], absent: str, missing: Mapping[str, str]
) -> str:
    """Writes the note: how to read the figure, and everything that it does not show.

    Args:
        first: How to read it.
        methods: All methods of the rows.
        seeds: Name of each method that is drawn → of how many seeds it is.
        absent: What the others do not have.
        missing: Methods that could not be run, or not for all seeds.

    Returns:
        A paragraph a line.
    """
    most = max(seeds.values(), default=0)
    fewer = [f"{m.title} ({seeds[m.name]})" for m in methods if seeds.get(m.name, most) < most]
    not_drawn = [method.title for method in methods if method.name not in seeds]
    differing = differing_settings([row for method in methods for row in method.rows])
    parts = [first, f"Seeds: {most}" + (f"; fewer: {', '.join(fewer)}." if fewer else ".")]
    text = " ".join(parts)
    if not_drawn:
        text += f"\nNot drawn, {absent}: {', '.join(not_drawn)}."
    if absent_methods := [name for name in missing if name not in {method.name for method in methods}]:
        text += f"\nCould not be run: {', '.join(absent_methods)}."
    if differing:
        listed = ", ".join(differing[:4]) + (f" and {len(differing) - 4} more" if len(differing) > 4 else "")
        text += f"\nSettings that differ between the methods: {listed}."
    return text


def rendered(figure: Figure, kind: str) -> bytes:
    """Returns the file of a figure; the same figure gives the same bytes.

    Args:
        figure: A figure of this package.
        kind: One of `FORMATS`.
    """
    target = BytesIO()
    with house_style():
        figure.savefig(target, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
    return target.getvalue()
