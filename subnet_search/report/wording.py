"""How figures are written in sentences and tiles."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float, digits: int = 0) -> str:
    """Writes a share as per cent; the number is not parted from its sign at the end of a line."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def amount(value: float) -> str:
    """Writes a large number in millions (M), billions (G) or thousands (k), with three digits."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}\N{NO-BREAK SPACE}{letter}"
    return f"{value:.0f}"


def listed(parts: Sequence[str]) -> str:
    """Joins parts of a sentence with commas and an `and`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
