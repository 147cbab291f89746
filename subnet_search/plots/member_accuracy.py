"""What each member knows alone, beside the ensemble and the dense network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subnet_search.plots.page import INK, axes_at
from subnet_search.plots.sheet import COLUMN, DENSE, ENSEMBLE, FINE, MEMBER, PER_CENT, new_sheet, sheet_style

LEFT, RIGHT, ROW, HEAD, BELOW = 0.95, 0.62, 0.22, 0.06, 0.45


def member_accuracy(ensemble: float, dense: float, members: Sequence[float], samples: int) -> Figure:
    """Draws a dot for each network, with the interval of 95 % that the number of images leaves.

    Args:
        ensemble: Accuracy of the ensemble, in [0, 1].
        dense: That of the dense network.
        members: Those of the members.
        samples: Number of images.
    """
    rows = [("ensemble", ensemble, ENSEMBLE), ("dense", dense, DENSE)]
    rows += [(f"member {k + 1}", value, MEMBER) for k, value in enumerate(members)]
    height = ROW * len(rows)
    with sheet_style():
        figure = new_sheet(HEAD + height + BELOW)
        axes = axes_at(figure, LEFT, BELOW, COLUMN - LEFT - RIGHT, height)
        for place, (_, value, color) in enumerate(rows):
            low, high = interval(value, samples)
            axes.plot([low, high], [place, place], color=color, linewidth=1.2)
            axes.plot(value, place, "o", color=color, markersize=6)
            axes.text(
                1.03,
                place,
                f"{100 * value:.2f} %",
                transform=axes.get_yaxis_transform(),
                va="center",
                size=FINE,
                color=INK,
            )
        axes.axvline(dense, color=DENSE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PER_CENT)
        axes.set_xlabel("accuracy")
        axes.grid(visible=True, axis="x", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


def interval(share: float, samples: int) -> tuple[float, float]:
    """Returns the ends of the interval of 95 % for a share of so many samples, in [0, 1] (Wilson 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples) * math.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
