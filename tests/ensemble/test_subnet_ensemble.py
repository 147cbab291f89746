"""The ensemble against K separately masked dense networks."""

import copy
import math
from dataclasses import replace

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masksembles.torch import Masksembles1D, Masksembles2D
from torch import Tensor, nn

from subnet_search.ensemble import EnsembleConfig, MemberMask, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import ChannelGroup, GroupGraph, Slice, find_groups
from subnet_search.groups.channel_group import Branch
from subnet_search.masks import MaskSet, full_masks

MEMBERS = 3
CONFIGS = [EnsembleConfig(norm, head) for norm in ("member", "shared") for head in ("shared", "member")]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 5])
@torch.no_grad()
def test_eval_equals_separately_masked_networks(tiny, config, batch) -> None:
    ensemble, x = tiny.ensemble(config), tiny.input(batch)
    if config.norm == "shared":  # the twins take the dense network's own statistics
        ensemble = SubnetEnsemble(tiny.network, tiny.graph, tiny.masks, tiny.card, config)
    logits = ensemble(x)
    assert logits.shape == (MEMBERS, batch, 4)
    for k in range(MEMBERS):
        torch.testing.assert_close(logits[k], tiny.twin(ensemble, k)(x))


@pytest.mark.parametrize("repeat", [True, False])
def test_training_equals_separately_masked_networks(tiny, repeat) -> None:
    ensemble = tiny.ensemble().train()
    twins = [tiny.twin(ensemble, k) for k in range(MEMBERS)]
    x = tiny.input(4 if repeat else 4 * MEMBERS)
    weights = torch.randn(MEMBERS, 4, 4, generator=torch.Generator().manual_seed(9)).double()
    logits = ensemble(x, repeat=repeat)
    parts = [x] * MEMBERS if repeat else x.chunk(MEMBERS)
    expected = torch.stack([twin(part) for twin, part in zip(twins, parts, strict=True)])
    torch.testing.assert_close(logits, expected)
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    modules = dict(ensemble.network.named_modules())
    for name, layer in tiny.network.named_modules():
        apart = [twin.get_submodule(name) for twin in twins]
        if isinstance(layer, nn.BatchNorm2d):
            for key in ("running_mean", "running_var"):
                torch.testing.assert_close(getattr(modules[name], key), torch.stack([getattr(a, key) for a in apart]))
            torch.testing.assert_close(modules[name].weight.grad, torch.stack([a.weight.grad for a in apart]))
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            shared = modules[name].layer if isinstance(modules[name], MemberMask) else modules[name]
            torch.testing.assert_close(shared.weight.grad, torch.stack([a.weight.grad for a in apart]).sum(dim=0))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@torch.no_grad()
def test_full_masks_of_one_member_are_the_network_itself(tiny32, config) -> None:
    masks = full_masks(tiny32.graph.widths, 1)
    ensemble = SubnetEnsemble(tiny32.network, tiny32.graph, masks, tiny32.card, config)
    x = tiny32.input(4)
    if config.head == "shared":
        assert torch.equal(ensemble(x)[0], tiny32.network(x))
    else:  # the head is a batched product, which may round otherwise
        torch.testing.assert_close(ensemble(x)[0], tiny32.network(x))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_cut_channels_are_exactly_zero_at_every_site(tiny, config, training) -> None:
    ensemble = tiny.ensemble(config).train(training)
    seen: dict[str, Tensor] = {}
    for name in ("bn1", "conv2", "fc"):
        ensemble.network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output})
        )
    ensemble(tiny.input(5))
    assert set(seen) == {"bn1", "conv2", "fc"}
    for group in tiny.graph.groups:
        for site in group.sites:
            members = torch.unflatten(seen[site.module], 0, (MEMBERS, 5))
            for k, channel in (~tiny.masks.masks[group.name]).nonzero().tolist():
                assert (members[k][:, list(site.index[channel])] == 0).all()
            for k, channel in tiny.masks.masks[group.name].nonzero().tolist():
                assert (members[k][:, list(site.index[channel])] != 0).any()


@torch.no_grad()
def test_order_and_size_of_the_batch_do_not_matter_in_eval(tiny) -> None:
    ensemble, x = tiny.ensemble(), tiny.input(7)
    whole = ensemble(x)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ensemble(x[order]), whole[:, order])
    torch.testing.assert_close(torch.cat([ensemble(part) for part in x.split(3)], dim=1), whole)
    torch.testing.assert_close(torch.cat([ensemble(one[None]) for one in x], dim=1), whole)


