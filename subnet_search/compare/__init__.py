"""What one would get from each method, for the same money: every system on the same images, in one table."""

from subnet_search.compare.comparison import Comparison, compare
from subnet_search.compare.config import METHODS, CompareConfig
from subnet_search.compare.rows import read_rows, settings_digest

__all__ = ["METHODS", "CompareConfig", "Comparison", "compare", "read_rows", "settings_digest"]
