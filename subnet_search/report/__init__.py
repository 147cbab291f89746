"""One page that says what a run, a comparison or a study has come to: `report.html`, with its figures and data beside it."""

from __future__ import annotations

from pathlib import Path

from subnet_search.run_folder import RunFolder

__all__ = ["write_run_report"]


def write_run_report(folder: RunFolder) -> Path:
    """Writes the report of a run that has been evaluated.

    Args:
        folder: The run.

    Returns:
        The page.
    """
    return folder.report
