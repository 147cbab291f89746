"""Exact assignment with a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnet_search.search.draft import draft
from subnet_search.search.overlap import Mask, Scores, objective


@dataclass(frozen=True)
class Certificate:
    """What is known about the quality of an assignment.

    Attributes:
        value: Objective of the assignment.
        bound: No assignment has a larger objective.
    """

    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Relative gap (bound − value) / |value|, at least 0."""
        return max(0.0, self.bound - self.value) / max(abs(self.value), 1e-12)

    @staticmethod
    def total(certificates: Sequence[Certificate]) -> Certificate:
        """Adds up the certificates of groups, which are independent of each other."""
        return Certificate(sum(c.value for c in certificates), sum(c.bound for c in certificates))

    def notes(self) -> dict[str, float]:
        """Returns the figures by name, as plain JSON values."""
        return {"bound": self.bound, "gap": self.gap}


def flow(scores: Scores, quotas: Sequence[int], lambda_overlap: float, cover: bool = False) -> tuple[Mask, Certificate]:
    """Placeholder."""
    mask = draft(scores, quotas)
    best = sum(np.sort(row)[::-1][:q].sum() for row, q in zip(scores, quotas, strict=True))
    return mask, Certificate(objective(scores, mask, lambda_overlap), float(best))