@torch.no_grad()
def test_repeating_by_hand_is_the_same(tiny) -> None:
    ensemble, x = tiny.ensemble(), tiny.input(4)
    torch.testing.assert_close(ensemble(x.repeat(MEMBERS, 1, 1, 1), repeat=False), ensemble(x))


@torch.no_grad()
def test_masks_in_official_masksembles_layers_give_the_same(tiny) -> None:
    config = EnsembleConfig(norm="shared")
    ensemble = SubnetEnsemble(tiny.network, tiny.graph, tiny.masks, tiny.card, config)
    official = copy.deepcopy(tiny.network)
    for name, kind in (("bn1", Masksembles2D), ("conv2", Masksembles2D), ("fc", Masksembles1D)):
        mask = ensemble.network.get_submodule(name).mask
        layer = kind(16, MEMBERS, 2.0)  # it draws masks of its own first, and cannot for fewer than 10 channels
        layer.masks = mask.double()
        official.set_submodule(name, nn.Sequential(tiny.network.get_submodule(name), layer))
    x = tiny.input(5)
    expected = torch.unflatten(official(x.repeat(MEMBERS, 1, 1, 1)), 0, (MEMBERS, 5))
    torch.testing.assert_close(ensemble(x), expected)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@torch.no_grad()
def test_select_gives_the_members_alone(tiny, config) -> None:
    ensemble, x = tiny.ensemble(config), tiny.input(3)
    if config.head == "member":
        ensemble.network.head.weight.add_(torch.randn(MEMBERS, 4, 7, generator=torch.Generator().manual_seed(4)))
    logits = ensemble(x)
    for chosen in ([0], [2], [2, 0], [1, 1]):
        part = ensemble.select(chosen)
        assert part.members == len(chosen)
        torch.testing.assert_close(part(x), logits[chosen])
        for name, mask in part.masks.masks.items():
            assert torch.equal(mask, tiny.masks.masks[name][chosen])
    assert ensemble.members == MEMBERS
    torch.testing.assert_close(ensemble(x), logits)


def test_selected_members_share_no_memory_with_the_ensemble(tiny) -> None:
    ensemble = tiny.ensemble()
    theirs = {tensor.data_ptr() for tensor in ensemble.state_dict().values()}
    assert not any(tensor.data_ptr() in theirs for tensor in ensemble.select([0, 1, 2]).state_dict().values())


@pytest.mark.parametrize("norm", ["member", "shared"])
def test_masks_are_read_back_as_they_were_given(tiny, norm) -> None:
    found = tiny.ensemble(EnsembleConfig(norm=norm)).masks
    assert found.digest() == tiny.masks.digest()
    assert (found.algorithm, found.seed, dict(found.notes)) == ("random", 0, {"overlap": 1.5})
    assert list(found.masks) == list(tiny.graph.widths)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), members=st.integers(1, 5))
def test_any_masks_are_read_back(tiny_once, seed, members) -> None:
    tiny, make_masks = tiny_once
    masks = make_masks(members, seed)
    assert tiny.ensemble(masks=masks).masks.digest() == masks.digest()


@torch.no_grad()
def test_set_masks_changes_the_masks_alone(tiny, make_masks) -> None:
    ensemble, other = tiny.ensemble(), make_masks(MEMBERS, 5)
    weights = {name: value.clone() for name, value in ensemble.state_dict().items() if not name.endswith("mask")}
    ensemble.set_masks(other)
    assert ensemble.masks.digest() == other.digest()
    assert (ensemble.algorithm, ensemble.seed) == (other.algorithm, other.seed)
    assert all(torch.equal(ensemble.state_dict()[name], value) for name, value in weights.items())
    torch.testing.assert_close(ensemble(tiny.input(2)), tiny.ensemble(masks=other)(tiny.input(2)))


def test_the_dense_network_stays_as_it_was(tiny) -> None:
    before = {name: value.clone() for name, value in tiny.network.state_dict().items()}
    tiny.ensemble().train()(tiny.input(4)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in tiny.network.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny.network.parameters())


