"""The images that a network doubts most, with what it takes them for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from subnet_search.plots.page import FAINT, INK, axes_at
from subnet_search.plots.sheet import COLUMN, FINE, new_sheet, sheet_style, shortened

COLUMNS, GAP, LINE = 4, 0.12, 0.14
SIDE = (COLUMN - (COLUMNS + 1) * GAP) / COLUMNS
LETTERS = 13
"""How many letters fit under an image."""


@dataclass(frozen=True)
class Shown:
    """An image with its caption.

    Attributes:
        image: uint8 `[channel, height, width]` with one or three channels.
        heading: First line, such as the true class.
        lines: Class and probability, the most probable first.
    """

    image: NDArray[np.uint8]
    heading: str
    lines: tuple[tuple[str, float], ...]


def picture_sheet(pictures: Sequence[Shown]) -> Figure:
    """Lays images in rows of four, from the upper left on.

    Args:
        pictures: At least one.
    """
    below = LINE * (1 + max(len(picture.lines) for picture in pictures)) + GAP
    rows = math.ceil(len(pictures) / COLUMNS)
    with sheet_style():
        figure = new_sheet(rows * (SIDE + below) + GAP)
        for k, picture in enumerate(pictures):
            row, column = divmod(k, COLUMNS)
            bottom = (rows - 1 - row) * (SIDE + below) + below
            axes = axes_at(figure, GAP + column * (SIDE + GAP), bottom, SIDE, SIDE)
            axes.set_axis_off()
            image = np.moveaxis(picture.image, 0, -1)
            axes.imshow(image if image.shape[-1] == 3 else np.repeat(image, 3, axis=-1), interpolation="none")
            words = [(shortened(picture.heading, LETTERS), INK, "bold")]
            words += [(f"{p:.0%} {shortened(name, LETTERS - 4)}", FAINT, "normal") for name, p in picture.lines]
            for line, (text, color, weight) in enumerate(words):
                axes.text(
                    0.0,
                    -(0.04 + LINE * line) / SIDE,
                    text,
                    transform=axes.transAxes,
                    size=FINE - 0.5,
                    color=color,
                    weight=weight,
                    va="top",
                )
    return figure
