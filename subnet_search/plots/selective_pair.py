"""Risk against coverage of the dense network and the ensemble: what refusing the least certain images is worth."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from subnet_search.plots.page import axes_at
from subnet_search.plots.sheet import (
    COLUMN,
    DENSE,
    ENSEMBLE,
    LEFT,
    PER_CENT,
    RIGHT,
    legend_above,
    new_sheet,
    quiet,
    sheet_style,
)

HEAD, HEIGHT, BELOW = 0.3, 2.2, 0.45
Curve = tuple[Sequence[float], Sequence[float]]


def selective_pair(dense: Curve, ensemble: Curve) -> Figure:
    """Draws the error rate among the accepted images against their share.

    Args:
        dense: Coverage and risk, each `[point]` in [0, 1].
        ensemble: The same.
    """
    with sheet_style():
        figure = new_sheet(HEAD + HEIGHT + BELOW)
        axes = axes_at(figure, LEFT + 0.1, BELOW, COLUMN - LEFT - RIGHT - 0.2, HEIGHT)
        axes.plot(*dense, color=DENSE, linewidth=1.6, linestyle="--", label="dense")
        axes.plot(*ensemble, color=ENSEMBLE, linewidth=1.8, label="ensemble")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.05 * max(*dense[1], *ensemble[1]) or 0.01)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PER_CENT)
        axes.set_xlabel("share of the images that are accepted")
        axes.set_ylabel("errors among these")
        quiet(axes)
        legend_above(figure, axes, 2)
    return figure
