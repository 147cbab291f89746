"""Colours of figures, in the light and in the dark: contrast as WCAG 2.2 computes it."""

import re
from pathlib import Path

import pytest

from subnet_search.plots.families import FAMILIES
from subnet_search.plots.mask_map import ALL, ALONE, SOME
from subnet_search.plots.page import FAINT, INK
from subnet_search.plots.pair_matrices import FILL, STRENGTH
from subnet_search.plots.sheet import DENSE, ENSEMBLE, MEMBER, OTHERS
from subnet_search.report.theme import DARK, themed, variables

TEXT, GRAPHICS = 4.5, 3.0
STYLE = (Path(__file__).parents[2] / "subnet_search" / "report" / "templates" / "style.css").read_text()


def luminance(channels: list[float]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def channels(colour: str) -> list[float]:
    return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def both(colour: str) -> tuple[list[float], list[float]]:
    """A colour in the light and in the dark."""
    return channels(colour), channels(DARK.get(colour.lower(), colour))


@pytest.mark.parametrize("colour", [INK, FAINT, "#000000", *(family.ink for family in FAMILIES)])
def test_words_can_be_read_on_the_surface(colour) -> None:
    for shown, surface in zip(both(colour), both("#ffffff"), strict=True):
        assert contrast(shown, surface) >= TEXT


@pytest.mark.parametrize("colour", [DENSE, ENSEMBLE, MEMBER, *OTHERS, ALL, SOME, ALONE])
def test_marks_can_be_seen_on_the_surface(colour) -> None:
    for shown, surface in zip(both(colour), both("#ffffff"), strict=True):
        assert contrast(shown, surface) >= GRAPHICS


@pytest.mark.parametrize("value", [0.0, 0.3, 0.6, 1.0])
def test_numbers_can_be_read_in_every_cell_of_a_matrix(value) -> None:
    for ink, fill, surface in zip(both(INK), both(FILL), both("#ffffff"), strict=True):
        strength = STRENGTH * value
        cell = [strength * f + (1 - strength) * s for f, s in zip(fill, surface, strict=True)]
        assert contrast(ink, cell) >= TEXT


def test_the_surface_of_the_figures_is_that_of_their_card() -> None:
    cards = re.findall(r"--card: (#\w{6})", STYLE)
    assert cards == ["#ffffff", DARK["#ffffff"]]


def test_colours_become_variables_of_both_themes() -> None:
    text = themed('<path style="fill: #D55E00; stroke: #123456"/>')
    assert text == '<path style="fill: var(--f-d55e00); stroke: #123456"/>'
    assert variables(dark=False)["--f-d55e00"] == "#d55e00"
    assert variables(dark=True)["--f-d55e00"] == DARK["#d55e00"]
