"""Thin networks side by side."""

import pytest
import torch

from subnet_search.baselines import BaselineConfig, build


def test_with_alpha_of_the_members_they_are_dense_networks(make_setup) -> None:
    setup = make_setup(0, BaselineConfig(alpha=3.0))
    packed, deep = build("packed", setup).predictor, build("deep_ensemble", setup).predictor
    assert packed.macs() == 3 * setup.graph.dense_macs
    for one, other in zip(packed.networks, deep.networks, strict=True):
        assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]


@pytest.mark.parametrize(("alpha", "stem", "last"), [(1.5, 2, 4), (2.0, 3, 5), (0.1, 1, 1), (50.0, 4, 8)])
def test_members_have_their_share_of_the_width(make_setup, alpha, stem, last) -> None:
    setup = make_setup(0, BaselineConfig(alpha=alpha))
    system = build("packed", setup)
    assert len(system.predictor.networks) == 3
    for network in system.predictor.networks:
        assert network.network.conv1.out_channels == stem
        assert network.network.layer2[1].conv1.out_channels == last
    assert (system.origin, system.phases[0].config.mode) == ("scratch", "repeat")


def test_members_are_initialised_apart(setup) -> None:
    one, other, _ = build("packed", setup).predictor.networks
    assert not torch.equal(one.network.conv1.weight, other.network.conv1.weight)
