"""Finds K accurate, independent subnetworks inside a trained network and ships them as one that knows when it does not know."""

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.compare import CompareConfig, compare
from subnet_search.data import load_data, split
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble, Uncertainty, recalibrate
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import evaluate
from subnet_search.export import export_ensemble, load_ensemble
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet, full_masks
from subnet_search.packed import member_network, pack
from subnet_search.pipeline import run
from subnet_search.relevance import Relevance, RelevanceConfig, score_relevance
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, search_masks, shuffled, trunks_to_try
from subnet_search.settings import RunConfig

__all__ = [
    "Backbone",
    "BudgetConfig",
    "Card",
    "CompareConfig",
    "EnsembleConfig",
    "FinetuneConfig",
    "GroupGraph",
    "MaskSet",
    "Relevance",
    "RelevanceConfig",
    "RunConfig",
    "SearchConfig",
    "SubnetEnsemble",
    "SubnetSearchError",
    "Uncertainty",
    "allocate_quotas",
    "compare",
    "evaluate",
    "export_ensemble",
    "find_groups",
    "finetune",
    "full_masks",
    "load_backbone",
    "load_data",
    "load_ensemble",
    "member_network",
    "pack",
    "recalibrate",
    "run",
    "score_relevance",
    "search_masks",
    "shuffled",
    "split",
    "trunks_to_try",
]