def test_every_norm_becomes_the_members_own(tiny) -> None:
    layers = [module for module in tiny.ensemble().modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(layers) == 2
    assert all(isinstance(layer, MemberNorm) for layer in layers)
    shared = tiny.ensemble(EnsembleConfig(norm="shared"))
    assert not any(isinstance(module, MemberNorm) for module in shared.modules())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_that_of_the_network(tiny, training) -> None:
    tiny.network.train(training)
    ensemble = tiny.ensemble()
    assert {module.training for module in ensemble.modules()} == {training}


@pytest.mark.parametrize("batch", [1, 6])
def test_predict_decomposes_the_uncertainty(tiny32, batch) -> None:
    ensemble = tiny32.ensemble()
    images = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = ensemble.predict(images)
    probabilities = ensemble(tiny32.card.prepare(images)).double().softmax(dim=-1)
    torch.testing.assert_close(found.probabilities, probabilities.mean(dim=0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.total, found.aleatoric + found.epistemic)
    assert (found.epistemic >= 0).all()
    assert (found.epistemic <= math.log(MEMBERS)).all()
    assert found.probabilities.shape == (batch, 4)
    assert not found.probabilities.requires_grad


def test_predict_takes_bytes_and_fractions(tiny32) -> None:
    ensemble = tiny32.ensemble()
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        ensemble.predict(images).probabilities, ensemble.predict(images.float() / 255).probabilities
    )


@pytest.mark.parametrize("training", [True, False])
def test_predict_leaves_every_mode_and_all_statistics_as_they_were(tiny32, training) -> None:
    ensemble = tiny32.ensemble().train(training)
    ensemble.network.bn0.train(not training)
    modes = [module.training for module in ensemble.modules()]
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    ensemble.predict(torch.rand(4, 3, 8, 8))
    assert [module.training for module in ensemble.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())


def test_wrong_masks_are_refused(tiny) -> None:
    masks = dict(tiny.masks.masks)
    with pytest.raises(SubnetSearchError, match=r"groups without a mask \['fc'\], unknown groups \['conv9'\]"):
        tiny.ensemble(masks=MaskSet({**{k: v for k, v in masks.items() if k != "fc"}, "conv9": masks["fc"]}, "x"))
    with pytest.raises(SubnetSearchError, match="mask of group 'fc' has 6 channels, expected 7"):
        tiny.ensemble(masks=MaskSet({**masks, "fc": torch.ones(MEMBERS, 6, dtype=torch.bool)}, "x"))


@torch.no_grad()
def test_a_channel_may_live_in_many_features(tiny) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 7), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 4)).double().eval()
    index = ((0, 1, 2, 3), (4, 5, 6, 7))
    slices = (Slice("0", "out", ((0,), (1,))), Slice("2", "out", index), Slice("3", "in", index))
    groups = (ChannelGroup("0", 2, "inner", slices, slices[1:2]),)
    graph = GroupGraph(groups, (), nx.DiGraph(), ("2",), "3", 4, (3, 8, 8))
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    ensemble = SubnetEnsemble(network, graph, MaskSet({"0": mask}, "x"), tiny.card)
    features, x = network[:3], tiny.input(5)
    expected = torch.stack([network[3](features(x) * row.repeat_interleave(4)) for row in mask])
    torch.testing.assert_close(ensemble(x), expected)
    assert torch.equal(ensemble.masks.masks["0"], mask)


