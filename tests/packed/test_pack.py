"""Whatever form is chosen, it computes what the masked network computes."""

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search import SubnetSearchError
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import GroupGraph, Slice
from subnet_search.masks import MaskSet
from subnet_search.packed import PackConfig, PackedEnsemble, grouped_rules, pack
from subnet_search.packed.program import CONVOLUTIONS, operator

QUICK = PackConfig(seconds=0.0)
BOTH = ["sliced", "grouped"]


def example(ensemble: SubnetEnsemble, batch: int = 3, seed: int = 4) -> Tensor:
    return torch.randn(batch, *ensemble.graph.example_shape, generator=torch.Generator().manual_seed(seed))


def assert_same_function(packed: PackedEnsemble, ensemble: SubnetEnsemble) -> None:
    for batch in (1, 2, 5):
        x = example(ensemble, batch, seed=batch)
        with torch.no_grad():
            expected, got = ensemble(x), packed(x)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not torch.allclose(expected[0], expected[1])  # else a mix-up of members would not be seen


def convolutions(packed: PackedEnsemble) -> int:
    return sum(operator(node) in CONVOLUTIONS for node in packed.network.graph.nodes)


def without_branches(kept: list[list[bool]]):
    """Masks of equal widths in which the members leave out branches: one list for each branch, cyclic."""

    def masks(graph: GroupGraph, halves) -> MaskSet:
        sites = [branch.site for branch in graph.branches]
        depth = {site: torch.tensor(kept[i % len(kept)]) for i, site in enumerate(sites)}
        return replace(halves(graph), depth=depth)

    return masks


@pytest.mark.parametrize("shape", BOTH)
def test_every_architecture_in_every_form(unequal, shape, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["subnet_search.packed.pack"], "PADDING", float("inf"))
    packed = pack(unequal, example(unequal), replace(QUICK, shapes=(shape,)))
    assert not packed.report.unavailable
    assert packed.form.shape == shape
    assert_same_function(packed, unequal)


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("name", ["padded", "projected", "mobilenet", "pre-activation"])
def test_branches_that_members_leave_out(make, halves, name, shape) -> None:
    masks = without_branches([[True, False, True], [False, True, True], [False, False, False]])
    ensemble = make(name, lambda graph: masks(graph, halves))
    assert ensemble.masks.depth
    whole = make(name, halves)
    packed = pack(ensemble, example(ensemble), replace(QUICK, shapes=(shape,)))
    assert_same_function(packed, ensemble)
    if shape == "sliced" or len(ensemble.graph.branches) > 2:  # side by side, a branch is left out if by all
        assert convolutions(packed) < convolutions(pack(whole, example(whole), replace(QUICK, shapes=(shape,))))


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("projected", EnsembleConfig(norm="shared")),
        ("unnormalised", EnsembleConfig(head="member")),
        ("perceptron", EnsembleConfig(norm="shared", head="member")),
    ],
)
def test_shared_norms_and_heads_of_the_members(make, name, config, shape) -> None:
    ensemble = make(name, config=config)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            if parameter.ndim == 3:  # heads, which start alike
                parameter.add_(torch.arange(3.0)[:, None, None])
    packed = pack(ensemble, example(ensemble), replace(QUICK, shapes=(shape,)))
    assert_same_function(packed, ensemble)


def test_a_shared_stem_is_one_of_the_forms_where_there_is_one(make, halves) -> None:
    def whole_stem(graph: GroupGraph) -> MaskSet:
        masks = dict(halves(graph).masks)
        stem = graph.groups[0].name
        return MaskSet(masks | {stem: torch.ones_like(masks[stem])}, "random")

    ensemble = make("padded", whole_stem)
    packed = pack(ensemble, example(ensemble), QUICK)
    assert {"sliced", "sliced, shared stem", "grouped", "grouped, shared stem"} <= set(packed.report.timings_ms)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # what bf16 rounds is no excuse
