"""Epistemic uncertainty of images from the domain of the training, and from others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from subnet_search.plots.page import axes_at
from subnet_search.plots.sheet import (
    COLUMN,
    DENSE,
    LEFT,
    OTHERS,
    PER_CENT,
    RIGHT,
    legend_above,
    new_sheet,
    quiet,
    sheet_style,
    shortened,
)

HEAD, HEIGHT, BELOW, LINE = 0.12, 2.2, 0.45, 0.17
DECADES, STEPS = 5, 6
"""The axis spans so many powers of ten below its upper end, each in so many bins; what is less is in the lowest bin."""
INSIDE = "#8C8C8C"
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
Array = NDArray[np.float64]


def doubt_bins(most: float) -> Array:
    """Returns the borders of the bins, `[bin + 1]`, on a logarithmic scale up to the highest value there may be."""
    return np.asarray(most * 10.0 ** np.linspace(-DECADES, 0, DECADES * STEPS + 1))


def doubt_shares(values: Array, borders: Array) -> Array:
    """Returns the share of the values in each bin, `[bin]`; those below the lowest border count to the lowest bin."""
    counts, _ = np.histogram(np.clip(values, borders[0], borders[-1]), borders)
    return np.asarray(counts / len(values))


def doubt_histogram(inside: Array, outside: Mapping[str, Array], borders: Array, images: str = "test images") -> Figure:
    """Draws the share of the images over their epistemic uncertainty.

    Args:
        inside: Uncertainties of images from the domain of the training in nats, `[sample]`.
        outside: Name → uncertainties of images from other domains.
        borders: See `doubt_bins`.
        images: What those in `inside` are.
    """
    with sheet_style():
        head = HEAD + LINE * (1 + len(outside) // 2)
        figure = new_sheet(head + HEIGHT + BELOW)
        axes = axes_at(figure, LEFT, BELOW, COLUMN - LEFT - RIGHT, HEIGHT)
        axes.stairs(doubt_shares(inside, borders), borders, fill=True, color=INSIDE, alpha=0.45, linewidth=0)
        axes.stairs(doubt_shares(inside, borders), borders, color=DENSE, linewidth=1.2, label=images)
        for k, (name, values) in enumerate(outside.items()):
            axes.stairs(
                doubt_shares(values, borders),
                borders,
                color=OTHERS[k % len(OTHERS)],
                linewidth=1.8,
                linestyle=DASHES[k // len(OTHERS) % len(DASHES)],
                label=f"{shortened(name, 18)} (foreign)",
            )
        axes.set_xscale("log")
        axes.set_xlim(borders[0], borders[-1])
        axes.xaxis.set_major_locator(FixedLocator([10.0**k for k in range(-9, 3)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epistemic uncertainty in nats, log scale")
        axes.set_ylabel("share of the images")
        quiet(axes)
        legend_above(figure, axes, 2)
    return figure
