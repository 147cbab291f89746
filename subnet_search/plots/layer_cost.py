"""Where the multiply-accumulates went: layer by layer, in the dense network, in a member and in all members together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from subnet_search.plots.page import axes_at
from subnet_search.plots.sheet import (
    COLUMN,
    DENSE,
    ENSEMBLE,
    FINE,
    LEFT,
    MEMBER,
    RIGHT,
    legend_above,
    new_sheet,
    quiet,
    sheet_style,
    shortened,
    sparse,
)

HEAD, HEIGHT, BELOW = 0.3, 2.1, 1.1
BARS = 24
"""With more layers bars are too thin, and steps are drawn."""
_UNITS = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"), (1.0, ""))


@dataclass(frozen=True)
class LayerBars:
    """The cost of one layer, in multiply-accumulates a sample.

    Attributes:
        layer: Dotted name.
        dense: In the dense network.
        member: In a member, mean over the members.
        together: In all members together.
    """

    layer: str
    dense: int
    member: float
    together: int


def layer_cost(layers: Sequence[LayerBars]) -> Figure:
    """Draws each layer in the dense network and in a member, and a line over them for all members together.

    Args:
        layers: In order of execution.
    """
    highest = max(max(layer.dense, layer.together) for layer in layers)
    unit, words = next((unit, words) for unit, words in _UNITS if highest >= unit or unit == 1.0)
    places = np.arange(len(layers))
    dense, member, together = (
        np.array([getattr(layer, part) for layer in layers]) / unit for part in ("dense", "member", "together")
    )
    with sheet_style():
        figure = new_sheet(HEAD + HEIGHT + BELOW)
        axes = axes_at(figure, LEFT, BELOW, COLUMN - LEFT - RIGHT, HEIGHT)
        borders = np.arange(len(layers) + 1) - 0.5
        if len(layers) <= BARS:
            axes.bar(places - 0.21, dense, 0.42, color=DENSE, linewidth=0, label="dense")
            axes.bar(places + 0.21, member, 0.42, color=MEMBER, linewidth=0, label="one member")
        else:
            axes.stairs(dense, borders, color=DENSE, linewidth=1.3, label="dense")
            axes.stairs(member, borders, fill=True, color=MEMBER, label="one member")
        axes.stairs(together, borders, color=ENSEMBLE, linewidth=1.3, label="all members together")
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.set_ylim(0, 1.05 * max(dense.max(), together.max()))
        axes.set_ylabel(f"{words} MACs".strip())
        quiet(axes)
        ticks, names = sparse([shortened(layer.layer, 18) for layer in layers])
        axes.set_xticks(ticks, names, rotation=90, size=FINE - 1)
        legend_above(figure, axes, 3)
    return figure
