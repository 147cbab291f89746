"""All figures of a comparison, as files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes
from subnet_search.plots.curves import Curves
from subnet_search.plots.nll_cost import nll_cost
from subnet_search.plots.ood_cost import ood_cost
from subnet_search.plots.page import FORMATS, rendered
from subnet_search.plots.reliability import reliability
from subnet_search.plots.risk_coverage import risk_coverage
from subnet_search.plots.summary import Rows

log = logging.getLogger("subnet_search")


def draw_comparison(
    rows: Rows, curves: Curves, out: str | Path, missing: Mapping[str, str] | None = None
) -> list[Path]:
    """Draws every figure for which there is something, as SVG and PNG.

    All are drawn before the first is written, so that rows that cannot be drawn leave what was there as it was.

    Args:
        rows: Result rows of one comparison.
        curves: Their curves, as in `curves.jsonl`.
        out: Folder; files in it of the same names are replaced.
        missing: Method → why it, or a seed of it, could not be run, for the notes.

    Returns:
        The files: `nll_cost`, `ood_cost`, `reliability` and `risk_coverage`, each as `.svg` and `.png`.

    Raises:
        SubnetSearchError: where rows or curves are not of one comparison, or `out` is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise SubnetSearchError(f"{out}: found a file, expected a folder for figures; choose another name")
    figures = {
        "nll_cost": nll_cost(rows, missing),
        "ood_cost": ood_cost(rows, missing),
        "reliability": reliability(rows, curves, missing),
        "risk_coverage": risk_coverage(rows, curves, missing),
    }
    files: dict[Path, bytes] = {}
    for name, figure in figures.items():
        if figure is None:
            log.info("%s is not drawn: no method has what it shows", name)
            continue
        files |= {out / f"{name}.{kind}": rendered(figure, kind) for kind in FORMATS}
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
