"""The curves of a comparison by method: those of its rows, averaged over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subnet_search.errors import SubnetSearchError
from subnet_search.plots.summary import Method

Curves = Sequence[Mapping[str, Any]]
Array = NDArray[np.float64]


def curves_of(method: Method, curves: Curves) -> list[Mapping[str, Any]]:
    """Returns the curves that belong to the rows of a method, one for each seed that has one.

    Args:
        method: The method.
        curves: Lines of `curves.jsonl`. An interrupted comparison may have written one twice: the last counts.

    Raises:
        SubnetSearchError: where they were made with several settings, so that some belong to other rows.
    """
    seeds = {row["seed"] for row in method.rows}
    own = {line["seed"]: line for line in curves if line["method"] == method.name and line["seed"] in seeds}
    settings = sorted({line["settings"] for line in curves if line["method"] == method.name and line["seed"] in seeds})
    if len(settings) > 1:
        raise SubnetSearchError(
            f"figures of a comparison: curves of {method.name} have the settings {', '.join(settings)}; "
            "expected one: pass the curves of these rows only"
        )
    return [own[seed] for seed in sorted(own)]


def pooled_bins(curves: Curves) -> tuple[Array, Array, Array]:
    """Averages the bins of reliability diagrams, each weighted with its number of samples.

    Args:
        curves: Those of one method, at least one.

    Returns:
        Mean number of samples in each bin; mean confidence and accuracy, NaN in bins that are empty for all seeds;
        each `[bin]`.
    """
    bins = [line["reliability"] for line in curves]
    count = np.array([b["count"] for b in bins], dtype=float)
    total = count.sum(axis=0)
    confidence, accuracy = (
        (count * np.array([[v or 0.0 for v in b[key]] for b in bins])).sum(axis=0) / np.where(total > 0, total, np.nan)
        for key in ("confidence", "accuracy")
    )
    return count.mean(axis=0), confidence, accuracy


def mean_risk(curves: Curves) -> tuple[Array, Array]:
    """Averages the risk at each coverage.

    Args:
        curves: Those of one method, at least one.

    Returns:
        Coverage and mean risk, each `[point]`.

    Raises:
        SubnetSearchError: where the curves are of test sets of several sizes.
    """
    coverage = [line["risk_coverage"]["coverage"] for line in curves]
    if any(line != coverage[0] for line in coverage):
        sizes = ", ".join(str(len(line)) for line in coverage)
        raise SubnetSearchError(
            f"figures of a comparison: risk-coverage curves of {curves[0]['method']} are on different points "
            f"({sizes} of them); expected the same test images for all seeds"
        )
    return np.array(coverage[0]), np.mean([line["risk_coverage"]["risk"] for line in curves], axis=0)
