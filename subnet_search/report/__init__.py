"""One page that says what a run, a comparison or a study has come to: `report.html`, with its figures and data beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subnet_search.report import compare_report, run_report, study_report
from subnet_search.report.page import Drawing
from subnet_search.report.study_report import StudyContent, TrialLine
from subnet_search.run_folder import REPORT, RunFolder

__all__ = ["Drawing", "StudyContent", "TrialLine", "write_compare_report", "write_run_report", "write_study_report"]


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
    return run_report.write(folder)


def write_compare_report(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    missing: Mapping[str, str],
    config: Any,
    passed: Sequence[str] = (),
) -> Path:
    """Writes the report of a comparison.

    Args:
        folder: Folder of the comparison. `report.html` and the figures in `report` that are there are replaced.
        rows: Its result rows.
        curves: Their curves, as in `curves.jsonl`.
        missing: Method → why it, or a seed of it, could not be run.
        config: All settings, a dataclass.
        passed: Which of `network` and `images` were objects of Python, which no command can name.

    Returns:
        The page: one file that needs no other and no network.

    Raises:
        SubnetSearchError: where rows or curves are not of one comparison, or the report cannot be written.
    """
    return compare_report.write(folder / REPORT, rows, curves, missing, config, passed)


def write_study_report(folder: Path, study: StudyContent) -> Path:
    """Writes the report of a study.

    Args:
        folder: Folder of the study. `report.html` and the figures in `report` that are there are replaced.
        study: What it has come to.

    Returns:
        The page: one file that needs no other and no network.

    Raises:
        SubnetSearchError: where the report cannot be written.
    """
    return study_report.write(folder / REPORT, study)
