"""The narrow sheet of a report's figures: a column of a page on a desk, the whole width on a phone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from subnet_search.plots.families import SEARCHED, SINGLE
from subnet_search.plots.page import house_style

COLUMN = 4.0
"""Width of a sheet in inches: at 9 points its text has 10 pixels on a phone of 390."""
TEXT, FINE = 9.0, 8.0
"""Sizes of the fonts in points."""
DENSE, ENSEMBLE, MEMBER = SINGLE.color, SEARCHED.color, "#C47A42"
"""The colours of the two networks, and of a member of the ensemble."""
OTHERS = ("#0072B2", "#A34A7C", "#009E73", "#B87A00", "#2A82B5")
"""Colours of what there may be any number of, such as OOD sets; from the sixth on they come again."""
LEFT, RIGHT = 0.58, 0.12
"""Inches left and right of the axes."""
PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")
"""Writes shares at an axis."""

_STYLE: dict[Any, Any] = {
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "xtick.labelsize": FINE,
    "ytick.labelsize": FINE,
    "legend.fontsize": FINE,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.0,
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the colours of the page
}


@contextmanager
def sheet_style() -> Iterator[None]:
    """Draws with the settings of the house, larger fonts and text as text."""
    with house_style():
        matplotlib.rcParams.update(_STYLE)
        yield


def new_sheet(height: float) -> Figure:
    """Starts a figure of that height in inches, without title and note: the page has both."""
    figure = Figure(figsize=(COLUMN, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def rendered_sheet(figure: Figure, kind: str) -> bytes:
    """Returns the file of a sheet; the same figure gives the same bytes.

    Args:
        figure: A figure of this package.
        kind: `svg` or `png`.
    """
    target = BytesIO()
    with sheet_style():
        figure.savefig(target, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return target.getvalue()


def legend_above(figure: Figure, axes: Axes, columns: int, handles: Sequence[Any] | None = None) -> None:
    """Writes the legend above the axes, from their left border on."""
    left, top = axes.get_position().x0, axes.get_position().y1
    drawn = axes.get_legend_handles_labels()[0] if handles is None else list(handles)
    gap = 0.06 / figure.get_size_inches()[1]
    figure.legend(handles=drawn, loc="lower left", bbox_to_anchor=(left, top + gap), ncols=columns, columnspacing=0.9)


def quiet(axes: Axes) -> None:
    """Lets the frame step back behind what is drawn."""
    axes.tick_params(length=3)
    axes.grid(visible=True, axis="y", linewidth=0.6)


def sparse(names: Sequence[str], most: int = 14) -> tuple[list[int], list[str]]:
    """Chooses which names fit on an axis: places and names, the first and the last among them.

    Args:
        names: One for each place 0, 1, ...
        most: How many fit.
    """
    count = len(names)
    if count <= most:
        return list(range(count)), list(names)
    places = sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
    return places, [names[place] for place in places]


def shortened(text: str, most: int) -> str:
    """Cuts the end of a text that is too long."""
    return text if len(text) <= most else text[: most - 1] + "…"
