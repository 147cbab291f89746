"""Deep Ensembles from scratch and from the backbone, and bagging."""

import pytest
import torch
from torch import nn

from subnet_search.baselines import build


def weights(method: str, setup, name: str = "layer1.0.conv1.weight") -> list[torch.Tensor]:
    predictor = build(method, setup).predictor
    return [dict(network.named_parameters())[name] for network in predictor.networks]


def test_networks_from_scratch_are_initialised_apart_and_unlike_the_backbone(setup) -> None:
    own = setup.backbone.model.layer1[0].conv1.weight
    drawn = weights("deep_ensemble", setup)
    assert len(drawn) == 3
    for i, one in enumerate(drawn):
        assert not torch.equal(one, own)
        assert all(not torch.equal(one, other) for other in drawn[:i])


@pytest.mark.parametrize("method", ["deep_ensemble_finetuned", "bagging"])
def test_copies_start_as_the_backbone_share_nothing_and_end_apart(trained, setup, method) -> None:
    own = setup.backbone.model.layer1[0].conv1.weight
    fresh = weights(method, setup)
    assert all(torch.equal(one, own) and one is not own for one in fresh)
    assert len({one.data_ptr() for one in fresh}) == 3
    networks: nn.ModuleList = trained(method, 0)[0].predictor.networks
    ends = [network.layer1[0].conv1.weight for network in networks]
    assert not torch.equal(ends[0], ends[1])


@pytest.mark.parametrize(
    ("method", "origin", "bagging"),
    [
        ("deep_ensemble", "scratch", False),
        ("deep_ensemble_finetuned", "backbone", False),
        ("bagging", "backbone", True),
    ],
)
def test_each_network_sees_all_images_in_an_order_of_its_own(setup, method, origin, bagging) -> None:
    system = build(method, setup)
    (phase,) = system.phases
    assert (phase.config.mode, phase.config.bagging) == ("independent", bagging)
    assert (system.origin, system.iou, system.budget) == (origin, None, None)
