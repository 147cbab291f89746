"""The part of a run's report that shows whether stated confidence can be relied upon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subnet_search.evaluate import Answers, Reliability, RiskCoverage, reliability, risk_coverage
from subnet_search.plots.reliability_pair import Bins, reliability_pair
from subnet_search.plots.selective_pair import selective_pair
from subnet_search.report.page import Drawing, Section
from subnet_search.report.wording import percent

NETWORKS = ("dense", "ensemble")


def trust_section(dense: Answers, ensemble: Answers, calibration: Sequence[float]) -> Section:
    """Draws reliability, and risk against coverage.

    Args:
        dense: What the dense network said on the test images.
        ensemble: What the ensemble said.
        calibration: ECE of both.
    """
    words = (
        "A network that says 80 % should be right in 80 % of such cases, and the images of which it is least certain "
        "should be those that it gets wrong."
    )
    curves = [reliability(answers) for answers in (dense, ensemble)]
    risks = [risk_coverage(answers) for answers in (dense, ensemble)]
    return Section(
        "trust", "Can its confidence be relied upon?", words, [_reliability(curves, calibration), _risk(risks)]
    )


def _reliability(curves: Sequence[Reliability], calibration: Sequence[float]) -> Drawing:
    rows: list[dict[str, Any]] = []
    for name, curve in zip(NETWORKS, curves, strict=True):
        for k, count in enumerate(curve.count):
            border = k / len(curve.count)
            rows.append(
                {
                    "network": name,
                    "from": border,
                    "images": count,
                    "confidence": curve.confidence[k],
                    "accuracy": curve.accuracy[k],
                }
            )
    stated = " and ".join(f"{name} {percent(error, 1)}" for name, error in zip(NETWORKS, calibration, strict=True))
    return Drawing(
        name="reliability",
        title="Reliability",
        words=(
            "Dots on the dashed line are honest; below it the network is too sure of itself, above it too modest. "
            f"Hollow dots: fewer than ten images. Grey: share of the images. The mean gap, the ECE: {stated}."
        ),
        alt=f"Reliability diagrams of both networks. Calibration errors: {stated}.",
        figure=reliability_pair(*(_bins(curve) for curve in curves)),
        data=rows,
    )


def _risk(curves: Sequence[RiskCoverage]) -> Drawing:
    at_80 = [float(np.interp(0.8, curve.coverage, curve.risk)) for curve in curves]
    words = " and ".join(f"{name} {percent(risk, 2)}" for name, risk in zip(NETWORKS, at_80, strict=True))
    return Drawing(
        name="risk-coverage",
        title="What refusing is worth",
        words=(
            "The least certain images are refused first, from the right to the left; lower is better. "
            f"With every fifth image refused, errors among the others: {words}."
        ),
        alt=f"Error rate against the share of accepted images. At 80 % accepted: {words}.",
        figure=selective_pair(*((curve.coverage, curve.risk) for curve in curves)),
        data=[
            {"network": name, "coverage": coverage, "risk": risk}
            for name, curve in zip(NETWORKS, curves, strict=True)
            for coverage, risk in zip(curve.coverage, curve.risk, strict=True)
        ],
    )


def _bins(curve: Reliability) -> Bins:
    def known(values: Sequence[float | None]) -> NDArray[np.float64]:
        return np.array([np.nan if value is None else value for value in values])

    return np.array(curve.count, dtype=float), known(curve.confidence), known(curve.accuracy)
