"""Networks with layers of the official package, against the ensembles that they are made from."""

import io
import sys

import numpy as np
import pytest
import torch
from masksembles.torch import Masksembles1D, Masksembles2D
from torch import nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import to_masksembles
from subnet_search.formats.masksembles_reader import from_masksembles
from subnet_search.groups import find_groups
from tests.aliased import PAIRS, aliased, aliased_ensemble
from tests.formats.small_resnet import CARD, CONFIGS, MEMBERS, masks_of, rows


def test_the_official_layers_do_not_save_their_masks() -> None:
    state = np.random.get_state()  # noqa: NPY002 - the official package draws from the global state
    try:
        assert "masks" not in Masksembles2D(16, 4, 2.0).state_dict()
    finally:
        np.random.set_state(state)  # noqa: NPY002


@pytest.mark.parametrize("kind", ["digits", "small"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("depth", [False, True])
@torch.no_grad()
def test_the_network_computes_what_the_ensemble_does(make, kind, config, depth) -> None:
    ensemble = make(kind, config, depth=depth)
    network = to_masksembles(ensemble)
    assert type(network) is type(ensemble.network)
    assert not network.training
    assert not any(isinstance(module, MemberNorm) for module in network.modules())
    sites = {site.module for group in ensemble.graph.groups for site in group.sites}
    sites |= {branch.site for branch in ensemble.graph.branches}
    official = {n for n, module in network.named_modules() if isinstance(module, Masksembles1D | Masksembles2D)}
    assert official == {f"{site}.masksembles" for site in sites}
    for batch in (1, 5):
        x = rows(1, batch, ensemble.card.input_shape)
        logits = network(x.repeat(MEMBERS, 1, 1, 1))
        if config.head == "shared":
            assert torch.equal(logits, ensemble(x).flatten(0, 1))
        else:  # the ensemble's heads are a batched product, which may round otherwise
            torch.testing.assert_close(logits, ensemble(x).flatten(0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_trains_as_the_ensemble_does(make, config) -> None:
    ensemble = make(config=config).train()
    network = to_masksembles(ensemble)
    assert all(module.training for module in network.modules())
    x = rows(MEMBERS, 4)
    logits, expected = network(x), ensemble(x, repeat=False).flatten(0, 1)
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(network.conv1.weight.grad, ensemble.network.conv1.weight.grad)
    torch.testing.assert_close(network.eval()(x), ensemble.eval()(x, repeat=False).flatten(0, 1))


@torch.no_grad()
def test_masks_are_saved_and_loaded_with_the_state(make) -> None:
    first, second = make(seed=0, depth=True), make(seed=3)
    saved, fresh = to_masksembles(first), to_masksembles(second)
    x = rows(MEMBERS, 2)
    assert not torch.equal(fresh(x), saved(x))
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh(x), saved(x))
    for name, module in fresh.named_modules():
        if isinstance(module, Masksembles1D | Masksembles2D):
            assert torch.equal(module.masks, saved.get_submodule(name).masks)


@torch.no_grad()
def test_the_network_can_be_pickled(make) -> None:
    network = to_masksembles(make())
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    x = rows(MEMBERS, 2)
    assert torch.equal(torch.load(file, weights_only=False)(x), network(x))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_shares_no_memory_with_the_ensemble_and_draws_nothing(make, config) -> None:
    ensemble = make(config=config)
    ours, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    network = to_masksembles(ensemble)
    assert torch.equal(torch.random.get_rng_state(), ours)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    theirs = {tensor.data_ptr() for tensor in ensemble.state_dict().values()}
    assert not any(tensor.data_ptr() in theirs for tensor in network.state_dict().values())


def test_the_missing_package_is_named(make, small, monkeypatch) -> None:
    ensemble = make()
    monkeypatch.setitem(sys.modules, "masksembles.torch", None)
    for run in (lambda: to_masksembles(ensemble), lambda: from_masksembles(small[0], CARD)):
        with pytest.raises(SubnetSearchError, match=r"pip install 'subnet-search\[masksembles\]'"):
            run()


def test_sites_that_the_official_layers_cannot_mask_are_refused() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU(), nn.Flatten(), nn.Linear(30, 3)).eval()
    graph = find_groups(network, torch.zeros(1, 2, 8))
    ensemble = SubnetEnsemble(network, graph, masks_of(graph), Card("1d", (2, 8), ("a", "b", "c")))
    with pytest.raises(SubnetSearchError, match="'1' gives 3 axes"):
        to_masksembles(ensemble)


def test_a_layer_with_two_names_stays_one() -> None:
    network = to_masksembles(aliased_ensemble(aliased(), EnsembleConfig(head="member")))
    for one, two in PAIRS:
        assert network.get_submodule(one) is network.get_submodule(two)
