"""One page that says what a run, a comparison or a study has come to: `report.html`, with its figures and data beside it."""

from __future__ import annotations

from pathlib import Path

from subnet_search.run_folder import RunFolder

__all__ = ["write_run_report"]


def write_run_report(folder: RunFolder) -> Path:
    """Writes the report of a run that has been evaluated, from what is in its folder.

    Args:
        folder: The run. `report.html` and the figures in `report` that are there are replaced.

    Returns:
        The page: one file that needs no other and no network.

    Raises:
        SubnetSearchError: where the run has not been evaluated, something in the folder is damaged, or the report
            cannot be written.
    """
    from subnet_search.report import run_report  # matplotlib takes long to load, and most commands draw nothing

    return run_report.write(folder)
