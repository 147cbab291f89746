"""What each member knows alone, beside the ensemble and the dense network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from subnet_search.plots.page import INK, axes_at
from subnet_search.plots.sheet import COLUMN, DENSE, ENSEMBLE, FINE, MEMBER, new_sheet, sheet_style

LEFT, RIGHT, ROW, HEAD, BELOW = 0.95, 0.62, 0.22, 0.06, 0.45


def member_accuracy(ensemble: float, dense: float, members: Sequence[float], samples: int) -> Figure:
    """Draws a dot for each network, with a bar of two standard errors to both sides.

    Args:
        ensemble: Accuracy of the ensemble, in [0, 1].
        dense: That of the dense network.
        members: Those of the members.
        samples: Number of test images.
    """
    rows = [("ensemble", ensemble, ENSEMBLE), ("dense", dense, DENSE)]
    rows += [(f"member {k + 1}", value, MEMBER) for k, value in enumerate(members)]
    height = ROW * len(rows)
    with sheet_style():
        figure = new_sheet(HEAD + height + BELOW)
        axes = axes_at(figure, LEFT, BELOW, COLUMN - LEFT - RIGHT, height)
        for place, (_, value, color) in enumerate(rows):
            error = 2 * math.sqrt(value * (1 - value) / samples)
            axes.errorbar(value, place, xerr=error, fmt="o", color=color, markersize=6, elinewidth=1.2)
            axes.text(
                1.03, place, f"{value:.2%}", transform=axes.get_yaxis_transform(), va="center", size=FINE, color=INK
            )
        axes.axvline(dense, color=DENSE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("accuracy on the test images")
        axes.grid(visible=True, axis="x", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure
