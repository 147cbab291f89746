"""Finds K accurate, independent subnetworks inside a trained network and ships them as one that knows when it does not know."""

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.ensemble import SubnetEnsemble, Uncertainty
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import evaluate
from subnet_search.export import export_ensemble, load_ensemble
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet
from subnet_search.pipeline import run
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.search import BudgetConfig, SearchConfig, search_masks
from subnet_search.settings import RunConfig

__all__ = [
    "Backbone",
    "BudgetConfig",
    "Card",
    "FinetuneConfig",
    "GroupGraph",
    "MaskSet",
    "RelevanceConfig",
    "RunConfig",
    "SearchConfig",
    "SubnetEnsemble",
    "SubnetSearchError",
    "Uncertainty",
    "evaluate",
    "export_ensemble",
    "find_groups",
    "finetune",
    "load_backbone",
    "load_ensemble",
    "run",
    "score_relevance",
    "search_masks",
]
