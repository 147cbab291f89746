"""Assigns channels to members."""

from subnet_search.search.algorithms import ALGORITHMS, CONTROLS, ENTWINED, MEASURING, OVERLAPPING, SCORE_DRIVEN
from subnet_search.search.budget import (
    BudgetConfig,
    allocate_quotas,
    thinned_groups,
    trunk_keep_to_take,
    trunk_widths,
)
from subnet_search.search.config import SearchConfig
from subnet_search.search.depth import depth_masks
from subnet_search.search.dispatch import Quotas, search_masks
from subnet_search.search.overlap import price_to_take
from subnet_search.search.rescoring import search_in_rounds
from subnet_search.search.shuffled import shuffled
from subnet_search.search.trunk_depth import MOST_KEPT_BEHIND_TRUNK, trunks_to_try

__all__ = [
    "ALGORITHMS",
    "CONTROLS",
    "ENTWINED",
    "MEASURING",
    "MOST_KEPT_BEHIND_TRUNK",
    "OVERLAPPING",
    "SCORE_DRIVEN",
    "BudgetConfig",
    "Quotas",
    "SearchConfig",
    "allocate_quotas",
    "depth_masks",
    "price_to_take",
    "search_in_rounds",
    "search_masks",
    "shuffled",
    "thinned_groups",
    "trunk_keep_to_take",
    "trunk_widths",
    "trunks_to_try",
]
