"""The masks: which member keeps which channel, a small map for each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from subnet_search.plots.page import FAINT, INK, axes_at
from subnet_search.plots.sheet import COLUMN, FINE, LEFT, RIGHT, new_sheet, sheet_style, shortened

ALL, SOME, ALONE = "#0071B2", "#009D73", "#D45E00"
"""Channels that all members keep, some and one alone. They are nearly those of Okabe and Ito's palette, and have a
contrast of 3 to white and to black: the maps are made of pixels, which do not change with the theme of a page."""
HEAD, TITLE, ROW, GAP = 0.3, 0.22, 0.105, 0.08
"""Inches: the legend, the name of a group, a member, and what is between two groups."""


@dataclass(frozen=True)
class GroupMap:
    """The masks of one group.

    Attributes:
        name: Name of the group.
        kept: bool `[member, channel]`, the channels in the order in which they are drawn.
    """

    name: str
    kept: NDArray[np.bool_]


def mask_map(groups: Sequence[GroupMap]) -> Figure:
    """Draws a row a member and a column a channel, for each group.

    Args:
        groups: The groups, from the top down; a page holds about nine of four members.
    """
    heights = [max(0.3, ROW * len(group.kept)) for group in groups]
    whole = HEAD + sum(heights) + len(groups) * (TITLE + GAP)
    with sheet_style():
        figure = new_sheet(whole)
        top = whole - HEAD
        for group, height in zip(groups, heights, strict=True):
            top -= TITLE + height
            axes = axes_at(figure, LEFT, top, COLUMN - LEFT - RIGHT, height)
            members, channels = group.kept.shape
            axes.imshow(
                _coloured(group.kept), aspect="auto", interpolation="none", extent=(0, channels, members, 0), zorder=1
            )
            for member in range(1, members):
                axes.axhline(member, color="white", linewidth=1.0, zorder=2)
            axes.set_yticks([0.5, members - 0.5], ["1", f"{members}"], color=INK)
            axes.set_xticks([])
            axes.tick_params(length=0, pad=3)
            for spine in axes.spines.values():
                spine.set(visible=True, color=FAINT, linewidth=0.5)
            axes.set_title(
                f"{shortened(group.name, 34)} · {channels} channels", loc="left", size=FINE, color=INK, pad=3
            )
            top -= GAP
        figure.axes[0].set_ylabel("member", size=FINE, color=FAINT, labelpad=1)
        _legend(figure)
    return figure


def _coloured(kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colours of the cells, `[member, channel, rgba]`; what is not kept is see-through."""
    members = len(kept)
    count = kept.sum(axis=0)
    all_, some, alone = (np.array(to_rgb(colour)) * 255 for colour in (ALL, SOME, ALONE))
    colours = np.where((count == members)[:, None], all_, np.where((count == 1)[:, None], alone, some)).round()
    cells = np.zeros((*kept.shape, 4), dtype=np.uint8)
    cells[..., :3] = colours
    cells[..., 3] = np.where(kept, 255, 0)
    return cells


def _legend(figure: Figure) -> None:
    named = (
        ("kept by all", ALL),
        ("by several", SOME),
        ("by one alone", ALONE),
    )
    handles = [Patch(color=colour, label=words) for words, colour in named]
    handles.append(Patch(facecolor="white", edgecolor=FAINT, linewidth=0.5, label="cut"))
    place = (LEFT / COLUMN, 1 - 0.06 / figure.get_size_inches()[1])
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, ncols=4, columnspacing=0.9, handlelength=1.0)
