"""From the content of a report to its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes, write_text
from subnet_search.plots.page import FORMATS
from subnet_search.plots.sheet import rendered_sheet
from subnet_search.report.inline_svg import inline_svg
from subnet_search.report.page import Page
from subnet_search.report.theme import variables

FIGURES = "report"
"""Name of the folder beside the page: its figures as SVG and PNG, and what is drawn as CSV."""


def write_page(page: Page, path: Path) -> Path:
    """Writes a report: first the folder with its figures and their data, then the page, which needs none of these.

    Args:
        page: Its content.
        path: The page, such as `runs/digits/report.html`. A report there is replaced.

    Returns:
        The page.

    Raises:
        SubnetSearchError: where it cannot be written there.
    """
    folder = path.parent / FIGURES
    files: dict[str, bytes] = {}
    inline, narrow = {}, {}
    for drawing in page.drawings:
        files |= {f"{drawing.name}.{kind}": rendered_sheet(drawing.figure, kind) for kind in FORMATS}
        files[f"{drawing.name}.csv"] = table_csv(drawing.data)
        inline[drawing.name] = inline_svg(files[f"{drawing.name}.svg"], drawing.name, drawing.alt)
        if drawing.narrow is not None:
            content = rendered_sheet(drawing.narrow, "svg")
            narrow[drawing.name] = inline_svg(content, f"{drawing.name}-narrow", drawing.alt)
    for table in (table for section in page.sections for table in section.tables):
        if table.name:
            cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
            files[f"{table.name}.csv"] = table_csv(table.data or cells)
    html = (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            figures=inline,
            narrow=narrow,
            folder=FIGURES,
            light=variables(dark=False),
            dark=variables(dark=True),
        )
    )
    try:
        for name, content in files.items():
            write_bytes(folder / name, content)
        for old in _stale(folder, files):
            old.unlink()
        write_text(path, html)
    except OSError as problem:
        raise SubnetSearchError(f"{path} cannot be written ({problem}); make the folder writable") from problem
    return path


def table_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns rows as a CSV file in UTF-8; the first row has all columns, what a later one lacks stays empty."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def _stale(folder: Path, files: Mapping[str, bytes]) -> Iterable[Path]:
    """Figures of an earlier report that this one does not have."""
    kinds = {f".{kind}" for kind in (*FORMATS, "csv")}
    return [old for old in folder.glob("*") if old.name not in files and old.suffix in kinds]


def _environment() -> Environment:
    loader = PackageLoader("subnet_search.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
