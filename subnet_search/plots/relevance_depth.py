"""Relevance along the depth: where it lies, and how much of it the members kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from subnet_search.plots.page import axes_at
from subnet_search.plots.sheet import (
    COLUMN,
    DENSE,
    ENSEMBLE,
    FINE,
    LEFT,
    PER_CENT,
    RIGHT,
    legend_above,
    new_sheet,
    quiet,
    sheet_style,
    shortened,
    sparse,
)

BAND = "#F2C9AC"
UPPER, LOWER, HEAD, GAP, BELOW = 1.45, 1.25, 0.28, 0.42, 1.05


@dataclass(frozen=True)
class GroupRelevance:
    """The scores of one group; a channel's score is the mean over the members.

    Attributes:
        name: Name of the group.
        low: 10 % of the channels score less.
        median: Half of the channels score less.
        high: 90 % of the channels score less.
        channels: Share of the channels that a member keeps, mean over the members, in [0, 1].
        relevance: Share of the relevance that these have, in [0, 1].
    """

    name: str
    low: float
    median: float
    high: float
    channels: float
    relevance: float


def relevance_depth(groups: Sequence[GroupRelevance], criterion: str) -> Figure:
    """Draws two panels over the groups: the scores of their channels, and what the members kept.

    Args:
        groups: The groups that were scored, in order of first use.
        criterion: How they were scored.
    """
    places = list(range(len(groups)))
    whole = HEAD + UPPER + GAP + LOWER + BELOW
    smallest = min((g.median for g in groups if g.median > 0), default=1.0) / 10  # zero has no place on this axis
    with sheet_style():
        figure = new_sheet(whole)
        left = LEFT + 0.12
        width = COLUMN - left - RIGHT
        upper = axes_at(figure, left, BELOW + LOWER + GAP, width, UPPER)
        low, median, high = ([max(getattr(g, part), smallest) for g in groups] for part in ("low", "median", "high"))
        upper.fill_between(places, low, high, color=BAND, linewidth=0, label="80 % of the channels")
        upper.plot(places, median, color=ENSEMBLE, marker="o", markersize=3, linewidth=1.4, label="median channel")
        upper.set_yscale("log")
        upper.yaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if max(high) < 20 * min(low) else (1.0,), numticks=8)
        )
        upper.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        upper.yaxis.set_minor_formatter(NullFormatter())
        upper.set_ylabel(f"relevance ({criterion})")
        legend_above(figure, upper, 2)
        lower = axes_at(figure, left, BELOW, width, LOWER)
        kept, share = [g.channels for g in groups], [g.relevance for g in groups]
        lower.plot(places, share, color=ENSEMBLE, marker="o", markersize=3, linewidth=1.4, label="of the relevance")
        lower.plot(places, kept, color=DENSE, linestyle="--", linewidth=1.2, label="of the channels")
        lower.set_ylim(0, 1.02)
        lower.set_ylabel("a member keeps")
        lower.yaxis.set_major_formatter(PER_CENT)
        legend_above(figure, lower, 2)
        ticks, names = sparse([shortened(group.name, 18) for group in groups])
        for axes in (upper, lower):
            axes.set_xlim(-0.5, len(groups) - 0.5)
            axes.set_xticks(ticks, [""] * len(ticks))
            quiet(axes)
        lower.set_xticklabels(names, rotation=90, size=FINE - 1)
    return figure
