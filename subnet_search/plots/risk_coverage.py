"""Risk against coverage: what refusing the least confident predictions is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from subnet_search.plots.curves import Array, Curves, curves_of, mean_risk
from subnet_search.plots.families import SEARCHED, UNSEARCHED
from subnet_search.plots.labels import spread_out
from subnet_search.plots.page import (
    LINE,
    MARGIN,
    NARROW,
    SMALL,
    WIDE,
    WIDTH,
    axes_at,
    caption,
    house_style,
    new_page,
    titled,
)
from subnet_search.plots.summary import Method, Rows, by_method

LEFT, RIGHT, BELOW, HEIGHT = 0.72, 3.05, 0.5, 3.7
OTHERS, OTHER_NAMES = "#C4C4C4", "#6B6B6B"


@dataclass(frozen=True)
class _Curve:
    method: Method
    coverage: Array
    risk: Array


def risk_coverage(
    rows: Rows, curves: Curves, missing: Mapping[str, str] | None = None, width: float = WIDTH
) -> Figure | None:
    """Draws the error rate among accepted predictions, a curve a method, mean over the seeds.

    In colour: the dense network, the deep ensembles, the best control and the search. All are named where they end,
    or, in a narrow figure, below, with their AURC.

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
    drawn = [_Curve(m, *mean_risk(own)) for m in methods if (own := curves_of(m, curves))]
    if not drawn:
        return None
    chosen = highlighted([curve.method for curve in drawn])
    note = caption(
        "Mean over seeds. AURC: area under the curve; lower is better. The best control is, of the masks that are not "
        "searched, the one with the lowest AURC.",
        methods,
        {c.method.name: len(curves_of(c.method, curves)) for c in drawn},
        "without a risk-coverage curve",
        missing or {},
    )
    beside = width > NARROW
    height = max(HEIGHT, LINE * (len(drawn) + 1)) if beside else width / 2
    below = BELOW if beside else BELOW + 1.25 * LINE * (len(drawn) + 1)
    with house_style():
        page, bottom = new_page(titled("Selective prediction", rows), height + below + LINE, note, width)
        axes = axes_at(page, LEFT, bottom + below, width - LEFT - (RIGHT if beside else 2 * MARGIN), height)
        for curve in sorted(drawn, key=lambda c: c.method.name in chosen):
            _draw(axes, curve, chosen)
        _scales(axes, drawn)
        if beside:
            _names(axes, drawn, chosen, height)
        else:
            _list(page, drawn, chosen, bottom)
    return page


def highlighted(methods: list[Method]) -> dict[str, str]:
    """Returns which methods are drawn in colour, and what is said of each.

    Args:
        methods: Those that have a curve.

    Returns:
        Name → words behind the name, maybe none: the dense network, the deep ensembles, the search (where there is no
        plain `search`, the searched masks with the lowest AURC) and the control with the lowest AURC.
    """
    chosen = {m.name: "" for m in methods if m.name in ("msp", "dense", "deep_ensemble", "deep_ensemble_finetuned")}
    searched = [m for m in methods if m.family == SEARCHED]
    plain = [m for m in searched if m.name == "search"]
    if searched:
        chosen[min(plain or searched, key=_aurc).name] = ""
    controls = [m for m in methods if m.family == UNSEARCHED]
    if controls:
        alone = [m for m in controls if "+" not in m.name.removeprefix("search+")]
        chosen[min(alone or controls, key=_aurc).name] = "best control"
    return chosen


def _aurc(method: Method) -> float:
    spread = method.spread(lambda metrics: metrics.get("sc/AURC"))
    return np.inf if spread is None else spread.mean


def _scales(axes: Axes, drawn: list[_Curve]) -> None:
    """Axes in per cent, the risk on a square-root scale where some method errs many times as often as another."""
    ends = [float(curve.risk[-1]) for curve in drawn]
    label = "risk: errors among these"
    if max(ends) > WIDE * min(ends):
        axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
        label += " (square-root scale)"
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05 * max(float(curve.risk.max()) for curve in drawn) or 1.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_xlabel("coverage: share of the predictions that are accepted")
    axes.set_ylabel(label)
    axes.grid(visible=True, linewidth=0.6)
    axes.tick_params(length=3)


def _draw(axes: Axes, curve: _Curve, chosen: Mapping[str, str]) -> None:
    main = curve.method.name in chosen
    axes.plot(
        curve.coverage,
        curve.risk,
        color=curve.method.family.color if main else OTHERS,
        linewidth=1.8 if main else 0.9,
        linestyle="--" if curve.method.name == "deep_ensemble_finetuned" else "-",
        zorder=3 if main else 2,
        label=curve.method.name,
    )


def _names(axes: Axes, drawn: list[_Curve], chosen: Mapping[str, str], height: float) -> None:
    """Writes the names right of the axes, moved apart, with a leader from the end of each curve."""
    points = axes.transData.transform([(1.0, curve.risk[-1]) for curve in drawn])
    ends = axes.transAxes.inverted().transform(points)[:, 1] * height
    axes.text(1.10, 1.02, "method, 1000 × AURC", transform=axes.transAxes, size=SMALL, color=OTHER_NAMES, va="bottom")
    heights = spread_out(ends, LINE, LINE / 2, height - LINE / 2) / height
    for curve, end, at in zip(drawn, ends / height, heights, strict=True):
        main = curve.method.name in chosen
        color = curve.method.family.color if main else OTHERS
        leader = axes.plot([1.0, 1.02, 1.08, 1.09], [end, end, at, at], transform=axes.transAxes, clip_on=False)
        leader[0].set(color=color, linewidth=1.0 if main else 0.6, label="_leader")
        axes.text(
            1.10,
            at,
            _words(curve.method, chosen),
            transform=axes.transAxes,
            va="center_baseline",
            size=SMALL,
            color=curve.method.family.ink if main else OTHER_NAMES,
            weight="bold" if main else "normal",
            gid="name",
        )


def _list(page: Figure, drawn: list[_Curve], chosen: Mapping[str, str], bottom: float) -> None:
    """Writes the names below the axes, the method with the most errors first."""
    across, up = page.get_size_inches()
    curves = sorted(drawn, key=lambda curve: -float(curve.risk[-1]))
    named = [curve.method for curve in curves]
    legend = page.legend(
        handles=[
            Line2D([], [], color=m.family.color if m.name in chosen else OTHERS, linewidth=1.8, label=_words(m, chosen))
            for m in named
        ],
        title="method, 1000 × AURC",
        title_fontsize=SMALL,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(MARGIN / across, bottom / up),
        borderaxespad=0.0,
        labelspacing=0.3,
        frameon=False,
    )
    for text, method in zip(legend.get_texts(), named, strict=True):
        text.set_gid("name")
        text.set_color(method.family.ink if method.name in chosen else OTHER_NAMES)


def _words(method: Method, chosen: Mapping[str, str]) -> str:
    aurc = _aurc(method)
    words = method.title + (f"  {1000 * aurc:.3g}" if np.isfinite(aurc) else "")
    return words + (f"  ({chosen[method.name]})" if chosen.get(method.name) else "")
