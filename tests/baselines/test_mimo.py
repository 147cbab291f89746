"""A network with several inputs and heads."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Backbone, Card
from subnet_search.baselines import BaselineConfig, build
from subnet_search.baselines.mimo import Mimo, widened
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.groups import find_groups, trunk_layers
from subnet_search.masks import full_masks


def wide(setup, inputs: int, networks: int = 1) -> Mimo:
    backbone, graph = widened(setup.backbone, setup.graph, inputs, seed=3)
    whole = full_masks(graph.widths, networks)
    return Mimo(SubnetEnsemble(backbone.model, graph, whole, backbone.card), inputs, setup.backbone.card)


def x(rows: int) -> Tensor:
    return torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [False, True])
def test_one_input_is_the_plain_network(setup, training) -> None:
    backbone, graph = widened(setup.backbone, setup.graph, 1, seed=3)
    state = setup.backbone.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.model.state_dict().items())
    assert (backbone.card.input_shape, graph.widths) == (setup.backbone.card.input_shape, setup.graph.widths)
    mimo = wide(setup, 1).train(training)
    plain = SubnetEnsemble(setup.backbone.model, setup.graph, full_masks(setup.graph.widths, 1), setup.backbone.card)
    expected = plain.train(training)(x(5))
    assert torch.equal(mimo(x(5)), expected)
    assert torch.equal(mimo(x(5), repeat=False), expected)
    assert mimo.macs() == plain.macs() == setup.graph.dense_macs
    if not training:
        assert torch.equal(expected[0], setup.backbone.model(x(5)))


def without_noise(mimo: Mimo, setup, inputs: int) -> None:
    first = setup.backbone.model.conv1.weight
    with torch.no_grad():
        mimo.predictor.network.conv1.weight.copy_(first.repeat(1, inputs, 1, 1) / inputs)


def test_equal_images_come_through_as_one_but_for_the_noise(setup) -> None:
    mimo = wide(setup, 3).eval()
    expected = setup.backbone.model(x(4))
    assert not torch.allclose(mimo(x(4))[0], expected, atol=1e-3)
    without_noise(mimo, setup, 3)
    torch.testing.assert_close(mimo(x(4)), expected.expand(3, 4, 10))


def test_rows_go_to_the_inputs_and_answers_come_from_the_heads_of_their_members(setup) -> None:
    inputs, networks, batch = 2, 3, 4
    mimo = wide(setup, inputs, networks).eval()
    with torch.no_grad():  # heads and networks are told apart
        mimo.predictor.network.linear.weight.mul_(torch.arange(1, 21).view(20, 1))
        mimo.predictor.network.bn1.weight.mul_(torch.arange(1, 4).view(3, 1))
        rows = x(inputs * networks * batch)
        got = mimo(rows, repeat=False)
        assert got.shape == (inputs * networks, batch, 10)
        by_member = rows.unflatten(0, (networks, inputs, batch))
        for k in range(networks):
            alone = mimo.predictor.select([k])
            answers = alone(torch.cat([by_member[k, m] for m in range(inputs)], dim=1), repeat=False)[0]
            for m in range(inputs):
                expected = answers[:, 10 * m : 10 * (m + 1)]
                torch.testing.assert_close(got[k * inputs + m], expected, atol=1e-5, rtol=1e-5)


def test_each_input_has_channels_of_its_own_in_the_order_of_the_inputs(setup) -> None:
    mimo = wide(setup, 2).eval()
    one, two = x(2)[:1], x(2)[1:]
    swapped = mimo(torch.cat([two, one]), repeat=False)
    stem = mimo.predictor.network.conv1.weight
    with torch.no_grad():
        stem.copy_(stem.flip(1))
    torch.testing.assert_close(mimo(torch.cat([one, two]), repeat=False), swapped)


def test_noise_has_the_deviation_of_the_weights_and_a_seed(setup) -> None:
    backbone, graph = setup.backbone, setup.graph
    first = backbone.model.conv1.weight.detach()
    stems = [widened(backbone, graph, 40, seed)[0].model.conv1.weight.detach() * 40 for seed in (0, 0, 1)]
    assert float((stems[0] - first.repeat(1, 40, 1, 1)).std()) == pytest.approx(float(first.std()), rel=0.1)
    assert torch.equal(stems[0], stems[1])
    assert not torch.allclose(stems[0], stems[2])


def test_the_normalisation_is_that_of_each_input(setup) -> None:
    rgb = replace(setup.backbone.card, input_shape=(1, 8, 8), mean=(0.25,), std=(0.5,))
    card = widened(replace(setup.backbone, card=rgb), setup.graph, 3, 0)[0].card
    assert (card.mean, card.std, card.input_shape, len(card.classes)) == ((0.25,) * 3, (0.5,) * 3, (3, 8, 8), 30)


def test_alone_it_is_one_network_from_scratch_with_an_input_for_each_member(setup) -> None:
    system = build("mimo", setup)
    assert (system.predictor.members, system.predictor.inputs, system.origin) == (3, 3, "scratch")
    assert system.predictor.macs() == setup.graph.dense_macs + 2 * (1 * 4 * 9) * 64 + 2 * 8 * 10
    (phase,) = system.phases
    assert (phase.config.input_repetition, phase.config.batch_repetition) == (0.5, 4)
    heads = system.predictor.predictor.network.linear.weight.unflatten(0, (3, 10))
    assert not torch.allclose(heads[0], heads[1])
    state = setup.backbone.model.state_dict()
    assert not torch.equal(system.predictor.predictor.network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_with_masks_each_network_starts_from_the_backbone(make_setup) -> None:
    setup = make_setup(0, BaselineConfig(inputs=4))
    system = build("random+mimo", setup)
    assert (system.predictor.members, system.predictor.inputs, system.origin) == (12, 4, "backbone")
    own = system.predictor.predictor.network.layer1[0].conv1.weight
    assert torch.equal(own, setup.backbone.model.layer1[0].conv1.weight)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.75])
def test_behind_a_trunk_it_is_as_deep_as_the_masks_were_searched_for(make_setup, share) -> None:
    setup = make_setup(0, BaselineConfig(inputs=4), ensemble=EnsembleConfig(trunk=share))
    inside = build("random+mimo", setup).predictor.predictor
    assert trunk_layers(inside.graph, inside.config.trunk_share) == trunk_layers(setup.graph, share)


def own(network: nn.Module) -> Backbone:
    return Backbone(network.eval(), Card("own", (2, 6, 6), ("a", "b", "c")))


class Twice(nn.Module):
    """Its image is read by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head((self.left(x).relu() + self.right(x).relu()).mean(dim=(2, 3)))
        return logits


