"""The assignment of channels to members for fixed quotas: optimal, or with a certificate of how far from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnet_search.search.draft import draft
from subnet_search.search.overlap import Mask, Scores, objective
from subnet_search.search.pattern_dual import solve_dual
from subnet_search.search.pattern_milp import solve_milp
from subnet_search.search.patterns import make_patterns
from subnet_search.search.rounding import Assignment, round_patterns
from subnet_search.search.transport import transport
from subnet_search.search.uniform_bound import uniform_bound

MILP_CELLS = 512  # channels × patterns up to which branch and bound takes well under a second
DUAL_CELLS = 2**20  # channels × 2^K up to which all sets of members are listed: 8 MiB an array, about 0.3 s


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

    @property
    def exact(self) -> bool:
        """Whether the assignment is optimal, up to rounding."""
        return self.gap < 1e-7

    @staticmethod
    def total(certificates: Sequence[Certificate]) -> Certificate:
        """Adds up the certificates of groups, which are independent of each other."""
        return Certificate(sum(c.value for c in certificates), sum(c.bound for c in certificates))

    def notes(self) -> dict[str, float | bool]:
        """Returns the figures by name, as plain JSON values."""
        return {"bound": self.bound, "gap": self.gap, "exact": self.exact}


def flow(scores: Scores, quotas: Sequence[int], lambda_overlap: float, cover: bool = False) -> tuple[Mask, Certificate]:
    """Maximises relevance less overlap of pairs (see `subnet_search.search.overlap`) in one group.

    - With λ = 0, or with a λ so large that no overlap pays and quotas that fit side by side, it is a transportation
      problem and solved exactly.
    - Small groups are solved exactly by branch and bound over (channel, pattern of members).
    - With very many members (2048 channels and K > 9) the sets of members are too many to list: a draft is improved
      by swaps, under a looser bound.
    - Elsewhere the Lagrangian dual gives the bound and a nearly integral optimum, which is rounded, repaired to the
      exact quotas and improved by swaps.

    Args:
        scores: Normalised scores `[member, channel]`, at least 0.
        quotas: How many channels each member keeps, from 1 to the width.
        lambda_overlap: Weight λ of the overlap, at least 0.
        cover: Each channel is used by some member, where the quotas add up to the width.

    Returns:
        The mask, bool `[member, channel]` with exact quotas, and its certificate.
    """
    channels = scores.shape[1]
    cover = cover and sum(quotas) >= channels
    spread = float((scores.max(axis=1) - scores.min(axis=1)).max())
    mask: Mask | None = None
    bound = np.inf
    if lambda_overlap == 0:
        mask = transport(scores, quotas, 1 if cover else 0, len(quotas))
    elif sum(quotas) <= channels and lambda_overlap / channels >= spread:
        # one shared channel more costs at least λ/C and can gain no more than the spread
        mask = transport(scores, quotas, 0, 1)
    if mask is not None:
        value = objective(scores, mask, lambda_overlap)
        return mask, Certificate(value, value)

    if channels * 2 ** len(quotas) > DUAL_CELLS:
        mask = _improved(scores, draft(scores, quotas), lambda_overlap, cover)
        return mask, _certified(
            scores, mask, lambda_overlap, uniform_bound(scores, quotas, lambda_overlap, mask, cover)
        )
    patterns = make_patterns(quotas, channels, cover)
    if channels * len(patterns.members) <= MILP_CELLS:
        solved = solve_milp(scores, quotas, lambda_overlap, patterns)
        if solved is not None:
            mask, bound = solved
            certificate = _certified(scores, mask, lambda_overlap, bound)
            if certificate.exact:
                return mask, certificate
    dual = solve_dual(scores, quotas, lambda_overlap, patterns)
    bound = min(bound, dual.bound)
    starts = [mask] if mask is not None else []
    starts.append(_rounded(scores, quotas, lambda_overlap, cover, round_patterns(dual.probabilities, patterns)))
    best = max(
        (_improved(scores, start, lambda_overlap, cover) for start in starts),
        key=lambda m: objective(scores, m, lambda_overlap),
    )
    return best, _certified(scores, best, lambda_overlap, bound)


def _certified(scores: Scores, mask: Mask, lambda_overlap: float, bound: float) -> Certificate:
    """Sets the assignment beside its bound, and checks that the bound is one."""
    value = objective(scores, mask, lambda_overlap)
    assert value <= bound + 1e-6 * max(1.0, abs(bound)), f"objective {value} above its bound {bound}"
    return Certificate(value, max(value, bound))


def _rounded(scores: Scores, quotas: Sequence[int], lambda_overlap: float, cover: bool, mask: Mask) -> Mask:
    """Repairs the quotas; where cover leaves no way to do so, a draft takes the place of the rounded mask."""
    assignment = Assignment(scores, mask, lambda_overlap, cover)
    return assignment.mask if assignment.repair(quotas) else draft(scores, quotas)


def _improved(scores: Scores, mask: Mask, lambda_overlap: float, cover: bool) -> Mask:
    """Improves by swaps."""
    assignment = Assignment(scores, mask, lambda_overlap, cover)
    assignment.improve()
    return assignment.mask
