"""Networks with layers of the official package, against the ensembles that they are made from and read into."""

import copy
import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masksembles.torch import Masksembles1D, Masksembles2D
from torch import Tensor, nn

from subnet_search.backbones import Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import official_layer, to_masksembles
from subnet_search.formats.masksembles_reader import from_masksembles
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet

MEMBERS = 3
CARD = Card("small", (3, 8, 8), ("a", "b", "c", "d"))
CONFIGS = [EnsembleConfig(norm, head) for norm in ("member", "shared") for head in ("shared", "member")]


class Block(nn.Module):
    """A residual block whose official layers, where there are any, stand before or after the activation."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.before, self.after, self.end, self.joined = (nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        out = self.after(F.relu(self.before(self.bn1(self.conv1(x)))))
        return self.joined(F.relu(x + self.end(self.bn2(self.conv2(out)))))


class SmallResNet(nn.Module):
    """A residual stream, inner channels, a convolution without a norm, a flatten and a hidden linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.stem = nn.Identity()
        self.block1, self.block2 = Block(6, 8), Block(6, 5)
        self.conv2 = nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.spread = nn.Identity()
        self.fc = nn.Linear(4 * 4, 7)
        self.hidden = nn.Identity()
        self.head = nn.Linear(7, 4)
        self.logits = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.block2(self.block1(F.relu(self.stem(self.bn1(self.conv1(x))))))
        out = self.spread(F.max_pool2d(F.relu(self.conv2(out)), 2).flatten(1))
        logits: Tensor = self.logits(self.head(F.relu(self.hidden(self.fc(out)))))
        return logits


def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives weights and statistics that no initialisation gives, and each member its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("masks"):
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else 0.4 * noise - 0.2)
    return network


def draw(members: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(members, width, generator=generator) < 0.5
    mask[torch.arange(members), torch.randint(width, (members,), generator=generator)] = True
    return mask


def masks_of(graph: GroupGraph, members: int = MEMBERS, seed: int = 0, depth: bool = False) -> MaskSet:
    drawn = {name: draw(members, width, seed + i) for i, (name, width) in enumerate(graph.widths.items())}
    left_out = {branch.site: torch.arange(members) != i for i, branch in enumerate(graph.branches)} if depth else {}
    return MaskSet(drawn, "random", seed, depth=left_out)


def rows(members: int, batch: int, shape: tuple[int, ...] = CARD.input_shape) -> Tensor:
    return torch.randn(members * batch, *shape, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, GroupGraph]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = enliven(SmallResNet()).eval()
    return network, find_groups(network, torch.zeros(1, *CARD.input_shape))


@pytest.fixture(scope="module")
def make(small) -> Callable[..., SubnetEnsemble]:
    """Ensembles of the small network or of the digits backbone, their members as different as their settings allow."""
    backbone = load_backbone("digits")
    digits = backbone.model, find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape)), backbone.card

    def build(
        kind: str = "small", config: EnsembleConfig | None = None, seed: int = 0, **more: object
    ) -> SubnetEnsemble:
        network, graph, card = digits if kind == "digits" else (*small, CARD)
        ensemble = SubnetEnsemble(network, graph, masks_of(graph, seed=seed, **more), card, config)
        return enliven(ensemble, seed + 1) if kind == "small" else ensemble

    return build


def test_the_official_layers_do_not_save_their_masks() -> None:
    state = np.random.get_state()  # noqa: NPY002 - the official package draws from the global state
    try:
        assert "masks" not in Masksembles2D(16, 4, 2.0).state_dict()
    finally:
        np.random.set_state(state)  # noqa: NPY002


