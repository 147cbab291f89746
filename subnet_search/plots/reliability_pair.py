"""Reliability diagrams of the dense network and the ensemble, side by side."""

from __future__ import annotations

from matplotlib.figure import Figure

from subnet_search.plots.curves import Array
from subnet_search.plots.page import INK, axes_at
from subnet_search.plots.reliability import panel
from subnet_search.plots.sheet import COLUMN, DENSE, ENSEMBLE, LEFT, RIGHT, new_sheet, sheet_style

HEAD, BELOW, GAP = 0.32, 0.45, 0.16
Bins = tuple[Array, Array, Array]


def reliability_pair(dense: Bins, ensemble: Bins) -> Figure:
    """Draws accuracy against confidence, with the share of the images of each confidence as grey bars.

    Args:
        dense: Number of samples, mean confidence and accuracy of each bin, `[bin]`, NaN where a bin is empty.
        ensemble: The same.
    """
    side = (COLUMN - LEFT - RIGHT - GAP) / 2
    highest = max(float((bins[0] / bins[0].sum()).max()) for bins in (dense, ensemble))
    with sheet_style():
        figure = new_sheet(HEAD + side + BELOW)
        for k, (name, bins, color) in enumerate((("dense", dense, DENSE), ("ensemble", ensemble, ENSEMBLE))):
            axes = axes_at(figure, LEFT + k * (side + GAP), BELOW, side, side)
            panel(axes, bins, color, highest)
            axes.set_title(name, loc="left", weight="bold", color=INK, pad=8)
            axes.tick_params(length=2, labelleft=k == 0)
            axes.set_xlabel("stated confidence")
        figure.axes[0].set_ylabel("share that is right")
    return figure
