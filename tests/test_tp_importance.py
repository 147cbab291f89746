"""torch-pruning's importances, as the pruning benchmark asks for them, on the digits."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tp_importance import IMPORTANCES, score_by_torch_pruning
from subnet_search.backbones import Backbone, load_backbone
from subnet_search.data import load_data
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet, full_masks

INNER = ("layer1.0.conv1", "layer2.1.conv1")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("digits")


@pytest.fixture(scope="module")
def graph(backbone: Backbone) -> GroupGraph:
    return find_groups(backbone.model, torch.rand(2, *backbone.card.input_shape))


@pytest.fixture(scope="module")
def images(backbone: Backbone) -> tuple[Tensor, Tensor]:
    data = load_data("digits", backbone.card).subset(range(12))
    return backbone.card.prepare(data.images), data.labels


def ensemble_of(backbone: Backbone, graph: GroupGraph, full: bool = False) -> SubnetEnsemble:
    masks = full_masks(graph.widths, 1)
    if not full:
        thinned = {name: mask.clone() for name, mask in masks.masks.items()}
        for group in graph.groups:
            if group.kind == "inner":
                thinned[group.name][0, ::3] = False
        masks = MaskSet(thinned, "hand")
    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card).eval()
    with torch.no_grad():  # other weights than the dense network's, or it would not matter whose are scored
        for parameter in ensemble.parameters():
            parameter.mul_(1.0 + 0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return ensemble


def mean_one(scores: Tensor) -> Tensor:
    return scores / scores.mean()


def naive(ensemble: SubnetEnsemble, name: str, of: dict[str, Tensor], norm: bool) -> Tensor:
    """Mean over a group's layers of the sum of `of` over each kept channel, written out for one block; mean 1."""
    kept = ensemble.masks.masks[name][0]
    block = name.removesuffix(".conv1")
    parts = [
        of[f"{block}.conv1.weight"].flatten(1).sum(1),
        of[f"{block}.conv2.weight"].transpose(0, 1).flatten(1).sum(1),
    ]
    if norm:
        parts.append(of[f"{block}.bn1.weight"].flatten())
    return mean_one(torch.stack(parts).mean(dim=0)[kept])


def test_magnitude_is_the_norm_of_the_weights_that_are_left(backbone, graph, images) -> None:
    ensemble = ensemble_of(backbone, graph)
    scores = score_by_torch_pruning(ensemble, INNER, "tp-magnitude", *images)
    squares = {
        name: parameter.detach()[0 if ".bn" in name else ...].square()
        for name, parameter in ensemble.network.named_parameters()
    }
    for name in INNER:
        kept = ensemble.masks.masks[name][0]
        torch.testing.assert_close(scores[name][0, kept], naive(ensemble, name, squares, norm=True))


@pytest.mark.parametrize("criterion", ["tp-taylor", "tp-hessian"])
def test_the_gradients_are_those_of_the_masked_network(backbone, graph, images, criterion: str) -> None:
    ensemble = ensemble_of(backbone, graph)
    scores = score_by_torch_pruning(ensemble, INNER, criterion, *images)
    x, labels = images
    parameters = dict(ensemble.network.named_parameters())

    def gradients(rows: slice) -> list[Tensor]:
        loss = F.cross_entropy(ensemble(x[rows])[0], labels[rows])
        return list(torch.autograd.grad(loss, list(parameters.values())))

    if criterion == "tp-taylor":
        terms = [(w * g).abs() for w, g in zip(parameters.values(), gradients(slice(None)), strict=True)]
    else:
        each = [gradients(slice(i, i + 1)) for i in range(len(x))]
        terms = [
            w.square() * torch.stack([g[i] for g in each]).square().mean(dim=0)
            for i, w in enumerate(parameters.values())
        ]
    of = {name: term.detach()[0 if ".bn" in name else ...] for name, term in zip(parameters, terms, strict=True)}
    for name in INNER:
        kept = ensemble.masks.masks[name][0]
        # Taylor of torch-pruning 1.6.1 leaves out the normalisation
        wanted = naive(ensemble, name, of, norm=criterion == "tp-hessian")
        torch.testing.assert_close(scores[name][0, kept], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("criterion", list(IMPORTANCES))
@pytest.mark.parametrize("full", [True, False])
def test_scores_have_the_shape_of_the_masks_and_are_zero_outside(backbone, graph, images, criterion, full) -> None:
    ensemble = ensemble_of(backbone, graph, full)
    before = torch.random.get_rng_state()
    names = [group.name for group in graph.groups if group.kind == "inner"]
    scores = score_by_torch_pruning(ensemble, names, criterion, *images)
    again = score_by_torch_pruning(ensemble, names, criterion, *images)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(scores) == names
    for name in names:
        mask = ensemble.masks.masks[name]
        assert scores[name].shape == mask.shape
        assert torch.equal(scores[name], again[name])
        assert (scores[name][~mask] == 0).all()
        assert (scores[name][mask] > 0).all()


def test_chance_depends_on_the_seed(backbone, graph, images) -> None:
    ensemble = ensemble_of(backbone, graph)
    one, other = (score_by_torch_pruning(ensemble, INNER, "tp-random", *images, seed=seed) for seed in (1, 2))
    assert not torch.equal(one[INNER[0]], other[INNER[0]])


def test_layers_that_are_masked_without_a_norm_are_found_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.hidden = nn.Linear(4, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(F.relu(self.hidden(F.relu(self.conv(x)).mean(dim=(2, 3)))))
            return logits

    card = replace(load_backbone("digits").card, classes=("a", "b", "c"))
    network, x = Plain().eval(), torch.rand(4, *card.input_shape)
    graph = find_groups(network, x)
    ensemble = SubnetEnsemble(network, graph, full_masks(graph.widths, 1), card)
    scores = score_by_torch_pruning(ensemble, list(graph.widths), "tp-magnitude", x, torch.zeros(4).long())
    squares = network.conv.weight.square().flatten(1).sum(1) + network.hidden.weight.square().sum(0)
    torch.testing.assert_close(scores["conv"][0], mean_one(squares.detach()))


def test_a_group_that_torch_pruning_sees_otherwise_is_an_error(backbone, graph, images) -> None:
    ensemble = ensemble_of(backbone, graph)
    stream = next(group for group in graph.groups if group.kind == "stream")
    fewer = replace(stream, slices=stream.slices[:2])
    ensemble.graph = replace(graph, groups=tuple(fewer if g.name == stream.name else g for g in graph.groups))
    with pytest.raises(ValueError, match="torch-pruning couples"):
        score_by_torch_pruning(ensemble, [stream.name], "tp-magnitude", *images)