@pytest.mark.parametrize("shape", BOTH)
def test_a_wrong_slice_is_caught(make, monkeypatch, shape, precision) -> None:
    ensemble = make("projected")
    right = Slice.positions

    def wrong(place: Slice, kept: Tensor) -> Tensor:
        return right(place, kept.roll(1) if place.side == "in" else kept)

    monkeypatch.setattr(Slice, "positions", wrong)
    with pytest.raises(SubnetSearchError, match="cannot be packed: no form computes what the masked network does"):
        pack(ensemble, example(ensemble), replace(QUICK, shapes=(shape,), precision=precision))


def test_a_wrong_place_of_padded_channels_is_caught(make, monkeypatch) -> None:
    ensemble = make("padded")
    x = example(ensemble)
    right = grouped_rules.place_channels
    monkeypatch.setattr(grouped_rules, "place_channels", lambda *a: right(*a).view(3, -1).roll(1, 1).flatten())
    with pytest.raises(SubnetSearchError, match="grouped: its logits differ"):
        pack(ensemble, x, replace(QUICK, shapes=("grouped",)))
    packed = pack(ensemble, x, QUICK)
    assert packed.form.shape == "sliced"
    assert "differ" in packed.report.unavailable["grouped"]


def test_padding_is_refused_where_it_costs_too_much(make, halves) -> None:
    def one_whole(graph: GroupGraph) -> MaskSet:
        return MaskSet(
            {name: mask | (torch.arange(3) == 0)[:, None] for name, mask in halves(graph).masks.items()}, "random"
        )

    ensemble = make("projected", one_whole)
    packed = pack(ensemble, example(ensemble), QUICK)
    assert packed.form.shape == "sliced"
    assert packed.report.unavailable["grouped"].startswith("padding to the widest member multiplies the work by")


def test_the_report_and_the_identity(make) -> None:
    ensemble = make("vgg").train()
    packed = pack(ensemble, example(ensemble), QUICK)
    assert ensemble.training
    assert next(iter(packed.report.timings_ms)) == str(packed.form)
    assert list(packed.report.timings_ms.values()) == sorted(packed.report.timings_ms.values())
    assert packed.report.batch == 3
    assert 0 <= packed.report.difference <= 1e-4
    assert packed.macs() == ensemble.macs()
    assert packed.card == ensemble.card
    assert packed.identity() == {**ensemble.identity(), "form": str(packed.form)}


def test_it_predicts_as_the_ensemble_does(make) -> None:
    ensemble = make("vgg")
    packed = pack(ensemble, example(ensemble), QUICK)
    images = torch.rand(4, *ensemble.card.input_shape, generator=torch.Generator().manual_seed(9))
    expected, got = ensemble.predict(images), packed.predict(images)
    assert torch.allclose(got.member_probabilities, expected.member_probabilities, atol=1e-5)
    rows = example(ensemble, 6)
    with torch.no_grad():
        assert torch.allclose(packed(rows, repeat=False), ensemble(rows, repeat=False), atol=1e-4)


def test_it_cannot_be_trained(make) -> None:
    ensemble = make("perceptron")
    packed = pack(ensemble, example(ensemble), QUICK)
    assert packed.eval() is packed
    with pytest.raises(SubnetSearchError, match="cannot be trained; train the SubnetEnsemble"):
        packed.train()


def test_weights_are_its_own(make) -> None:
    ensemble = make("perceptron")
    packed = pack(ensemble, example(ensemble), QUICK)
    with torch.no_grad():
        before = packed(example(ensemble))
        for tensor in (*ensemble.parameters(), *ensemble.buffers()):
            tensor.zero_()
        assert packed(example(ensemble)).equal(before)


def test_bfloat16_is_tried_when_asked_for(make) -> None:
    ensemble = make("pre-activation")
    packed = pack(ensemble, example(ensemble), replace(QUICK, precision="bf16"))
    assert packed.form.precision == "bf16"
    assert all("bf16" in name for name in packed.report.timings_ms)
    with torch.no_grad():
        expected, got = ensemble(example(ensemble)), packed(example(ensemble))
    assert got.dtype == torch.float32
    assert 1e-5 < (got - expected).abs().max() / expected.abs().max() < 0.1
    assert packed.report.difference > 1e-5


