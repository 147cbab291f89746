import copy
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups


def test_groups_are_those_worked_out_by_hand(case):
    graph = find_groups(case.model(), case.example())
    found = {g.name: (g.width, g.kind, tuple(site.module for site in g.sites)) for g in graph.groups}
    assert found == case.groups
    assert graph.left_whole == ()
    assert list(graph.widths) == list(case.groups), "groups come in order of first use"


def test_every_channel_belongs_to_one_group_at_most(case):
    graph = find_groups(case.model(), case.example())
    seen = set()
    for group in graph.groups:
        for place in group.slices:
            assert len(place.index) == group.width
            assert len(set(map(len, place.index))) == 1, "each channel costs the same"
            for position in (p for places in place.index for p in places):
                assert (place.module, place.side, position) not in seen
                seen.add((place.module, place.side, position))


def test_padded_shortcut_moves_channels(padded):
    graph = find_groups(padded.model(), padded.example())
    places = {(s.module, s.side): [p for (p,) in s.index] for s in graph["conv1"].slices}
    assert places["conv1", "out"] == [0, 1, 2, 3]
    assert places["layer2.0.bn2", "out"] == [2, 3, 4, 5]
    assert places["layer3.0.conv1", "in"] == [2, 3, 4, 5]
    assert places["layer3.0.bn2", "out"] == places["linear", "in"] == [6, 7, 8, 9]
    late = {(s.module, s.side): [p for (p,) in s.index] for s in graph["layer3.0.conv2"].slices}
    assert late["linear", "in"] == [0, 1, 2, 3, 12, 13, 14, 15]


def test_flatten_spreads_a_channel_over_features(named):
    graph = find_groups(named["vgg"].model(), named["vgg"].example())
    head = next(s for s in graph["4"].slices if s.module == "9")
    assert head.side == "in"
    assert head.index[1] == (4, 5, 6, 7)


def test_the_rest_of_the_description(padded):
    graph = find_groups(padded.model(), padded.example())
    assert graph.head == "linear"
    assert graph.classes == 5
    assert graph.example_shape == (3, 8, 8)
    assert len(graph.norms) == 9
    assert [(r.axis, r.left, r.right) for r in graph.resizes] == [(1, 2, 2), (1, 4, 4)]
    assert graph.resizes[0].labels[0][:3] == (("layer2.0.conv2", 0), ("layer2.0.conv2", 1), ("conv1", 0))


@pytest.mark.parametrize("name", ["projected", "perceptron", "mobilenet"])
def test_agrees_with_torch_pruning_where_that_is_right(named, name):
    case = named[name]
    model = case.model()
    graph = find_groups(model, case.example())
    oracle = tp.DependencyGraph().build_dependency(model, (case.example(),), verbose=False)
    names = {module: name for name, module in model.named_modules()}
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d)
    expected = set()
    for coupled in oracle.get_all_groups():
        layers = frozenset(names[dep.target.module] for dep, _ in coupled if isinstance(dep.target.module, kinds))
        expected.add(layers)
    found = {frozenset(s.module for s in group.slices) for group in graph.groups}
    assert found == {layers for layers in expected if graph.head not in layers or layers & set(graph.widths)}


def test_model_gradients_and_random_state_are_untouched(padded):
    model = padded.model().train()
    model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).sum().backward()
    model.conv1.weight.requires_grad_(False)
    before, gradient = copy.deepcopy(model.state_dict()), model.linear.weight.grad.clone()
    state = torch.random.get_rng_state()
    with torch.no_grad():
        find_groups(model, padded.example())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert model.layer1[0].bn1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.linear.weight.grad, gradient)
    assert not model.conv1.weight.requires_grad
    assert model.linear.weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_network_and_inference_mode_input(padded):
    model = padded.model().requires_grad_(False)
    with torch.inference_mode():
        example = torch.zeros(1, 3, 8, 8)
        graph = find_groups(model, example)
    assert graph.widths == {name: width for name, (width, _, _) in padded.groups.items()}


class Tupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), x


class Detached(Tupled):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(x).detach().mean((2, 3))


class Auxiliary(nn.Module):
    """Inception and GoogLeNet have a second classifier while they are trained; `kind` makes the output of both."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.bn, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 6, 3)
        self.side, self.head = nn.Linear(4, 5), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.drop(self.bn(self.conv(x)).relu())
        logits = self.head(self.last(x).relu().mean((2, 3)))
        return self.kind(logits, self.side(x.mean((2, 3)))) if self.training else logits


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (lambda *logits: logits, "tuple"),
        (namedtuple("InceptionOutputs", "logits aux_logits"), "InceptionOutputs"),
        (lambda logits, aux: {"out": logits, "aux": aux}, "dict"),
    ],
    ids=["tuple", "namedtuple", "dict"],
)
def test_auxiliary_logits_are_refused_in_whatever_mode_the_network_is(kind, got, training):
    message = f"output in training mode is {got} for input .*wrap the network"
    with pytest.raises(SubnetSearchError, match=message):
        find_groups(Auxiliary(kind).train(training), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("training", [True, False])
def test_a_look_at_the_training_mode_leaves_statistics_modes_and_random_state(training):
    model = Auxiliary(lambda logits, _aux: logits).train(training)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    graph = find_groups(model, torch.ones(2, 3, 8, 8))
    assert graph.widths == {"conv": 4, "last": 6}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Demanding(nn.Sequential):
    """Wants four samples where it learns, as code with statistics of its own may."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 4:
            raise ValueError("Expected more than 1 value per channel when training")
        logits: Tensor = super().forward(x)
        return logits


def test_too_few_samples_for_statistics_are_no_reason_to_refuse_a_network():
    model = Demanding(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    assert find_groups(model, torch.zeros(2, 3, 8, 8)).widths == {"0": 4}


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (nn.Flatten(), torch.zeros(1, 3, 8, 8), "the network has no parameters"),
        (nn.Conv2d(3, 4, 3), torch.zeros(1, 5, 8, 8), r"RuntimeError on input of shape \(2, 5, 8, 8\)"),
        (
            nn.Conv2d(3, 4, 3),
            torch.zeros(1, 3, 8, 8),
            r"output is shape \(2, 4, 6, 6\).*expected logits \[batch, class\]",
        ),
        (Tupled(), torch.zeros(1, 3, 8, 8), "output is tuple .*wrap the network"),
        (Detached(), torch.zeros(1, 3, 8, 8), "does not depend on its input through autograd"),
        (nn.Linear(3, 4), torch.zeros(1, 3), "no channels that can be searched.*writes anything but the logits"),
        (nn.Linear(3, 4), torch.zeros(0, 3), r"example input is torch.float32 of shape \(0, 3\); expected"),
        (nn.Linear(3, 4), torch.zeros(2, 3, dtype=torch.int64), "expected a floating-point tensor"),
        (nn.Linear(3, 4), [1.0], "the example input is list"),
    ],
    ids=["no-parameters", "wrong-shape", "no-logits", "tuple", "detached", "head-only", "empty", "integers", "list"],
)
def test_networks_that_cannot_be_searched(model, example, message):
    with pytest.raises(SubnetSearchError, match=message):
        find_groups(model, example)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own modules
def test_compiled_networks_are_refused_with_what_to_give_instead() -> None:
    network, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(2, 4)
    with pytest.raises(SubnetSearchError, match=r"is compiled \(OptimizedModule\).* give model\._orig_mod"):
        find_groups(torch.compile(network), x)
    with pytest.raises(SubnetSearchError, match=r"is compiled .* give the network that it was made from"):
        find_groups(torch.jit.trace(network, x), x)
