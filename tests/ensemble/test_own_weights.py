"""Members with weights of their own behind the trunk, as trained or drawn anew."""

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig, MemberCopies, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups, trunk_layers
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, search_masks

MEMBERS, SHARE = 3, 0.4
BACKBONE = load_backbone("resnet20", "random", width=4)
GRAPH = find_groups(BACKBONE.model, torch.zeros(2, 3, 32, 32))
TRUNK = trunk_layers(GRAPH, SHARE)
LAYERS = [name for name, _ in BACKBONE.model.named_modules() if "conv" in name]


def ensemble(weights: str, seed: int = 0, **more) -> SubnetEnsemble:
    quotas = allocate_quotas(GRAPH, MEMBERS, BudgetConfig(2.0, trunk_keep=1.0), trunk=SHARE)
    masks = search_masks(None, GRAPH.widths, quotas, SearchConfig("random", seed=seed))
    config = EnsembleConfig(trunk=SHARE, weights=weights, **more)
    return SubnetEnsemble(BACKBONE.model, GRAPH, masks, BACKBONE.card, config).eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_they_begin_as_the_dense_networks_and_cost_no_more() -> None:
    own, shared = ensemble("member"), ensemble("shared")
    assert torch.equal(own(images()), shared(images()))
    assert own.macs() == shared.macs()
    tied = {name for name in LAYERS if not isinstance(own.network.get_submodule(name), MemberCopies)}
    assert tied == {name for name in LAYERS if name in TRUNK}
    assert 0 < len(tied) < len(LAYERS)
    assert not isinstance(own.network.get_submodule(GRAPH.head), MemberCopies)  # what `head` decides on


def test_a_step_of_one_member_leaves_the_others_as_they_are() -> None:
    own = ensemble("member").train()
    own(images())[1].logsumexp(dim=1).sum().backward()
    behind = [name for name in LAYERS if name not in TRUNK]
    for name in behind:
        reached = [layer.weight.grad is not None and bool(layer.weight.grad.any()) for layer in own.network.get_submodule(name)]  # fmt: skip
        assert reached == [False, True, False]


@torch.no_grad()
def test_fresh_ones_are_drawn_by_the_seed_of_the_masks_and_the_trunk_is_kept() -> None:
    before = torch.get_rng_state()
    fresh = ensemble("fresh", head="member")
    assert torch.equal(torch.get_rng_state(), before)
    again, other = ensemble("fresh", head="member").state_dict(), ensemble("fresh", 1, head="member").state_dict()
    dense = BACKBONE.model.state_dict()
    for name in LAYERS:
        module = fresh.network.get_submodule(name)
        if name in TRUNK:
            layer = getattr(module, "layer", module)
            assert torch.equal(layer.weight, dense[f"{name}.weight"])
            continue
        drawn = [layer.weight for layer in module]
        assert not any(torch.equal(weight, dense[f"{name}.weight"]) for weight in drawn)
        assert not torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], again[f"network.{name}.0.weight"])
        assert not torch.equal(drawn[0], other[f"network.{name}.0.weight"])
    head = fresh.network.get_submodule(GRAPH.head)
    assert not torch.equal(head.weight[0], head.weight[1])
    for name in GRAPH.norms:
        norm = fresh.network.get_submodule(name)
        if name not in TRUNK and "bn" in name:
            assert bool((norm.weight == 1).all() and (norm.bias == 0).all() and (norm.running_mean == 0).all())


@torch.no_grad()
def test_one_member_can_be_taken_out_alone() -> None:
    fresh = ensemble("fresh", head="member")
    torch.testing.assert_close(fresh.select([2, 0])(images()), fresh(images())[[2, 0]])


def test_another_word_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"ensemble.weights is 'own', expected one of shared, member, fresh"):
        EnsembleConfig(weights="own")
