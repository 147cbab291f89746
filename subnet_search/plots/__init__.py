"""Figures of a comparison: likelihood and OOD detection against cost, calibration and selective prediction."""

from subnet_search.plots.draw import draw_comparison
from subnet_search.plots.nll_cost import nll_cost
from subnet_search.plots.ood_cost import ood_cost
from subnet_search.plots.reliability import reliability
from subnet_search.plots.risk_coverage import risk_coverage

__all__ = ["draw_comparison", "nll_cost", "ood_cost", "reliability", "risk_coverage"]
