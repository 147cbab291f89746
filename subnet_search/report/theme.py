"""The colours of the figures, in the light and in the dark."""

from __future__ import annotations

import re

DARK = {
    "#ffffff": "#17191e",
    "#000000": "#f1f3f5",
    "#222222": "#e6e8eb",
    "#6b6b6b": "#a7aeb8",
    "#e4e4e4": "#333842",
    "#8c8c8c": "#8f959e",
    "#c9ced6": "#474d58",
    "#c8c8c8": "#596069",
    "#c4c4c4": "#626974",
    "#d55e00": "#ff8b3d",
    "#b94f00": "#ff9d5c",
    "#c47a42": "#c47a42",
    "#f2c9ac": "#5a3a22",
    "#0072b2": "#4aa8e0",
    "#005f94": "#6cbcf0",
    "#1f77b4": "#0e5a94",
    "#cc79a7": "#e39ac4",
    "#a34a7c": "#e9a8cd",
    "#009e73": "#2fc79a",
    "#007a59": "#45d3a8",
    "#b87a00": "#e6a93a",
    "#56b4e9": "#7fcaf5",
    "#2a82b5": "#7fcaf5",
    "#1f719f": "#7fcaf5",
}
"""Colour of a figure → what stands for it on a dark page. Colours that are not here stay as they are."""

_COLOUR = re.compile("|".join(DARK), re.IGNORECASE)


def variables(*, dark: bool) -> dict[str, str]:
    """Returns the CSS variables that `themed` refers to, by name."""
    return {_name(light): night if dark else light for light, night in DARK.items()}


def themed(svg: str) -> str:
    """Replaces the colours of an SVG by variables of the page."""
    return _COLOUR.sub(lambda found: f"var({_name(found[0])})", svg)


def _name(colour: str) -> str:
    return f"--f-{colour[1:].lower()}"
