"""Training thin members is training masked ones: the naive twin of each network is its masked form."""

import copy
import logging
from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.ensemble.thin import ThinEnsemble, thinned
from subnet_search.groups import GroupGraph, find_groups, trunk_groups, trunk_layers, trunk_shares
from subnet_search.masks import MaskSet, full_masks
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, search_masks
from tests.architectures import BY_NAME, MEMBERS, enlivened, half_masks, random_masks

ROWS = 5


def ensemble_of(
    network: nn.Module,
    shape: tuple[int, ...],
    config: EnsembleConfig | None = None,
    make_masks: Callable[[GroupGraph], MaskSet] = random_masks,
) -> SubnetEnsemble:
    """In float64, without dropout, which draws from the global state."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = enlivened(network.double())
    graph = find_groups(model, torch.randn(2, *shape, generator=torch.Generator().manual_seed(2)).double())
    card = Card("case", shape, tuple(map(str, range(graph.classes))))
    return SubnetEnsemble(model, graph, make_masks(graph), card, config)


def trained(
    ensemble: SubnetEnsemble, thin: bool, steps: int = 3, repeat: Collection[int] = (1,)
) -> tuple[SubnetEnsemble, list[Tensor], list[Tensor]]:
    """A copy after some steps of SGD, the logits of each step, and the gradients of the last one."""
    ensemble = copy.deepcopy(ensemble)
    model = thinned(ensemble, thin)
    assert isinstance(model, ThinEnsemble) == thin
    optimizer = torch.optim.SGD(ensemble.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    generator = torch.Generator().manual_seed(9)
    found = []
    model.train()
    for step in range(steps):
        shared = step in repeat
        rows = torch.randn(ROWS if shared else MEMBERS * ROWS, *ensemble.graph.example_shape, generator=generator)
        labels = torch.randint(ensemble.graph.classes, (MEMBERS * ROWS,), generator=generator)
        optimizer.zero_grad()
        logits = model(rows.double(), repeat=shared)
        F.cross_entropy(logits.flatten(0, 1), labels).backward()
        optimizer.step()
        found.append(logits.detach())
    model.eval()
    gradients = [torch.zeros(0) if p.grad is None else p.grad for p in ensemble.parameters()]
    return ensemble, found, gradients


def assert_trained_alike(ensemble: SubnetEnsemble, repeat: Collection[int] = (1,)) -> None:
    masked, thin = trained(ensemble, False, repeat=repeat), trained(ensemble, True, repeat=repeat)
    torch.testing.assert_close(thin[1], masked[1], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(thin[2], masked[2], rtol=1e-6, atol=1e-9)
    for (name, got), expected in zip(thin[0].named_parameters(), masked[0].parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")
    start = dict(ensemble.named_modules())
    for name, norm in thin[0].named_modules():
        if isinstance(norm, MemberNorm):
            other = masked[0].get_submodule(name)
            assert norm.num_batches_tracked == other.num_batches_tracked
            kept = norm.mask.clone()
            if isinstance(other.weight, Tensor) and other.weight.grad is not None:
                kept &= (other.weight.grad != 0).any(dim=1)[:, None]  # not in a branch that the member leaves out
            for statistic in ("running_mean", "running_var"):
                got, expected = getattr(norm, statistic), getattr(other, statistic)
                torch.testing.assert_close(got[kept], expected[kept], rtol=1e-7, atol=1e-9)
                assert torch.equal(got[~norm.mask], getattr(start[name], statistic)[~norm.mask])
    x = torch.randn(4, *ensemble.graph.example_shape, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        torch.testing.assert_close(thin[0](x), masked[0](x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_architecture_with_members_of_unequal_widths(name) -> None:
    case = BY_NAME[name]
    assert_trained_alike(ensemble_of(case.model(), case.shape))


@pytest.mark.parametrize("name", ["padded", "projected", "mobilenet", "vgg"])
def test_members_of_equal_widths(name) -> None:
    assert_trained_alike(ensemble_of(BY_NAME[name].model(), BY_NAME[name].shape, make_masks=half_masks))


def test_the_built_in_residual_network_with_whole_streams() -> None:
    def inner(graph: GroupGraph) -> MaskSet:
        whole = {g.name for g in graph.groups if g.kind == "stream"}
        return MaskSet({n: m | (n in whole) for n, m in half_masks(graph).masks.items()}, "random")

    backbone = load_backbone("resnet20", "random", width=4)
    assert_trained_alike(ensemble_of(backbone.model, backbone.card.input_shape, make_masks=inner))


@pytest.mark.parametrize("name", ["padded", "vgg", "perceptron"])
def test_a_head_for_each_member(name) -> None:
    assert_trained_alike(ensemble_of(BY_NAME[name].model(), BY_NAME[name].shape, EnsembleConfig(head="member")))


@pytest.mark.parametrize("name", ["unnormalised", "gated"])
@pytest.mark.parametrize("norm", ["member", "shared"])
def test_networks_without_shared_norms(name, norm) -> None:
    network = BY_NAME[name].model()
    if name == "gated":
        network.bn2 = nn.Identity()
    assert_trained_alike(ensemble_of(network, BY_NAME[name].shape, EnsembleConfig(norm=norm)))


@pytest.mark.parametrize("name", ["padded", "projected", "mobilenet", "pre-activation", "unnormalised"])
@pytest.mark.parametrize("everyone", [False, True])
def test_branches_left_out(name, everyone) -> None:
    def shallow(graph: GroupGraph) -> MaskSet:
        kept = torch.tensor([False, everyone is False, False])
        depth = (
            {graph.branches[0].site: kept, graph.branches[-1].site: ~kept}
            if not everyone
            else {graph.branches[0].site: kept}
        )
        return replace(half_masks(graph), depth=depth)

    assert_trained_alike(ensemble_of(BY_NAME[name].model(), BY_NAME[name].shape, make_masks=shallow))


@pytest.mark.parametrize("settings", [{"momentum": None}, {"affine": False}])
def test_norms_of_every_kind(settings) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, **settings), nn.ReLU(),
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, **settings), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    assert_trained_alike(ensemble_of(network, (2, 6, 6)))


def test_frozen_parameters_stay_as_they_are() -> None:
    network = BY_NAME["padded"].model()
    network.layer1[0].conv1.weight.requires_grad_(False)
    ensemble = ensemble_of(network, (3, 8, 8))
    assert_trained_alike(ensemble)
    after = trained(ensemble, True)[0].network.layer1[0].conv1.weight
    assert torch.equal(after, ensemble.network.layer1[0].conv1.weight)


def test_it_computes_what_members_keep_and_no_more(monkeypatch) -> None:
    def shallow(graph: GroupGraph) -> MaskSet:
        return replace(half_masks(graph), depth={graph.branches[0].site: torch.tensor([True, False, True])})

    ensemble = ensemble_of(BY_NAME["padded"].model(), (3, 8, 8), make_masks=shallow)
    thin = ThinEnsemble(ensemble)
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        thin(x)  # branches that are left out look once at the shape of what they would write

    counts = counted(monkeypatch)
    with torch.no_grad():
        thin(x)
    assert sum(counts) == ensemble.macs()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Multiply-accumulates for one sample of every convolution and linear layer that runs from now on."""
    counts: list[int] = []

    def counting(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(rows: Tensor, weight: Tensor, *arguments: object) -> Tensor:
            out = function(rows, weight, *arguments)
            counts.append(out[0].numel() * weight[0].numel())
            return out

        return call

    for name in ("conv2d", "linear"):
        monkeypatch.setattr(F, name, counting(getattr(F, name)))
    return counts


def refused(
    ensemble: SubnetEnsemble, caplog: pytest.LogCaptureFixture, reason: str, wanted: bool | None = True
) -> None:
    with caplog.at_level(logging.DEBUG, "subnet_search"):
        assert thinned(ensemble, wanted) is ensemble
    assert reason in caplog.text


def test_structures_that_need_the_masked_form(caplog) -> None:
    padded = BY_NAME["padded"]
    refused(ensemble_of(padded.model(), padded.shape, EnsembleConfig("shared")), caplog, "normalises over the rows of all members")  # fmt: skip
    hooked = ensemble_of(padded.model(), padded.shape)
    hooked.network.layer1.register_forward_hook(lambda *_: None)
    refused(hooked, caplog, "'layer1' has hooks")
    stateful = ensemble_of(padded.model(), padded.shape)
    stateful.network.register_buffer("count", torch.zeros(1))
    refused(stateful, caplog, "has a state of its own")
    tied = ensemble_of(padded.model(), padded.shape)
    tied.network.layer1[0].again = tied.network.layer1[0].conv1
    refused(tied, caplog, "a parameter has several names")
    broken = ensemble_of(padded.model(), padded.shape)
    with torch.no_grad():
        broken.network.get_submodule(str(broken.graph.head)).weight[0, 0] = float("nan")
    refused(broken, caplog, "thin members' logits differ by nan")


def test_members_that_keep_nearly_all_are_run_masked(caplog) -> None:
    whole = ensemble_of(BY_NAME["padded"].model(), (3, 8, 8), make_masks=lambda g: full_masks(g.widths, MEMBERS))
    refused(whole, caplog, "members keep 100% of the multiply-accumulates", None)
    half = ensemble_of(BY_NAME["padded"].model(), (3, 8, 8), make_masks=half_masks)
    assert isinstance(thinned(half), ThinEnsemble)
    refused(half, caplog, "it was asked for", False)


def test_making_it_changes_nothing() -> None:
    ensemble = ensemble_of(BY_NAME["padded"].model(), (3, 8, 8)).train()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    state = torch.get_rng_state()
    thin = thinned(ensemble, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.equal(before[name]) for name, tensor in ensemble.state_dict().items())
    assert all(module.training for module in ensemble.modules())
    assert all(module.training for skeleton in thin.skeletons for module in skeleton.network.modules())
    assert [name.removeprefix("ensemble.") for name in thin.state_dict()] == list(before)
    assert (thin.macs(), thin.identity(), thin.members) == (ensemble.macs(), ensemble.identity(), MEMBERS)


def with_a_trunk(keep: float, share: float = 0.4) -> SubnetEnsemble:
    backbone = load_backbone("resnet20", "random", width=4)
    graph = find_groups(backbone.model, torch.zeros(2, 3, 32, 32))
    quotas = allocate_quotas(graph, MEMBERS, BudgetConfig(1.3, trunk_keep=keep), trunk=share)
    masks = search_masks(None, graph.widths, quotas, SearchConfig("random"), common=trunk_groups(graph, share))
    model = enlivened(backbone.model.double())
    return SubnetEnsemble(model, graph, masks, backbone.card, EnsembleConfig(trunk=share))


KEEPS = pytest.mark.parametrize("keep", [1.0, 0.5])


@KEEPS
def test_a_trunk_is_trained_by_the_rows_of_all_members(keep) -> None:
    assert_trained_alike(with_a_trunk(keep), repeat=())


@KEEPS
@torch.no_grad()
def test_a_trunk_is_computed_once_for_images_that_all_members_see(monkeypatch, keep) -> None:
    ensemble = with_a_trunk(keep).eval()
    thin = thinned(ensemble, True)
    assert isinstance(thin, ThinEnsemble)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()  # fewer images than members
    torch.testing.assert_close(thin(x), ensemble(x))
    counts = counted(monkeypatch)
    thin(x[:1])
    assert sum(counts) == ensemble.macs()


@KEEPS
def test_statistics_of_a_trunk_that_sees_shared_images_follow_them(keep) -> None:
    ensemble = with_a_trunk(keep)
    masked, thin = (trained(ensemble, form, repeat=(0, 1, 2))[0] for form in (False, True))
    theirs = masked.state_dict()
    for name, ours in thin.state_dict().items():
        if "layer.running" in name:  # of the trunk
            kept = ensemble.network.get_submodule(name.removeprefix("network.").partition(".layer.running")[0]).mask[0]
            rtol = 1e-2 if "var" in name else 1e-7
            torch.testing.assert_close(ours[kept], theirs[name][kept], rtol=rtol, atol=1e-9)
            assert torch.equal(ours[~kept], ensemble.state_dict()[name][~kept])
        elif "running" not in name:
            torch.testing.assert_close(ours, theirs[name], rtol=1e-7, atol=1e-9)


def behind_its_first_layer(network: nn.Module) -> SubnetEnsemble:
    model = enlivened(network.double())
    graph = find_groups(model, torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(2)).double())
    share = next(share for share in trunk_shares(graph) if "1" in trunk_layers(graph, share))
    quotas = allocate_quotas(graph, MEMBERS, BudgetConfig(1.5), trunk=share)
    masks = search_masks(None, graph.widths, quotas, SearchConfig("random"))
    card = Card("case", (2, 6, 6), ("a", "b", "c"))
    return SubnetEnsemble(model, graph, masks, card, EnsembleConfig(trunk=share))


def test_activations_in_place_leave_the_trunk_to_the_other_members() -> None:
    layers = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)]
    network = nn.Sequential(*layers, nn.Hardswish(inplace=True), nn.Flatten(), nn.Linear(24, 3))
    ensemble = behind_its_first_layer(network)
    assert isinstance(thinned(ensemble, True), ThinEnsemble)
    assert_trained_alike(ensemble, repeat=())


class Scaled(nn.Module):
    """An activation whose gradient is halved by a hook, for everyone who asks for it."""

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(x)
        if out.requires_grad:
            out.register_hook(lambda gradient: 0.5 * gradient)
        return out


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Scaled(), "gradients are others than those of masked ones"),
        (nn.Dropout(0.5, inplace=True), "changes in place, and by chance"),
    ],
)
def test_what_members_cannot_have_in_common(layer, reason, caplog) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), layer,
        nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    refused(behind_its_first_layer(network), caplog, reason)
