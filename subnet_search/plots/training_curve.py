"""The course of the fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subnet_search.plots.page import axes_at
from subnet_search.plots.sheet import COLUMN, ENSEMBLE, LEFT, RIGHT, new_sheet, quiet, sheet_style

HEAD, HEIGHT, BELOW = 0.1, 1.6, 0.45


def training_curve(losses: Sequence[float]) -> Figure:
    """Draws the mean training loss of each epoch.

    Args:
        losses: One for each epoch, at least one.
    """
    with sheet_style():
        figure = new_sheet(HEAD + HEIGHT + BELOW)
        axes = axes_at(figure, LEFT, BELOW, COLUMN - LEFT - RIGHT, HEIGHT)
        axes.plot(range(1, len(losses) + 1), losses, color=ENSEMBLE, linewidth=1.6, marker="o", markersize=3.5)
        axes.set_xlim(0.5, len(losses) + 0.5)
        axes.set_ylim(0 if min(losses) >= 0 else None, None)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        quiet(axes)
    return figure
