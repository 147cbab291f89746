"""Members against members: what they share, and whether they err together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from subnet_search.plots.page import INK, axes_at
from subnet_search.plots.sheet import COLUMN, FINE, new_sheet, sheet_style

MOST = 8
"""With more members the numbers have no room in their cells."""
STRENGTH = 0.75
"""Opacity of 1: text of either theme can be read on it."""
FILL = "#1F77B4"
MARGIN, GAP, TITLE, BELOW = 0.3, 0.28, 0.26, 0.22


@dataclass(frozen=True)
class Matrix:
    """A figure of every two members.

    Attributes:
        title: What it is.
        values: `[member, member]`, symmetric, at most 1; NaN where it is not defined. The diagonal is not drawn.
    """

    title: str
    values: NDArray[np.float64]


def pair_matrices(matrices: Sequence[Matrix]) -> Figure:
    """Draws two matrices side by side, darker where members are more alike.

    Args:
        matrices: One or two.
    """
    side = (COLUMN - MARGIN - GAP - 0.08) / 2
    with sheet_style():
        figure = new_sheet(side + TITLE + BELOW)
        for k, matrix in enumerate(matrices):
            axes = axes_at(figure, MARGIN + k * (side + GAP), BELOW, side, side)
            _draw(axes, matrix)
    return figure


def _draw(axes: Axes, matrix: Matrix) -> None:
    members = len(matrix.values)
    for row in range(members):
        for column in range(members):
            value = float(matrix.values[row, column])
            empty = row == column or math.isnan(value)
            strength = 0.0 if empty else STRENGTH * min(max(value, 0.0), 1.0)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=FILL, alpha=strength, linewidth=0))
            if row != column and members <= MOST:
                words = "–" if math.isnan(value) else f"{value:.2f}"
                axes.text(column + 0.5, row + 0.5, words, ha="center", va="center", size=FINE, color=INK)
    axes.set_xlim(0, members)
    axes.set_ylim(members, 0)
    step = 1 if members <= 2 * MOST else math.ceil(members / MOST)
    places = list(range(0, members, step))
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks([place + 0.5 for place in places], [str(place + 1) for place in places])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.set_title(matrix.title, loc="left", color=INK, pad=4)