def ending(*last: nn.Module, first: nn.Module | None = None) -> nn.Module:
    first = first or nn.Conv2d(2, 4, 3)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Twice(), r"'own' is read by \['left', 'right'\]"),
        (ending(nn.Linear(4, 3), first=nn.Conv2d(2, 4, 3, groups=2)), "begins with one convolution"),
        (ending(nn.Linear(4, 3), nn.BatchNorm1d(3)), "MIMO needs logits that a linear layer writes, those of 'own'"),
    ],
)
def test_networks_without_one_stem_or_head_are_refused(network, message) -> None:
    backbone = own(network)
    graph = find_groups(backbone.model, torch.zeros(2, 2, 6, 6))
    with pytest.raises(SubnetSearchError, match=message):
        widened(backbone, graph, 2, 0)


def test_the_global_random_state_and_the_network_stay(setup) -> None:
    state, before = torch.get_rng_state(), {n: t.clone() for n, t in setup.backbone.model.state_dict().items()}
    widened(setup.backbone, setup.graph, 3, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in setup.backbone.model.state_dict().items())


@pytest.mark.parametrize("loss", ["joint", "decorrelate", "learn_probes"])
def test_losses_of_one_image_are_refused(setup, loss) -> None:
    training = FinetuneConfig(epochs=1, mode="repeat", probes="noisy", **{loss: 0.5})
    with pytest.raises(SubnetSearchError, match="a network with several inputs does not get; set it to 0"):
        finetune(wide(setup, 2), setup.splits.train, training)
