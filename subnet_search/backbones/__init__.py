"""Trained networks: built-in or the user's own, with weights that are read without executing anything."""

from subnet_search.backbones.card import Card
from subnet_search.backbones.load import Backbone, build_network, load_backbone

__all__ = ["Backbone", "Card", "build_network", "load_backbone"]
