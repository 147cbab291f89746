"""Ensembles that are read from networks with layers of the official package."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masksembles.torch import Masksembles2D
from torch import Tensor, nn

from subnet_search.backbones import load_backbone
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.masksembles import to_masksembles
from subnet_search.formats.masksembles_reader import from_masksembles
from subnet_search.groups import find_groups
from tests.formats.small_resnet import CARD, CONFIGS, MEMBERS, draw, enliven, masks_of, official, rows


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


def test_masks_between_0_and_1_are_refused(small) -> None:
    built = official(small, {"hidden": draw(MEMBERS, 7)})
    built.hidden.masks.mul_(0.5)
    with pytest.raises(SubnetSearchError, match=r"'hidden' has masks \(3, 7\) between 0 and 0.5, expected 0 and 1"):
        from_masksembles(built, CARD)


def test_norms_of_their_own_cannot_become_shared(make) -> None:
    network = to_masksembles(make())
    with pytest.raises(SubnetSearchError, match="got norm=shared; expected norm=member"):
        from_masksembles(network, CARD, config=EnsembleConfig(norm="shared"))
