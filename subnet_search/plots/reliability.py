"""Reliability diagrams: whether a method that says 70 % is right in 70 % of the cases."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from subnet_search.plots.curves import Array, Curves, curves_of, pooled_bins
from subnet_search.plots.page import (
    FAINT,
    INK,
    LINE,
    MARGIN,
    NARROW,
    SMALL,
    WIDTH,
    axes_at,
    caption,
    house_style,
    new_page,
    titled,
)
from subnet_search.plots.summary import Method, Rows, by_method

LEFT, BELOW, GAP = 0.55, 0.48, 0.14
FEW = 10
"""A bin with fewer samples says little, and is drawn hollow."""
HISTOGRAM, BARS = 0.25, "#C9CED6"
"""Height of the highest bar of all histograms, as share of the panel, and the colour of bars."""


def reliability(
    rows: Rows, curves: Curves, missing: Mapping[str, str] | None = None, width: float = WIDTH
) -> Figure | None:
    """Draws a panel for each method: accuracy against confidence, with the share of the samples in each bin.

    Bins are averaged over the seeds, each weighted with its number of samples. The ECE is that of the rows.

    Args:
        rows: Result rows of one comparison.
        curves: Their curves, as in `curves.jsonl`.
        missing: Method → why it, or a seed of it, could not be run.
        width: Width of the figure in inches.

    Returns:
        The figure; None where no method has a curve.

    Raises:
        SubnetSearchError: where rows or curves are not of one comparison.
    """
    methods = by_method(rows)
    own = {method.name: curves_of(method, curves) for method in methods}
    drawn = [method for method in methods if own[method.name]]
    if not drawn:
        return None
    highest = max(float((bins[0] / bins[0].sum()).max()) for method in drawn if (bins := pooled_bins(own[method.name])))
    note = caption(
        "Dots: accuracy of the predictions of some confidence, mean over seeds; below the dashed line the method is "
        f"overconfident; hollow: fewer than {FEW} images a seed. Bars: share of the images, the highest of all is "
        f"{100 * highest:.0f} %. ECE: mean ± standard deviation.",
        methods,
        {m.name: len(own[m.name]) for m in drawn},
        "without a reliability curve",
        missing or {},
    )
    lines = [_wrapped(method.title) for method in drawn]
    columns = 4 if width > NARROW else 2
    side = (width - LEFT - MARGIN - (columns - 1) * GAP) / columns
    count = math.ceil(len(drawn) / columns)
    heads = [
        0.1 + LINE * (1 + max(len(names) for names in lines[k * columns : (k + 1) * columns])) for k in range(count)
    ]
    with house_style():
        page, bottom = new_page(
            titled("Reliability", rows), BELOW + count * side + sum(heads) + (count - 1) * GAP, note, width
        )
        top = bottom + BELOW + count * side + sum(heads) + (count - 1) * GAP
        for k, (method, names) in enumerate(zip(drawn, lines, strict=True)):
            row, column = divmod(k, columns)
            low = top - sum(heads[: row + 1]) - (row + 1) * side - row * GAP
            axes = axes_at(page, LEFT + column * (side + GAP), low, side, side)
            axes.set_label(method.name)
            panel(axes, pooled_bins(own[method.name]), method.family.color, highest)
            axes.text(0, 1 + 0.08 / side, _error(method), transform=axes.transAxes, size=SMALL, color=INK, gid="ECE")
            axes.set_title("\n".join(names), loc="left", color=method.family.ink, pad=6 + LINE * 72, size=SMALL)
            axes.tick_params(labelleft=column == 0, labelbottom=k + columns >= len(drawn), length=2)
        up = page.get_size_inches()[1]
        page.text(0.5, (bottom + 0.02) / up, "confidence", size=9, ha="center", va="bottom", color=INK)
        middle = (bottom + BELOW + top) / 2
        page.text(MARGIN / width, middle / up, "accuracy", size=9, rotation=90, va="center", color=INK)
    return page


def panel(axes: Axes, bins: tuple[Array, Array, Array], color: str, highest: float) -> None:
    """Draws a reliability diagram.

    Args:
        axes: Where.
        bins: Number of samples, mean confidence and accuracy of each bin, `[bin]`, NaN where a bin is empty.
        color: Colour of the dots.
        highest: Share of the samples that the highest bar of all diagrams stands for.
    """
    count, confidence, accuracy = bins
    edges = np.linspace(0, 1, len(count) + 1)
    axes.bar(
        edges[:-1],
        HISTOGRAM / highest * count / count.sum(),
        np.diff(edges),
        align="edge",
        color=BARS,
        edgecolor="white",
        linewidth=0.5,
        zorder=1,
        label="share",
    )
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1.5, label="calibrated")
    known = count > 0
    many = count >= FEW
    axes.plot(confidence[many], accuracy[many], color=color, linewidth=1.1, zorder=2, label="many")
    axes.scatter(
        confidence[known],
        accuracy[known],
        s=14,
        facecolors=[color if n >= FEW else "white" for n in count[known]],
        edgecolors=color,
        linewidths=0.9,
        zorder=3,
        clip_on=False,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _error(method: Method) -> str:
    error = method.spread(lambda metrics: metrics.get("cal/ECE"))
    if error is None:
        return "ECE –"
    return f"ECE {error.mean:.3f}" + ("" if error.sd is None else f" ± {error.sd:.3f}")


def _wrapped(title: str) -> list[str]:
    """Breaks a long name behind its plus or underscore signs."""
    spaced = title.replace("+", "+ ").replace("_", "_ ")
    return [line.replace("+ ", "+").replace("_ ", "_") for line in textwrap.wrap(spaced, 24)]
