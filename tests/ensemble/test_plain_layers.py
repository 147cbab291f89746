"""Plain layers against the members' own that they are made from."""

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import MemberLinear, MemberNorm, SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks, plain_linear, plain_norm
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.masks import full_masks

MEMBERS = 3
RANKS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def enlivened(module: nn.Module) -> nn.Module:
    """Values that no initialisation gives, other ones for each member."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rank", RANKS)
def test_a_plain_norm_computes_what_the_members_norm_does(rank, affine, tracked, momentum, training) -> None:
    kind = RANKS[rank]
    dense = kind(4, eps=1e-3, momentum=momentum, affine=affine, track_running_stats=tracked).double()
    norms = enlivened(MemberNorm(dense, torch.ones(MEMBERS, 4, dtype=torch.bool))).train(training)
    x = rows(MEMBERS * 6, 4, *range(2, rank)).double()
    plain = [plain_norm(norms, k, rank).train(training) for k in range(MEMBERS)]
    assert {type(norm) for norm in plain} == {kind}
    for _ in range(2):
        expected = norms(x).chunk(MEMBERS)
        for norm, part, wanted in zip(plain, x.chunk(MEMBERS), expected, strict=True):
            torch.testing.assert_close(norm(part), wanted)
    if tracked:
        for k, norm in enumerate(plain):
            torch.testing.assert_close(norm.running_var, norms.running_var[k])
            assert norm.num_batches_tracked == norms.num_batches_tracked


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_head_computes_what_the_members_head_does(bias) -> None:
    heads = enlivened(MemberLinear(nn.Linear(5, 3, bias).double(), MEMBERS))
    x = rows(MEMBERS * 2, 5).double()
    state = torch.get_rng_state()
    plain = [plain_linear(heads, k) for k in range(MEMBERS)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(torch.cat([head(part) for head, part in zip(plain, x.chunk(MEMBERS), strict=True)]), heads(x))  # fmt: skip
    assert [(head.in_features, head.out_features, head.bias is not None) for head in plain] == [(5, 3, bias)] * MEMBERS


def test_what_is_frozen_stays_frozen_and_no_memory_is_shared() -> None:
    norms = MemberNorm(nn.BatchNorm2d(4), torch.ones(MEMBERS, 4, dtype=torch.bool))
    heads = MemberLinear(nn.Linear(5, 3), MEMBERS)
    norms.weight.requires_grad_(False)
    heads.bias.requires_grad_(False)
    norm, head = plain_norm(norms, 1, 4), plain_linear(heads, 1)
    assert [p.requires_grad for p in (norm.weight, norm.bias, head.weight, head.bias)] == [False, True, True, False]
    with torch.no_grad():
        for tensor in (*norm.state_dict().values(), *head.state_dict().values()):
            tensor.add_(1)
    assert torch.equal(norms.running_mean, torch.zeros(MEMBERS, 4))
    assert torch.equal(norms.weight, torch.ones(MEMBERS, 4))
    assert not torch.equal(heads.weight[1], head.weight)


def test_a_norm_of_an_input_without_a_plain_norm_is_refused() -> None:
    norms = MemberNorm(nn.SyncBatchNorm(4), torch.ones(MEMBERS, 4, dtype=torch.bool))
    with pytest.raises(SubnetSearchError, match="an input of 6 axes, expected 2 to 5"):
        plain_norm(norms, 0, 6)


class Branching(nn.Module):
    """Norms of pictures and of vectors, one without statistics, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pictures = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.hidden, self.vectors = nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False)
        self.unused, self.free, self.head = nn.BatchNorm3d(5), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.pictures(self.conv(x))).mean((2, 3))
        return self.head(torch.relu(self.free(torch.relu(self.vectors(self.hidden(x))))))


def test_ranks_of_every_norm_and_masked_layer() -> None:
    network = Branching().eval()
    graph = find_groups(network, torch.zeros(2, 1, 8, 8))
    ensemble = SubnetEnsemble(network, graph, full_masks(graph.widths, MEMBERS), Card("x", (1, 8, 8), tuple("abc")))
    ensemble.train()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    assert layer_ranks(ensemble) == {"pictures": 4, "vectors": 2, "unused": 4, "free": 2}
    assert all(module.training for module in ensemble.modules())
    assert all(tensor.equal(before[name]) for name, tensor in ensemble.state_dict().items())