def test_bfloat16_that_rounds_too_much_is_refused(make, monkeypatch) -> None:
    ensemble = make("pre-activation")
    monkeypatch.setattr(sys.modules[pack.__module__], "ROUNDING", 1e-9)
    with pytest.raises(SubnetSearchError, match="bf16: its logits differ from the masked network's"):
        pack(ensemble, example(ensemble), replace(QUICK, precision="bf16"))


def test_a_compiled_form_is_checked_and_measured_as_any_other(make, monkeypatch) -> None:
    ensemble = make("perceptron")
    monkeypatch.setattr(torch, "compile", lambda module: module)
    packed = pack(ensemble, example(ensemble), replace(QUICK, compile=True))
    assert sum("compiled" in name for name in packed.report.timings_ms) == 1
    monkeypatch.setattr(torch, "compile", lambda module: nn.Sequential(module, nn.Sigmoid()))
    packed = pack(ensemble, example(ensemble), replace(QUICK, compile=True))
    assert [reason for name, reason in packed.report.unavailable.items() if "compiled" in name]
    assert not packed.form.compiled


class Unusual(nn.Module):
    """Operations for which there is no rule: group norm, a scan, and a product of two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.norm, self.conv2 = nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.norm(self.conv1(F.relu(self.conv0(x)))))
        x = F.relu(x).permute(0, 2, 3, 1).cumsum(1)[:, -1]
        return self.head(x).softmax(-1).transpose(1, 2).mean(-1)


@pytest.mark.parametrize("shape", BOTH)
def test_operations_without_a_rule_of_their_own(build, shape) -> None:
    ensemble = build(Unusual(), (3, 5, 5))
    assert_same_function(pack(ensemble, example(ensemble), replace(QUICK, shapes=(shape,))), ensemble)


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, padding=1)


def standardised() -> nn.Module:
    parts = (Standardised(3, 6, 3), nn.ReLU(), Standardised(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 8, 3), nn.ReLU())
    return nn.Sequential(*parts, nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4, 3))


def test_weights_that_the_code_computes_leave_the_sliced_form(build) -> None:
    ensemble = build(standardised(), (3, 5, 5))
    packed = pack(ensemble, example(ensemble), QUICK)
    assert packed.form.shape == "sliced"
    assert packed.report.unavailable["grouped"] == "its code computes the weight of conv2d as it runs"
    assert_same_function(packed, ensemble)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_forms_are_checked_with_another_batch_size_than_the_example_s(make, batch) -> None:
    ensemble, sizes = make("projected"), set()
    ensemble.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    pack(ensemble, example(ensemble, batch), replace(QUICK, shapes=("sliced",)))
    assert len(sizes - {batch}) > 0
    assert len(sizes) == 2


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x)
        return self.head(F.relu(x) if x.sum() > 0 else x)


def test_a_network_that_branches_on_values_is_refused(build) -> None:
    ensemble = build(Branching(), (4,))
    with pytest.raises(SubnetSearchError, match=r"torch.export cannot follow its code"):
        pack(ensemble, example(ensemble), QUICK)


@pytest.mark.parametrize("wrong", [torch.zeros(0, 6), torch.zeros(2, 5), torch.zeros(2, 6, dtype=torch.uint8)])
def test_an_example_that_does_not_fit_is_refused(make, wrong) -> None:
    with pytest.raises(SubnetSearchError, match=r"pack: the example is .*, expected prepared"):
        pack(make("perceptron"), wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shapes": ()}, r"pack.shapes is \(\)"),
        ({"shapes": ("folded",)}, "pack.shapes"),
        ({"precision": "int8"}, "pack.precision is 'int8'"),
        ({"seconds": -1.0}, "pack.seconds is -1.0"),
    ],
)
def test_settings_are_checked(settings, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        PackConfig(**settings)
