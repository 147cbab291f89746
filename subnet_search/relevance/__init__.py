"""How much each channel matters to each member."""

from subnet_search.relevance.config import Criterion, RelevanceConfig
from subnet_search.relevance.gates import gated
from subnet_search.relevance.result import Relevance
from subnet_search.relevance.score import score_relevance

__all__ = ["Criterion", "Relevance", "RelevanceConfig", "gated", "score_relevance"]
