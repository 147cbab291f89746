"""Dropout of channels and of branches: what is drawn, when, and by whom."""

import pytest
import torch
from torch import Tensor, nn

from subnet_search.baselines import BaselineConfig, build
from subnet_search.baselines.sampled import Sampled, SampledEnsemble
from subnet_search.ensemble import EnsembleConfig, MemberMask, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.masks import full_masks

ROWS = 4000


def sampled(rate: float = 0.25, unit: str = "channel", members: int = 3, seed: int = 0) -> Sampled:
    return Sampled(nn.Identity(), 5, rate, unit, members, seed)  # type: ignore[arg-type]


def ones(rows: int = ROWS) -> Tensor:
    return torch.ones(rows, 5, 2, 2)


@pytest.mark.parametrize("unit", ["channel", "branch"])
def test_in_training_the_rate_and_the_expectation_are_those_asked_for(unit) -> None:
    out = sampled(unit=unit).train()(ones())
    deviation = (0.25 * 0.75 / (ROWS * (5 if unit == "channel" else 1))) ** 0.5
    assert float((out == 0).float().mean()) == pytest.approx(0.25, abs=4 * deviation)
    assert float(out.mean()) == pytest.approx(1.0, abs=4 * deviation / 0.75)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}


def test_channels_are_drawn_one_by_one_and_branches_as_a_whole() -> None:
    channels, branches = sampled().train()(ones()), sampled(unit="branch").train()(ones())
    for out in (channels, branches):
        assert (out == out[:, :, :1, :1]).all()  # pixels share the lot of their channel
    assert (branches == branches[:, :1]).all()
    together = (channels[:, 0, 0, 0] == 0) & (channels[:, 1, 0, 0] == 0)
    assert float(together.float().mean()) == pytest.approx(0.25**2, abs=0.02)


def test_in_training_rows_draw_independently_and_anew_in_each_pass() -> None:
    layer = sampled().train()
    first, second = (layer(ones())[:, :, 0, 0] == 0 for _ in range(2))
    assert float((first & second).float().mean()) == pytest.approx(0.25**2, abs=0.02)
    assert float((first[1:] & first[:-1]).float().mean()) == pytest.approx(0.25**2, abs=0.02)


def test_layers_and_seeds_draw_differently() -> None:
    outs = [sampled(seed=seed).train()(ones()) for seed in (0, 1)]
    assert float(((outs[0] == 0) & (outs[1] == 0)).float().mean()) == pytest.approx(0.25**2, abs=0.02)


def test_training_goes_on_where_its_state_was_saved() -> None:
    layer, resumed = sampled().train(), sampled().train()
    layer(ones())
    resumed.load_state_dict(layer.state_dict())
    torch.manual_seed(7)
    expected = layer(ones())
    assert torch.equal(resumed(ones()), expected)


@pytest.mark.parametrize("unit", ["channel", "branch"])
def test_in_use_each_member_has_one_draw_for_all_rows_and_passes(unit) -> None:
    layer = sampled(unit=unit, members=40).eval()
    out = layer(ones(40 * 3))
    assert torch.equal(out, layer(ones(40 * 3)))
    assert int(layer.step) == 0
    by_member = out.unflatten(0, (40, 3))
    assert (by_member == by_member[:, :1]).all()
    assert len(by_member[:, 0, :, 0, 0].unique(dim=0)) > (10 if unit == "channel" else 1)
    assert torch.equal(by_member[:, 0, :, 0, 0] > 0, layer.draws.expand(40, 5))


def test_the_features_of_a_linear_layer_are_its_channels() -> None:
    linear = MemberMask(nn.Linear(4, 5), torch.ones(3, 5, dtype=torch.bool), -1)
    layer = Sampled(linear, 5, 0.5, "channel", 3, 0).train()
    tokens = layer(torch.rand(3, 7, 4))  # as in a transformer: [row, token, feature]
    assert torch.equal(tokens == 0, (tokens == 0)[:, :1].expand(3, 7, 5))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("method", "rates"), [("mc_dropout", {"dropout": 0.0}), ("stochastic_depth", {"depth_drop": 0.0})]
)
def test_at_rate_zero_it_is_the_dense_network(make_setup, method, rates, training) -> None:
    setup = make_setup(0, BaselineConfig(**rates))
    predictor = build(method, setup).predictor.train(training)
    dense = make_setup(0).backbone.model
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert all(module.rate == 0.0 for module in predictor.modules() if isinstance(module, Sampled))
    if training:
        x = x.repeat(3, 1, 1, 1)  # one network: its norms see all members' images
        before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
        expected = dense.train()(x).unflatten(0, (3, 6))
        dense.load_state_dict(before)
        dense.eval()
    else:
        expected = dense(x).expand(3, 6, 10)
    got = predictor(x, repeat=not training)
    torch.testing.assert_close(got, expected)


def sampled_layers(predictor: nn.Module) -> dict[str, Sampled]:
    return {name: module for name, module in predictor.named_modules() if isinstance(module, Sampled)}


def test_mc_dropout_is_in_every_block_and_each_pass_has_masks_of_its_own(setup) -> None:
    layers = sampled_layers(build("mc_dropout", setup).predictor)
    assert [name.removeprefix("network.") for name in layers] == [
        f"layer{stage}.{block}.bn1" for stage in (1, 2) for block in (0, 1)
    ]
    assert {layer.rate for layer in layers.values()} == {setup.baselines.dropout}
    passes = torch.cat([layer.draws for layer in layers.values()], dim=1)
    assert len(passes.unique(dim=0)) == 3


def test_stochastic_depth_grows_linearly_to_the_last_branch(setup) -> None:
    layers = sampled_layers(build("stochastic_depth", setup).predictor)
    assert [name.removeprefix("network.") for name in layers] == [branch.site for branch in setup.graph.branches]
    assert [layer.rate for layer in layers.values()] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert {layer.units for layer in layers.values()} == {1}


def test_what_every_member_shares_is_stored_once(setup) -> None:
    dense = sum(parameter.numel() for parameter in setup.backbone.model.parameters())
    for method in ("mc_dropout", "stochastic_depth"):
        assert sum(p.numel() for p in build(method, setup).predictor.parameters()) == dense


def test_nothing_to_leave_out_is_an_error(setup) -> None:
    whole = full_masks(setup.graph.widths, 2)
    ensemble = SubnetEnsemble(setup.backbone.model, setup.graph, whole, setup.backbone.card, EnsembleConfig())
    with pytest.raises(SubnetSearchError, match="'digits' has no branch to leave out at random"):
        SampledEnsemble(ensemble, {}, "branch", 0)