class Attending(nn.Module):
    """PyTorch's own transformer layers, which in eval mode read the weights of the layers inside them."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.encoder = layer if layers == 1 else nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x).mean(dim=1))
        return logits


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_transformer_layers_are_masked_in_eval_mode_too(tiny, layers) -> None:
    network, x = Attending(layers).double().eval(), torch.randn(3, 5, 8, dtype=torch.float64)
    graph = find_groups(network, x)
    masks = {name: torch.rand(MEMBERS, width) < 0.5 for name, width in graph.widths.items()}
    for mask in masks.values():
        mask[:, 0] = True
    ensemble = SubnetEnsemble(
        network, graph, MaskSet(masks, "x"), replace(tiny.card, input_shape=(5, 8), mean=(0.0,), std=(1.0,))
    )
    got = ensemble(x)
    torch.testing.assert_close(got, ensemble.train()(x))
    assert not torch.allclose(got[0], got[1])
    assert len(masks) == layers


def test_masks_of_another_number_of_members_are_refused(tiny, make_masks) -> None:
    with pytest.raises(SubnetSearchError, match="masks of 2 members, expected 3"):
        tiny.ensemble().set_masks(make_masks(2))


@pytest.mark.parametrize("chosen", [[], [3], [-1]])
def test_members_that_do_not_exist_are_refused(tiny, chosen) -> None:
    with pytest.raises(SubnetSearchError, match="expected some of 0 to 2"):
        tiny.ensemble().select(chosen)


def test_rows_that_are_no_multiple_of_the_members_are_refused(tiny) -> None:
    with pytest.raises(SubnetSearchError, match="got 4 member-major rows, expected a multiple of the 3 members"):
        tiny.ensemble()(tiny.input(4), repeat=False)


def test_a_network_of_another_architecture_is_refused(tiny) -> None:
    tiny.network.fc = nn.Linear(5, 6)
    with pytest.raises(SubnetSearchError, match="module 'fc' has 6 channels, a group at least 7"):
        tiny.ensemble()
    del tiny.network.bn1
    with pytest.raises(SubnetSearchError, match="another architecture than TinyNet: no module 'bn1'"):
        tiny.ensemble()


def test_a_head_for_each_member_needs_a_linear_head(tiny) -> None:
    object.__setattr__(tiny.graph, "head", None)
    with pytest.raises(SubnetSearchError, match="use head=shared"):
        tiny.ensemble(EnsembleConfig(head="member"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 9), "images have shape"),
        (torch.zeros(0, 3, 8, 8), "got no images"),
        (torch.full((2, 3, 8, 8), float("nan")), "2 of 2 images hold NaN or infinity"),
        (torch.full((2, 3, 8, 8), 200.0), "expected \\[0, 1\\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "expected torch.uint8 or floating point"),
    ],
)
def test_predict_refuses_images_that_it_cannot_take(tiny32, images, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        tiny32.ensemble().predict(images)


@pytest.mark.parametrize("label", ["norm", "head"])
def test_other_ways_of_sharing_are_refused(label) -> None:
    with pytest.raises(SubnetSearchError, match=f"ensemble.{label} is 'members', expected 'member' or 'shared'"):
        EnsembleConfig(**{label: "members"})


DEPTH = {"bn1": torch.tensor([True, False, True]), "conv2": torch.tensor([False, True, True])}


def with_branches(tiny, sites: tuple[str, ...] = ("bn1", "conv2")) -> GroupGraph:
    """As if two layers of the tiny network ended residual branches: one is a site of groups, one has no norm."""
    fields = {name: getattr(tiny.graph, name) for name in tiny.graph.__dataclass_fields__}
    return GroupGraph(**{**fields, "branches": tuple(Branch(site, ()) for site in sites)})


def with_depth(masks: MaskSet, depth: dict[str, Tensor]) -> MaskSet:
    return MaskSet(masks.masks, masks.algorithm, masks.seed, masks.notes, depth)


# in training, shared norms see all members' rows, and the twins their own
@pytest.mark.parametrize(
    ("config", "training"), [*((config, False) for config in CONFIGS), *((config, True) for config in CONFIGS[:2])]
)
def test_branches_that_are_left_out_are_zero_in_the_twin(tiny, config, training) -> None:
    masks = with_depth(tiny.masks, DEPTH)
    ensemble = SubnetEnsemble(tiny.network, with_branches(tiny), masks, tiny.card, config).train(training)
    x = tiny.input(4)
    twins = [tiny.twin(ensemble, k) for k in range(MEMBERS)]
    logits = ensemble(x)
    for k, twin in enumerate(twins):
        for site in masks.left_out(k):
            twin.get_submodule(site).register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        torch.testing.assert_close(logits[k], twin(x))


def test_depth_masks_are_read_back_replaced_selected_and_kept_in_the_state(tiny) -> None:
    graph, masks = with_branches(tiny), with_depth(tiny.masks, DEPTH)
    ensemble = SubnetEnsemble(tiny.network, graph, masks, tiny.card)
    plain = SubnetEnsemble(tiny.network, graph, tiny.masks, tiny.card)
    assert ensemble.masks.digest() == masks.digest() != plain.masks.digest()
    assert ensemble.identity() != plain.identity()
    assert ensemble.select([1, 0]).masks.left_out(0) == masks.left_out(1) == ("bn1",)
    plain.load_state_dict(ensemble.state_dict())
    assert plain.masks.digest() == masks.digest()
    plain.set_masks(tiny.masks)
    assert plain.masks.digest() == tiny.masks.digest()
    plain.set_masks(masks)
    assert torch.equal(plain(tiny.input(3)), ensemble(tiny.input(3)))


def test_masks_of_branches_that_are_not_there_are_refused(tiny) -> None:
    masks = with_depth(tiny.masks, {"bn0": DEPTH["bn1"]})
    with pytest.raises(SubnetSearchError, match=r"unknown branches \['bn0'\], expected some of \['bn1', 'conv2'\]"):
        SubnetEnsemble(tiny.network, with_branches(tiny), masks, tiny.card)
    with pytest.raises(SubnetSearchError, match=r"no module 'gone'"):
        SubnetEnsemble(tiny.network, with_branches(tiny, ("gone",)), tiny.masks, tiny.card)
