"""Assigns channels to members."""

from subnet_search.search.budget import BudgetConfig, allocate_quotas
from subnet_search.search.config import ALGORITHMS, SearchConfig
from subnet_search.search.dispatch import search_masks
from subnet_search.search.shuffled import shuffled

__all__ = ["ALGORITHMS", "BudgetConfig", "SearchConfig", "allocate_quotas", "search_masks", "shuffled"]
