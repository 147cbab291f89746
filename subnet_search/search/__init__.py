"""Assigns channels to members."""

from subnet_search.search.budget import BudgetConfig, allocate_quotas
from subnet_search.search.config import ALGORITHMS, ENTWINED, SCORE_DRIVEN, SearchConfig
from subnet_search.search.depth import depth_masks
from subnet_search.search.dispatch import Quotas, search_masks
from subnet_search.search.rescoring import search_in_rounds
from subnet_search.search.shuffled import shuffled

__all__ = [
    "ALGORITHMS",
    "ENTWINED",
    "SCORE_DRIVEN",
    "BudgetConfig",
    "Quotas",
    "SearchConfig",
    "allocate_quotas",
    "depth_masks",
    "search_in_rounds",
    "search_masks",
    "shuffled",
]
