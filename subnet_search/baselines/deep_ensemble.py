"""Deep Ensembles (Lakshminarayanan et al. 2017), from scratch and from the backbone, and bagging (Breiman 1996)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.baselines.scratch import untrained
from subnet_search.baselines.system import Setup, System
from subnet_search.entwined import Phase


def single(setup: Setup) -> System:
    """Takes the dense network as it came, with its maximum class probability (Hendrycks and Gimpel 2017)."""
    return System(_ensemble(setup, [copy.deepcopy(setup.backbone.model)]), ())


def deep_ensemble(setup: Setup) -> System:
    """Builds K networks from independent initialisations; each sees all images, in an order of its own."""
    networks = [untrained(setup.backbone.model, 1000 * setup.run.seed + k) for k in range(setup.run.members)]
    config = replace(setup.run.seeded("finetune"), mode="independent")
    return System(_ensemble(setup, networks), (Phase(config),), origin="scratch")


def deep_ensemble_finetuned(setup: Setup) -> System:
    """Builds K copies of the backbone; each is fine-tuned on all images, in an order of its own."""
    config = replace(setup.run.seeded("finetune"), mode="independent")
    return System(_ensemble(setup, _copies(setup)), (Phase(config),))


def bagging(setup: Setup) -> System:
    """Builds K copies of the backbone; each is fine-tuned on a bootstrap of its own."""
    config = replace(setup.run.seeded("finetune"), mode="independent", bagging=True)
    return System(_ensemble(setup, _copies(setup)), (Phase(config),))


def _copies(setup: Setup) -> list[nn.Module]:
    return [copy.deepcopy(setup.backbone.model) for _ in range(setup.run.members)]


def _ensemble(setup: Setup, networks: Sequence[nn.Module]) -> IndependentEnsemble:
    return IndependentEnsemble(networks, setup.backbone.card, len(networks) * setup.graph.dense_macs)
