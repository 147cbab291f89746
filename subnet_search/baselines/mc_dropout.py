"""MC Dropout: one network, T passes (Gal and Ghahramani 2016)."""

from __future__ import annotations

from subnet_search.baselines.sampled import SampledEnsemble
from subnet_search.baselines.system import Setup, System
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.entwined import Phase
from subnet_search.masks import full_masks


def mc_dropout(setup: Setup) -> System:
    """Builds the backbone with dropout of channels in every block, trained with it, asked K times.

    Channels are left out of every inner group (of all groups where there is none), each pass with masks of its own
    that are the same for all images. In `split` mode each image is seen once in a pass over the data.
    """
    run = setup.run
    whole = full_masks(setup.graph.widths, run.members)
    network = SubnetEnsemble(setup.backbone.model, setup.graph, whole, setup.backbone.card, EnsembleConfig("shared"))
    inner = [group for group in setup.graph.groups if group.kind == "inner"] or list(setup.graph.groups)
    rates = {site.module: setup.baselines.dropout for group in inner for site in group.sites}
    predictor = SampledEnsemble(network, rates, "channel", run.seed)
    return System(predictor, (Phase(run.seeded("finetune")),))
