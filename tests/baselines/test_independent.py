"""Networks side by side, and one network as the ensemble of one."""

import copy

import pytest
import torch

from subnet_search.baselines import build
from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig, evaluate


def test_an_ensemble_of_one_equals_the_network_in_every_figure(setup) -> None:
    def figures(network: torch.nn.Module) -> dict[str, float | None]:
        return evaluate(
            network,
            card=setup.backbone.card,
            test=setup.splits.validation,
            validation=setup.splits.train,
            ood={"seen": setup.splits.train},
            config=EvaluateConfig(latency_repeats=0, shift_samples=4),
            macs=setup.graph.dense_macs,
            dense_macs=setup.graph.dense_macs,
        )

    alone = build("msp", setup).predictor
    assert alone.members == 1
    assert alone.macs() == setup.graph.dense_macs
    assert figures(alone) == figures(setup.backbone.model)


@pytest.mark.parametrize("repeat", [True, False])
def test_each_network_answers_for_its_member(setup, repeat) -> None:
    networks = [copy.deepcopy(setup.backbone.model) for _ in range(3)]
    for k, network in enumerate(networks):
        with torch.no_grad():
            network.linear.bias += k
    ensemble = IndependentEnsemble(networks, setup.backbone.card, 1).eval()
    x = torch.rand(6, 1, 8, 8)
    parts = [x] * 3 if repeat else x.chunk(3)
    expected = torch.stack([network(part) for network, part in zip(networks, parts, strict=True)])
    assert torch.equal(ensemble(x, repeat=repeat), expected)


def test_no_network_is_an_error(setup) -> None:
    with pytest.raises(SubnetSearchError, match="got none, expected at least one"):
        IndependentEnsemble([], setup.backbone.card, 1)
