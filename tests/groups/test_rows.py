"""Layers whose rows are not those of the samples: members would be masked or normalised by another's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.groups.rows import misplaced_rows
from subnet_search.masks import MaskSet
from subnet_search.packed import member_network

REASON = "rows are not those of the samples, one sample after the other"


def block(norm: bool = True) -> nn.Sequential:
    bn = nn.BatchNorm2d(6) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 6, 3), bn, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Tokens(nn.Module):
    """Linear layers between attention; `first` is whether the batch is the first axis."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.embed, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 10), nn.Linear(10, 8)
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=first), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:  # [batch, 1, 8, 8]: rows of the image are tokens
        x = self.embed(x[:, 0])
        if not self.first:
            x = x.transpose(0, 1)
        x = x + self.attention(x, x, x)[0]
        x = x + self.down(F.gelu(self.up(x)))
        return self.fc(x.mean(1 if self.first else 0))


class Crops(nn.Module):
    """Two crops go through one block: joined along the batch, or one after the other."""

    def __init__(self, joined: bool, norm: bool = True) -> None:
        super().__init__()
        self.joined, self.block, self.fc = joined, block(norm), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        crops = x[..., :4], x[..., 4:]
        both = self.block(torch.cat(crops)).chunk(2) if self.joined else [self.block(crop) for crop in crops]
        return self.fc(torch.cat(tuple(both), 1))


class Frames(nn.Module):
    """Each half of the image is a frame, folded into the batch sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.fc = block(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(x.reshape(len(x) * 2, 1, 4, 8)).view(len(x), 2, -1).mean(1))


class Squeezed(nn.Module):
    """Loses the batch axis of a single sample."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.hidden, self.fc = block(), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.hidden(self.block(x).squeeze())))


def example() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def build(kind: type[nn.Module], *arguments: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*arguments).eval()


def reasons(graph) -> dict[str, str]:
    return {whole.name: whole.reason for whole in graph.left_whole}


def check_members(network: nn.Module) -> None:
    """Each member of an ensemble answers as the pruned network that it stands for."""
    graph, members = find_groups(network, example()), 4
    generator = torch.Generator().manual_seed(1)
    masks = {n: torch.rand(members, w, generator=generator).argsort(1) < w // 2 for n, w in graph.widths.items()}
    assert masks
    card = Card("rows", (1, 8, 8), tuple("abcd"))
    head = "member" if graph.head else "shared"
    ensemble = SubnetEnsemble(network, graph, MaskSet(masks, "random"), card, EnsembleConfig(head=head)).eval()
    with torch.no_grad():
        answers = ensemble(example())
        for k in range(members):
            torch.testing.assert_close(member_network(ensemble, k)(example()), answers[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "arguments"), [(Tokens, (True,)), (Crops, (False,)), (Frames, ()), (Squeezed, ())])
def test_rows_of_the_samples_are_searched_and_members_are_right(kind, arguments):
    check_members(build(kind, *arguments))


def test_layers_with_the_sequence_first_are_left_whole():
    network = build(Tokens, False)
    with pytest.raises(SubnetSearchError, match=f"cannot be masked at 'up' for each member: its {REASON}"):
        find_groups(network, example())
    assert find_groups(build(Tokens, True), example()).widths == {"up": 10}
    graph = find_groups(network, example(), required=False)
    assert not graph.branches  # `down` ends one, and is sequence first as well
    assert [branch.site for branch in find_groups(build(Tokens, True), example()).branches] == ["down"]


def test_a_layer_with_the_sequence_first_leaves_others_searchable():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.hidden, self.fc = build(Tokens, False), nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.hidden(self.tokens(x))))

    network = build(Both)
    graph = find_groups(network, example())
    assert graph.widths["hidden"] == 6
    assert "tokens.up" not in graph.widths
    assert REASON in reasons(graph)["tokens.up"]
    check_members(network)


def test_inputs_joined_along_the_batch_are_refused_at_a_batch_norm():
    network = build(Crops, True)
    with pytest.raises(SubnetSearchError, match=rf"the batch norm 'block.1' of their own: its {REASON}.*once for each"):
        find_groups(network, example())
    graph = find_groups(network, example(), required=False)  # compared by methods that search nothing
    assert (graph.widths, graph.branches, graph.head) == ({}, (), "fc")
    assert REASON in reasons(graph)["block.0"]


def test_inputs_joined_along_the_batch_are_left_whole_without_a_norm():
    graph = find_groups(build(Crops, True, False), example(), required=False)
    assert "cannot be masked at 'block.0'" in reasons(graph)["block.0"]


def test_norms_of_the_rows_at_hand_hide_nothing():
    for joined in (False, True):
        network = build(Crops, joined)
        network.block[1] = nn.BatchNorm2d(6, track_running_stats=False)
        graph = find_groups(network, example(), required=False)
        assert (graph.widths == {"block.0": 6}) == (not joined)


def test_random_answers_tell_nothing_about_rows():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout()).train()
    with torch.random.fork_rng(devices=[]):
        assert misplaced_rows(network, ["1", "2"], torch.randn(4, 1, 8, 8), 1e-4) == frozenset()


def test_every_call_of_a_layer_counts():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).flip(0)).flip(0)

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert misplaced_rows(Twice(), ["layer"], x, 1e-4) == {"layer"}
    assert misplaced_rows(nn.Sequential(nn.Linear(3, 3)), ["0"], x, 1e-4) == frozenset()
