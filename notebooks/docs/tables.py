"""Puts the tables of the benchmarks into the pages: one place for every number.

`<!-- table: latency | network, masks, packed | network=resnet20 -->` becomes the table of that name in
benchmarks/README.md, with the columns named and the rows in which a column has that value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "benchmarks" / "README.md"
MARK = re.compile(r"<!-- table: (?P<name>\w+)(?: \| (?P<columns>[^|]+?))?(?: \| (?P<rows>[^|]+?))? -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark by its table; mkdocs calls this for each page."""
    return MARK.sub(_table, markdown)


def _table(mark: re.Match[str]) -> str:
    heading, *rows = _rows(mark["name"])
    wanted = _listed(mark["columns"]) or heading
    conditions = [condition.split("=", 1) for condition in _listed(mark["rows"])]
    for name in [*wanted, *(name for name, _ in conditions)]:
        if name not in heading:
            raise ValueError(f"{mark[0]}: no column {name!r} in {SOURCE}, expected some of {heading}")
    kept = [row for row in rows if all(row[heading.index(name)] == value for name, value in conditions)]
    if not kept:
        raise ValueError(f"{mark[0]}: no row of {SOURCE} is left, expected at least one")
    places = [heading.index(name) for name in wanted]
    lines = [wanted, ["---"] * len(wanted), *([row[place] for place in places] for row in kept)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(name: str) -> list[list[str]]:
    """The cells of a table, line by line, the heading first."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", SOURCE.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ValueError(f"there is no table {name!r} in {SOURCE}")
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not set(line) <= set("|-: ")]


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []
