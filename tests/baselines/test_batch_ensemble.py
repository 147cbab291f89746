"""Shared weights with a rank-one matrix for each member."""

import copy

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.baselines import build
from subnet_search.baselines.batch_ensemble import BatchEnsemble, RankOne
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.groups import find_groups
from subnet_search.masks import full_masks
from tests.aliased import PAIRS, aliased, aliased_ensemble


def ensemble_of(setup, members: int = 3) -> SubnetEnsemble:
    whole = full_masks(setup.graph.widths, members)
    return SubnetEnsemble(setup.backbone.model, setup.graph, whole, setup.backbone.card)


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_with_factors_of_one_it_is_the_shared_network(setup, training, repeat) -> None:
    plain = ensemble_of(setup).train(training)
    predictor = BatchEnsemble(ensemble_of(setup), seed=0).train(training)
    for layer in predictor.modules():
        if isinstance(layer, RankOne):
            nn.init.ones_(layer.alpha)
            nn.init.ones_(layer.gamma)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(predictor(x, repeat=repeat), plain(x, repeat=repeat))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv2d(4, 6, 3, bias=False), (4, 5, 5)), (nn.Linear(4, 6, bias=False), (4,)), (nn.Linear(4, 6), (7, 4))],
    ids=["convolution", "linear", "tokens"],
)
def test_a_member_computes_with_the_product_of_weights_and_factors(layer, shape) -> None:
    generator = torch.Generator().manual_seed(2)
    own = RankOne(layer, 3, generator)
    nn.init.normal_(own.alpha, generator=generator)
    nn.init.normal_(own.gamma, generator=generator)
    x = torch.randn(3 * 2, *shape, generator=generator)
    parts = []
    for k, rows in enumerate(x.chunk(3)):  # the naive twin: a layer of its own, of weights W ∘ (γ αᵀ)
        twin = copy.deepcopy(layer)
        with torch.no_grad():
            factors = own.gamma[k][:, None] * own.alpha[k][None, :]
            twin.weight.mul_(factors.view(*factors.shape, *[1] * (twin.weight.ndim - 2)))
            if twin.bias is not None:
                twin.bias.mul_(own.gamma[k])
        parts.append(twin(rows))
    torch.testing.assert_close(own(x), torch.cat(parts))


def test_every_layer_has_factors_of_one_or_minus_one_that_the_seed_draws(setup) -> None:
    predictors = [BatchEnsemble(ensemble_of(setup), seed) for seed in (0, 0, 1)]
    layers = [[layer for layer in p.modules() if isinstance(layer, RankOne)] for p in predictors]
    weighted = [m for m in setup.backbone.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers[0]) == len(weighted)
    for one, same in zip(layers[0], layers[1], strict=True):
        assert set(torch.cat([one.alpha.flatten(), one.gamma.flatten()]).tolist()) <= {1.0, -1.0}
        assert torch.equal(one.alpha, same.alpha)
        assert torch.equal(one.gamma, same.gamma)
    drawn = [torch.cat([layer.gamma.flatten() for layer in found]) for found in layers]
    assert not torch.equal(drawn[0], drawn[2])


class Attentive(nn.Module):
    """Patches, attention between them, and a layer for each."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.hidden, self.back, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.back(torch.relu(self.hidden(x)))).mean(dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_attention_stays_shared(training) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Attentive()
    graph = find_groups(network, torch.zeros(2, 1, 8, 8))
    whole = SubnetEnsemble(network, graph, full_masks(graph.widths, 3), Card("attentive", (1, 8, 8), tuple("abcd")))
    predictor = BatchEnsemble(whole, seed=0).train(training)
    own = {name for name, layer in predictor.network.named_modules() if isinstance(layer, RankOne)}
    assert own == {"patches", "hidden.layer", "back.layer", "head"}
    logits = predictor(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert not torch.allclose(logits[0], logits[1])
    logits.sum().backward()
    assert predictor.network.attention.out_proj.weight.grad is not None


def test_it_starts_from_scratch_and_costs_as_much_as_its_members(setup) -> None:
    system = build("batch_ensemble", setup)
    assert (system.origin, system.predictor.macs()) == ("scratch", 3 * setup.graph.dense_macs)
    stem = system.predictor.network.conv1.layer.weight
    assert not torch.equal(stem, setup.backbone.model.conv1.weight)


def test_a_layer_with_two_names_is_multiplied_under_both() -> None:
    network = BatchEnsemble(aliased_ensemble(aliased()), seed=0).network
    for one, two in PAIRS[1:]:
        assert network.get_submodule(one) is network.get_submodule(two)
