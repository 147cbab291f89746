"""What every criterion promises, and the errors."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet
from subnet_search.relevance import Relevance, RelevanceConfig, score_relevance

CRITERIA = [("ig", "sampled"), ("ig", "joint"), ("ig", "group"), ("singe", "joint"), ("singe", "group")] + [
    (criterion, "sampled") for criterion in ("fisher", "taylor", "magnitude", "random")
]
each = pytest.mark.parametrize(("criterion", "path"), CRITERIA)


def config_of(criterion, path, **more):
    return RelevanceConfig(criterion=criterion, path=path, **{"nodes": 3, "samples": 6, "precision": "fp32", **more})


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@each
def test_scores_have_their_shape_and_cut_channels_score_zero(tiny, criterion, path):
    result = score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path))
    assert list(result.scores) == ["even", "odd", "conv2", "fc"]
    for name, scores in result.scores.items():
        assert scores.shape == tiny.masks[name].shape
        assert scores.dtype == torch.float32
        assert not scores.requires_grad
        assert (scores[~tiny.masks[name]] == 0).all()
    assert all((scores > 0).any() for scores in result.scores.values())
    assert result.criterion == criterion
    assert (result.completeness is not None) == (criterion == "ig" and path != "sampled")


@each
def test_the_same_seed_gives_the_same_scores(tiny, criterion, path):
    one = score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path, samples=3, seed=4)).scores
    torch.manual_seed(99)  # the global state plays no part
    assert equal(one, score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path, samples=3, seed=4)).scores)


@each
def test_the_networks_are_left_unchanged(tiny, criterion, path):
    tiny.ensemble.train()
    tiny.ensemble.network.bn1.eval()  # a frozen norm in a network in training
    tiny.network.train()
    for parameter in tiny.ensemble.parameters():
        parameter.grad = torch.ones_like(parameter)
    networks = nn.ModuleList([tiny.ensemble, tiny.network])
    before = copy.deepcopy(networks.state_dict())
    modes = [module.training for module in networks.modules()]
    state = torch.get_rng_state()
    score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path, labels=False), dense=tiny.network)
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(networks.state_dict(), before)
    assert [module.training for module in networks.modules()] == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in tiny.ensemble.parameters())
    assert not any(module._forward_hooks for module in networks.modules())


@each
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_mode_plays_no_part(tiny, criterion, path, mode):
    config = config_of(criterion, path, samples=3, labels=False)
    expected = score_relevance(tiny.ensemble, tiny.data, config, dense=tiny.network).scores
    with mode():
        found = score_relevance(tiny.ensemble, tiny.data, config, dense=tiny.network).scores
        assert not torch.is_grad_enabled()
    assert equal(found, expected)


@each
def test_groups_that_are_not_named_score_one(tiny, criterion, path):
    result = score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path), groups=["fc", "even"])
    assert list(result.scores) == ["even", "odd", "conv2", "fc"]  # the order of the graph, whatever was asked for
    for name in ("odd", "conv2"):
        assert (result.scores[name] == 1).all()
    assert not (result.scores["fc"] == 1).all()
    assert (result.scores["fc"][~tiny.masks["fc"]] == 0).all()


@each
def test_without_groups_there_is_nothing_to_do(tiny, criterion, path):
    result = score_relevance(tiny.ensemble, tiny.data, config_of(criterion, path), groups=[])
    assert all((scores == 1).all() for scores in result.scores.values())
    assert result.samples == 0


@pytest.mark.parametrize("path", ["group", "sampled"])
def test_scores_of_a_group_do_not_depend_on_the_others_asked_for(tiny, path):
    # on the path `joint` they do, as all that are asked for move together
    settings = config_of("ig", path, nodes=200 if path == "sampled" else 4)
    alone = score_relevance(tiny.ensemble, tiny.data, settings, groups=["conv2"]).scores["conv2"]
    together = score_relevance(tiny.ensemble, tiny.data, settings).scores["conv2"]
    torch.testing.assert_close(alone, together, rtol=0.2 if path == "sampled" else 1e-4, atol=1e-3)


@each
@settings(max_examples=3, deadline=None, derandomize=True)
@given(order=st.permutations(range(4)))
def test_permuted_channels_have_permuted_scores(tiny_once, criterion, path, order):
    if criterion == "random":
        return  # scores by position
    permuted = copy.deepcopy(tiny_once.network)
    with torch.no_grad():
        permuted.conv2.weight.copy_(permuted.conv2.weight[order])
        permuted.conv2.bias.copy_(permuted.conv2.bias[order])
        permuted.fc.weight.copy_(permuted.fc.weight[:, order])
    masks = {**tiny_once.masks, "conv2": tiny_once.masks["conv2"][:, order]}
    first = SubnetEnsemble(
        tiny_once.network, tiny_once.ensemble.graph, tiny_once.ensemble.masks, tiny_once.ensemble.card
    )
    second = SubnetEnsemble(permuted, tiny_once.ensemble.graph, MaskSet(masks, "hand"), tiny_once.ensemble.card)
    one, other = (score_relevance(e, tiny_once.data, config_of(criterion, path)).scores for e in (first, second))
    torch.testing.assert_close(other["conv2"], one["conv2"][:, order], rtol=1e-3, atol=1e-6)
    for name in ("even", "odd", "fc"):
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-6)


def test_members_are_scored_on_images_of_their_own_only_where_asked(tiny):
    same = MaskSet({name: mask[:1].repeat(2, 1) for name, mask in tiny.masks.items()}, "hand")
    twins = SubnetEnsemble(tiny.network, tiny.ensemble.graph, same, tiny.ensemble.card)
    for bootstrap in (False, True):
        config = config_of("taylor", "joint", samples=2, bootstrap=bootstrap)
        scores = score_relevance(twins, tiny.data, config).scores["fc"]
        assert torch.allclose(scores[0], scores[1]) is not bootstrap


def test_more_samples_than_images_are_all_images(tiny):
    result = score_relevance(tiny.ensemble, tiny.data, config_of("taylor", "joint", samples=1000))
    assert result.samples == 6
    exact = score_relevance(tiny.ensemble, tiny.data, config_of("taylor", "joint", samples=6)).scores
    assert equal(result.scores, exact)


def test_any_map_style_dataset_will_do(tiny):
    pairs = [tiny.data[index] for index in range(6)]
    got = score_relevance(tiny.ensemble, pairs, config_of("taylor", "joint")).scores
    assert equal(got, score_relevance(tiny.ensemble, tiny.data, config_of("taylor", "joint")).scores)


def test_images_without_labels_can_be_scored_without_labels(tiny):
    unlabelled = ArrayDataset(tiny.data.images, torch.full((6,), -1))
    with pytest.raises(SubnetSearchError, match="labels run from -1 to -1, expected 0 to 2"):
        score_relevance(tiny.ensemble, unlabelled, config_of("ig", "joint"))
    got = score_relevance(tiny.ensemble, unlabelled, config_of("ig", "joint", labels=False), dense=tiny.network)
    assert got.scores["fc"].max() > 0


def test_errors_of_the_call(tiny):
    with pytest.raises(SubnetSearchError, match="the dense network is needed as reference"):
        score_relevance(tiny.ensemble, tiny.data, config_of("ig", "joint", labels=False))
    score_relevance(tiny.ensemble, tiny.data, config_of("magnitude", "joint", labels=False))  # looks at no image
    with pytest.raises(SubnetSearchError, match=r"unknown groups \['layer9'\], expected some of \['even'"):
        score_relevance(tiny.ensemble, tiny.data, groups=["fc", "layer9"])
    wrong = ArrayDataset(tiny.data.images, torch.arange(6))
    with pytest.raises(SubnetSearchError, match="labels run from 0 to 5, expected 0 to 2"):
        score_relevance(tiny.ensemble, wrong, config_of("fisher", "joint"))
    with torch.no_grad():
        tiny.ensemble.network.head.weight[0, 0] = float("nan")
    tiny.ensemble.train()
    with pytest.raises(SubnetSearchError, match="finite and at least 0"):
        score_relevance(tiny.ensemble, tiny.data, config_of("ig", "joint"))
    assert tiny.ensemble.network.bn1.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "gradcam"}, "relevance.criterion is 'gradcam', expected one of ig, singe"),
        ({"path": "straight"}, "relevance.path is 'straight', expected one of group, joint, sampled"),
        ({"precision": "fp8"}, "relevance.precision is 'fp8', expected one of auto, fp32, bf16"),
        ({"nodes": 0}, "relevance.nodes is 0, expected at least 1"),
        ({"samples": 0}, "relevance.samples is 0"),
        ({"batch_rows": -1}, "relevance.batch_rows is -1"),
        ({"power": 0.0}, "relevance.power is 0.0, expected a positive number"),
        ({"power": float("nan")}, "relevance.power is nan"),
        ({"lambda_corr": -1.0}, "relevance.lambda_corr is -1.0, expected a finite number of at least 0"),
        ({"lambda_corr": float("inf")}, "relevance.lambda_corr is inf"),
    ],
)
def test_errors_of_the_settings(settings, message):
    with pytest.raises(SubnetSearchError, match=message):
        RelevanceConfig(**settings)


@pytest.mark.parametrize("bad", [torch.tensor([[-1.0]]), torch.tensor([[float("nan")]]), torch.ones(3)])
def test_a_relevance_holds_no_nonsense(bad):
    with pytest.raises(SubnetSearchError, match="relevance of group 'a' must be finite"):
        Relevance({"a": bad}, "ig")


class Frames(nn.Module):
    """Runs its layers on each channel of the image as a frame, folded into the batch or one after the other."""

    def __init__(self, folded):
        super().__init__()
        self.folded = folded
        self.conv, self.norm, self.hidden, self.fc = (
            nn.Conv2d(1, 5, 3),
            nn.BatchNorm2d(5),
            nn.Linear(5, 4),
            nn.Linear(4, 3),
        )

    def frame(self, x):
        return torch.relu(self.hidden(torch.relu(self.norm(self.conv(x))).mean((2, 3))))

    def forward(self, x):
        if self.folded:
            return self.fc(self.frame(x.reshape(-1, 1, 5, 5)).view(len(x), 2, -1).mean(1))
        return self.fc((self.frame(x[:, :1]) + self.frame(x[:, 1:])) / 2)


@each
def test_frames_folded_into_the_batch_score_as_frames_one_after_the_other(tiny, criterion, path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        folded = Frames(True).eval()
    looped = Frames(False).eval()
    looped.load_state_dict(folded.state_dict())
    found = []
    for network in (folded, looped):
        graph = find_groups(network, torch.zeros(2, 2, 5, 5))
        masks = {name: torch.ones(2, width, dtype=torch.bool) for name, width in graph.widths.items()}
        masks["conv"][1, 2] = masks["hidden"][0, 1] = False
        ensemble = SubnetEnsemble(network, graph, MaskSet(masks, "hand"), tiny.ensemble.card)
        found.append(score_relevance(ensemble, tiny.data, config_of(criterion, path)).scores)
    assert list(found[0]) == ["conv", "hidden"]
    for name, scores in found[0].items():
        torch.testing.assert_close(scores, found[1][name], rtol=1e-3, atol=1e-5)
