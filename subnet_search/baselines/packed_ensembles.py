"""Packed-Ensembles (Laurent et al. 2023): K thin networks that together are as wide as one wide network."""

from __future__ import annotations

from dataclasses import replace

import torch

from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.baselines.scratch import untrained
from subnet_search.baselines.system import Setup, System
from subnet_search.entwined import Phase
from subnet_search.groups import macs, slice_network


def packed(setup: Setup) -> System:
    """Builds K networks of α / K of the backbone's width, trained from scratch side by side on the same images.

    With γ = 1 (no groups inside the members) the paper's grouped convolutions are exactly K such networks
    (section 3.2); here they are run one after the other. As there, all members see the same images in a step, and
    differ by their initialisation. Widths are rounded, at least one channel each; groups that are not searchable keep
    their full width.
    """
    run, graph = setup.run, setup.graph
    share = setup.baselines.alpha / run.members
    widths = {name: min(width, max(1, round(share * width))) for name, width in graph.widths.items()}
    kept = {name: torch.arange(graph.widths[name]) < width for name, width in widths.items()}
    thin = slice_network(setup.backbone.model, graph, kept)
    networks = [untrained(thin, 1000 * run.seed + k) for k in range(run.members)]
    predictor = IndependentEnsemble(networks, setup.backbone.card, run.members * macs(graph, widths))
    config = replace(run.seeded("finetune"), mode="repeat")
    return System(predictor, (Phase(config),), origin="scratch")