@pytest.mark.parametrize("kind", ["digits", "small"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("depth", [False, True])
@torch.no_grad()
def test_the_network_computes_what_the_ensemble_does(make, kind, config, depth) -> None:
    ensemble = make(kind, config, depth=depth)
    network = to_masksembles(ensemble)
    assert type(network) is type(ensemble.network)
    assert not network.training
    assert not any(isinstance(module, MemberNorm) for module in network.modules())
    sites = {site.module for group in ensemble.graph.groups for site in group.sites}
    sites |= {branch.site for branch in ensemble.graph.branches}
    official = {n for n, module in network.named_modules() if isinstance(module, Masksembles1D | Masksembles2D)}
    assert official == {f"{site}.masksembles" for site in sites}
    for batch in (1, 5):
        x = rows(1, batch, ensemble.card.input_shape)
        logits = network(x.repeat(MEMBERS, 1, 1, 1))
        if config.head == "shared":
            assert torch.equal(logits, ensemble(x).flatten(0, 1))
        else:  # the ensemble's heads are a batched product, which may round otherwise
            torch.testing.assert_close(logits, ensemble(x).flatten(0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_trains_as_the_ensemble_does(make, config) -> None:
    ensemble = make(config=config).train()
    network = to_masksembles(ensemble)
    assert all(module.training for module in network.modules())
    x = rows(MEMBERS, 4)
    logits, expected = network(x), ensemble(x, repeat=False).flatten(0, 1)
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(network.conv1.weight.grad, ensemble.network.conv1.weight.grad)
    torch.testing.assert_close(network.eval()(x), ensemble.eval()(x, repeat=False).flatten(0, 1))


@torch.no_grad()
def test_masks_are_saved_and_loaded_with_the_state(make) -> None:
    first, second = make(seed=0, depth=True), make(seed=3)
    saved, fresh = to_masksembles(first), to_masksembles(second)
    x = rows(MEMBERS, 2)
    assert not torch.equal(fresh(x), saved(x))
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh(x), saved(x))
    for name, module in fresh.named_modules():
        if isinstance(module, Masksembles1D | Masksembles2D):
            assert torch.equal(module.masks, saved.get_submodule(name).masks)


@torch.no_grad()
def test_the_network_can_be_pickled(make) -> None:
    network = to_masksembles(make())
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    x = rows(MEMBERS, 2)
    assert torch.equal(torch.load(file, weights_only=False)(x), network(x))


def test_it_shares_no_memory_with_the_ensemble_and_draws_nothing(make) -> None:
    ensemble = make()
    ours, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    network = to_masksembles(ensemble)
    assert torch.equal(torch.random.get_rng_state(), ours)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    theirs = {tensor.data_ptr() for tensor in ensemble.state_dict().values()}
    assert not any(tensor.data_ptr() in theirs for tensor in network.state_dict().values())


def test_the_missing_package_is_named(make, small, monkeypatch) -> None:
    ensemble = make()
    monkeypatch.setitem(sys.modules, "masksembles.torch", None)
    for run in (lambda: to_masksembles(ensemble), lambda: from_masksembles(small[0], CARD)):
        with pytest.raises(SubnetSearchError, match=r"pip install 'subnet-search\[masksembles\]'"):
            run()


def test_sites_that_the_official_layers_cannot_mask_are_refused() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU(), nn.Flatten(), nn.Linear(30, 3)).eval()
    graph = find_groups(network, torch.zeros(1, 2, 8))
    ensemble = SubnetEnsemble(network, graph, masks_of(graph), Card("1d", (2, 8), ("a", "b", "c")))
    with pytest.raises(SubnetSearchError, match="'1' gives 3 axes"):
        to_masksembles(ensemble)


@pytest.mark.parametrize("kind", ["digits", "small"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@torch.no_grad()
def test_there_and_back_again_is_the_same_ensemble(make, kind, config) -> None:
    ensemble = make(kind, config)
    found = from_masksembles(to_masksembles(ensemble), ensemble.card)
    assert found.masks.digest() == ensemble.masks.digest()
    assert found.config == config
    x = rows(1, 5, ensemble.card.input_shape)
    assert torch.equal(found(x), ensemble(x))
    theirs = ensemble.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.state_dict().items())


@torch.no_grad()
def test_branches_come_back_as_branches(make) -> None:
    ensemble = make(depth=True)
    found = from_masksembles(to_masksembles(ensemble), ensemble.card)
    assert found.masks.digest() == ensemble.masks.digest()
    assert found.macs() == ensemble.macs()
    assert torch.equal(found(rows(1, 2)), ensemble(rows(1, 2)))


def official(small: tuple[nn.Module, GroupGraph], masks: dict[str, Tensor]) -> nn.Module:
    """The small network as a user of the official package would have built it: masks by the name of a module."""
    network = copy.deepcopy(small[0])
    for name, mask in masks.items():
        axes = 2 if name in ("spread", "hidden", "logits") else 4
        network.set_submodule(name, official_layer(mask, axes).eval())
    return network


STREAM = ("stem", "block1.end", "block2.end")


@pytest.mark.parametrize(
    "places",
    [
        {"block1.before": "block1.conv1"},
        {"block1.after": "block1.conv1"},
        {"block1.before": "block1.conv1", "block1.after": "block1.conv1", "block2.after": "block2.conv1"},
        dict.fromkeys(STREAM, "conv1"),
        {"hidden": "fc"},
        {"spread": "conv2"},
        {"block2.before": "block2.conv1", "hidden": "fc", "spread": "conv2", **dict.fromkeys(STREAM, "conv1")},
    ],
    ids=lambda places: "+".join(places),
)  # fmt: skip
@torch.no_grad()
def test_a_users_network_is_read(small, places) -> None:
    widths = small[1].widths
    drawn = {group: draw(MEMBERS, widths[group], seed=i) for i, group in enumerate(dict.fromkeys(places.values()))}
    # a flatten turns each channel of conv2 into four features
    given = {p: drawn[g].repeat_interleave(4, dim=1) if p == "spread" else drawn[g] for p, g in places.items()}
    built = official(small, given).train()
    before = copy.deepcopy(built.state_dict())
    found = from_masksembles(built, CARD)
    assert built.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())
    assert found.config == EnsembleConfig(norm="shared")
    assert (found.masks.algorithm, found.members) == ("official", MEMBERS)
    for name, width in widths.items():
        assert torch.equal(found.masks.masks[name], drawn.get(name, torch.ones(MEMBERS, width, dtype=torch.bool)))
    x = rows(1, 5)
    logits = found.eval()(x).flatten(0, 1)
    torch.testing.assert_close(built.eval()(x.repeat(MEMBERS, 1, 1, 1)), logits, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_masks_that_the_official_package_drew_are_read() -> None:
    backbone = load_backbone("digits")
    network = copy.deepcopy(backbone.model)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        layer = Masksembles2D(16, 4, 2.0)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    network.layer1[0].bn1 = nn.Sequential(network.layer1[0].bn1, layer)
    found = from_masksembles(network, backbone.card)
    assert torch.equal(found.masks.masks["layer1.0.conv1"], layer.masks.bool())
    x = rows(1, 5, backbone.card.input_shape)
    torch.testing.assert_close(network(x.repeat(4, 1, 1, 1)), found(x).flatten(0, 1))


def test_members_may_get_norms_of_their_own(small) -> None:
    built = official(small, {"block1.before": draw(MEMBERS, 8)})
    found = from_masksembles(built, CARD, config=EnsembleConfig(norm="member"))
    assert isinstance(found.network.bn1, MemberNorm)
    torch.testing.assert_close(found(rows(1, 2)).flatten(0, 1), built(rows(1, 2).repeat(MEMBERS, 1, 1, 1)))


@torch.no_grad()
def test_rows_of_zeros_behind_a_branch_leave_it_out(small) -> None:
    mask = torch.ones(MEMBERS, 6)
    mask[1] = 0
    built = official(small, {"block1.end": mask})
    found = from_masksembles(built, CARD)
    assert found.masks.left_out(1) == ("block1.bn2",)
    assert all(kept.all() for kept in found.masks.masks.values())
    torch.testing.assert_close(found(rows(1, 2)).flatten(0, 1), built(rows(1, 2).repeat(MEMBERS, 1, 1, 1)))


class PreActivated(nn.Module):
    """The branch ends in a convolution, behind which the channels of the stream are not masked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 3, padding=1),
        )
        self.bn2, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x + self.conv2(F.relu(self.bn1(x)))
        logits: Tensor = self.head(F.relu(self.bn2(x)).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("depth", [False, True])
@torch.no_grad()
def test_branches_that_end_outside_the_groups_sites_tell_nothing_of_their_channels(depth) -> None:
    network = enliven(PreActivated()).eval()
    graph = find_groups(network, torch.zeros(1, *CARD.input_shape))
    assert [branch.site for branch in graph.branches] == ["conv2"]
    ensemble = SubnetEnsemble(network, graph, masks_of(graph, depth=depth), CARD)
    found = from_masksembles(to_masksembles(ensemble), CARD)
    assert found.masks.digest() == ensemble.masks.digest()
    assert torch.equal(found(rows(1, 2)), ensemble(rows(1, 2)))


@torch.no_grad()
def test_channels_of_a_branch_that_is_left_out_count_as_kept_where_nothing_else_writes_them() -> None:
    backbone = load_backbone("resnet20", "random", width=4)
    graph = find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape))
    masks = masks_of(graph, depth=True)
    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card)
    found = from_masksembles(to_masksembles(ensemble), backbone.card)
    x = rows(1, 2, backbone.card.input_shape)
    assert torch.equal(found(x), ensemble(x))
    assert dict(found.masks.depth).keys() == dict(masks.depth).keys()
    for name, mask in masks.masks.items():
        assert (found.masks.masks[name] >= mask).all()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "has no Masksembles1D or Masksembles2D among its modules"),
        (
            {"stem": draw(MEMBERS, 6, 0), "block1.end": draw(MEMBERS, 6, 1), "block2.end": draw(MEMBERS, 6, 0)},
            r"'stem', 'block1\.end' mask the same channels \(group 'conv1', written at 'bn1', 'block1\.bn2', 'block2\.bn2'\) differently",
        ),
        ({"stem": draw(MEMBERS, 6)}, r"'stem' do not take the channels of group 'conv1' out .* 'bn1', 'block1\.bn2', 'block2\.bn2'"),
        ({"stem": draw(MEMBERS, 6), "block1.end": torch.ones(MEMBERS, 6)}, r"'stem', 'block1\.end' do not take the channels of group 'conv1' out"),
        ({"hidden": draw(2, 7), "stem": draw(3, 6)}, r"different numbers of members: \{'stem': 3, 'hidden': 2\}"),
        ({"spread": draw(MEMBERS, 16)}, r"'spread' mask the same channels \(group 'conv2'"),
        ({"logits": draw(MEMBERS, 4)}, r"'logits' masks channel \d, which no group has: it is an input or a logit"),
        ({"hidden": torch.eye(MEMBERS, 7) * 0 + torch.tensor([[1.0], [0], [1]])}, r"'hidden' leaves members \[1\] no channel"),
    ],
)  # fmt: skip
def test_what_no_ensemble_computes_is_refused(small, masks, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        from_masksembles(official(small, masks), CARD)


def perceptron(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *between, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


MLP = Card("perceptron", (6,), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda mask: (nn.Sigmoid(), mask), r"'2' masks channel \d, which no group has: .*reads a cut channel as something else than zero"),
        (lambda mask: (mask, nn.Sigmoid()), r"'1' masks channel \d, which no group has: .*reads a cut channel as something else than zero"),
        (lambda mask: (mask, nn.LayerNorm(8)), r"'1' masks channel \d, which no group has: LayerNorm '2' works on several channels at once"),
        (lambda mask: (mask, nn.BatchNorm1d(8)), r"'1' do not take the channels of group '0' out of the network: it is written at '2'"),
    ],
)  # fmt: skip
def test_masks_that_do_not_stay_zero_are_refused(between, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        from_masksembles(perceptron(*between(official_layer(draw(MEMBERS, 8), 2))), MLP)


@pytest.mark.parametrize(
    "between",
    [
        lambda mask: (nn.Tanh(), mask),
        lambda mask: (mask, nn.GELU()),
        lambda mask: (nn.BatchNorm1d(8), mask, nn.ReLU(inplace=True)),
        lambda mask: (nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(), mask),
    ],
)
def test_masks_anywhere_before_or_after_what_keeps_zero_are_read(between) -> None:
    mask = draw(MEMBERS, 8)
    found = from_masksembles(perceptron(*between(official_layer(mask, 2))), MLP)
    assert torch.equal(found.masks.masks["0"], mask)


def test_masks_between_0_and_1_are_refused(small) -> None:
    built = official(small, {"hidden": draw(MEMBERS, 7)})
    built.hidden.masks.mul_(0.5)
    with pytest.raises(SubnetSearchError, match=r"'hidden' has masks \(3, 7\) between 0 and 0.5, expected 0 and 1"):
        from_masksembles(built, CARD)


def test_fresh_norms_do_not_hide_a_difference() -> None:
    # γ = 0 at the end of the branch, as many initialise it: the network gives the same logits with any mask there
    torch.manual_seed(0)
    network = SmallResNet().eval()
    nn.init.zeros_(network.block1.bn2.weight)
    network.block1.end = official_layer(draw(MEMBERS, 6), 4)
    with pytest.raises(SubnetSearchError, match=r"'block1\.end' do not take the channels of group 'conv1' out"):
        from_masksembles(network, CARD)


def test_layers_that_are_never_called_are_refused(small) -> None:
    network = copy.deepcopy(small[0])
    network.spare = official_layer(draw(MEMBERS, 6), 4)
    with pytest.raises(SubnetSearchError, match="'spare' is not used between input and logits"):
        from_masksembles(network, CARD)


def test_norms_of_their_own_cannot_become_shared(make) -> None:
    network = to_masksembles(make())
    with pytest.raises(SubnetSearchError, match="got norm=shared; expected norm=member"):
        from_masksembles(network, CARD, config=EnsembleConfig(norm="shared"))
