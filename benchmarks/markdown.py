"""Markdown tables of the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(titles: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Returns a table with these titles and a line for each of the sequences of cells."""
    lines = [titles, ["---"] * len(titles), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
