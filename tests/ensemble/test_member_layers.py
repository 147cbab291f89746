"""The layers of the members against K separate layers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from masksembles.torch import Masksembles1D, Masksembles2D
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.ensemble import MemberLinear, MemberMask, MemberNorm

MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], dtype=torch.bool)
MEMBERS, CHANNELS = MASK.shape


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lively(norm: _BatchNorm) -> _BatchNorm:
    norm = norm.double()
    for i, tensor in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
        if tensor is not None:
            tensor.data.copy_(rows(norm.num_features, seed=10 + i).abs() + 0.1)
    return norm


NORMS = [
    (nn.BatchNorm1d(CHANNELS), (6, CHANNELS)),
    (nn.BatchNorm1d(CHANNELS), (6, CHANNELS, 4)),
    (nn.BatchNorm2d(CHANNELS), (6, CHANNELS, 4, 3)),
    (nn.BatchNorm2d(CHANNELS), (1, CHANNELS, 4, 3)),
    (nn.BatchNorm3d(CHANNELS), (2, CHANNELS, 2, 3, 2)),
    (nn.BatchNorm2d(CHANNELS, momentum=None), (6, CHANNELS, 4, 3)),
    (nn.BatchNorm2d(CHANNELS, affine=False), (6, CHANNELS, 4, 3)),
    (nn.BatchNorm2d(CHANNELS, track_running_stats=False), (6, CHANNELS, 4, 3)),
    (nn.BatchNorm2d(CHANNELS, affine=False, track_running_stats=False), (6, CHANNELS, 4, 3)),
]


@pytest.mark.parametrize(("norm", "shape"), NORMS, ids=lambda value: str(value).replace(" ", ""))
@pytest.mark.parametrize("training", [True, False])
def test_member_norm_equals_separate_norms(norm: _BatchNorm, shape: tuple[int, ...], training: bool) -> None:
    norm = lively(copy.deepcopy(norm)).train()
    norm(rows(*shape, seed=5))  # so that the number of batches seen is not 0
    norm.train(training)
    together = MemberNorm(norm, MASK)
    apart = [copy.deepcopy(norm) for _ in range(MEMBERS)]
    for step in range(3):
        ours = rows(MEMBERS * shape[0], *shape[1:], seed=step).requires_grad_()
        theirs = ours.detach().clone().requires_grad_()
        out = together(ours)
        kept = [MASK[k].double().view(1, -1, *[1] * (len(shape) - 2)) for k in range(MEMBERS)]
        expected = torch.cat([apart[k](part) * kept[k] for k, part in enumerate(theirs.chunk(MEMBERS))])
        torch.testing.assert_close(out, expected)
        weights = rows(*out.shape, seed=20 + step)
        (out * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
    for name in ("weight", "bias"):
        if norm.affine:
            torch.testing.assert_close(
                getattr(together, name).grad, torch.stack([getattr(one, name).grad for one in apart])
            )
    for name in ("running_mean", "running_var"):
        if norm.track_running_stats:
            torch.testing.assert_close(getattr(together, name), torch.stack([getattr(one, name) for one in apart]))
    assert together.num_batches_tracked == apart[0].num_batches_tracked


def test_member_norm_is_exactly_zero_where_cut_and_gets_no_gradient_there() -> None:
    norm = MemberNorm(lively(nn.BatchNorm2d(CHANNELS)), MASK).train()
    out = norm(rows(MEMBERS * 2, CHANNELS, 3, 3))
    cut = ~MASK[:, None, :].expand(MEMBERS, 2, CHANNELS).flatten(0, 1)
    assert (out[cut] == 0).all()
    assert (out[~cut] != 0).all()
    out.square().sum().backward()
    assert norm.weight.grad is not None
    assert (norm.weight.grad[~MASK] == 0).all()
    assert (norm.weight.grad[MASK] != 0).all()


def test_member_norm_takes_bf16_activations_with_fp32_parameters() -> None:
    norm = MemberNorm(nn.BatchNorm2d(CHANNELS), MASK).eval()
    out = norm(rows(MEMBERS, CHANNELS, 2, 2).bfloat16())
    assert out.dtype == torch.bfloat16


def test_member_norm_keeps_frozen_parameters_frozen() -> None:
    norm = nn.BatchNorm2d(CHANNELS).requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in MemberNorm(norm, MASK).parameters())


def test_member_norm_does_not_change_the_norm_it_came_from() -> None:
    norm = nn.BatchNorm2d(CHANNELS)
    before = copy.deepcopy(norm.state_dict())
    MemberNorm(norm, MASK).train()(torch.randn(MEMBERS * 2, CHANNELS, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "axis", "shape"),
    [
        (nn.Conv2d(3, CHANNELS, 3), 1, (2, 3, 6, 5)),
        (nn.Conv1d(3, CHANNELS, 3), 1, (2, 3, 6)),
        (nn.Conv3d(3, CHANNELS, 2), 1, (2, 3, 3, 4, 3)),
        (nn.Linear(3, CHANNELS), -1, (2, 3)),
        (nn.Linear(3, CHANNELS), -1, (2, 7, 3)),
        (nn.Linear(3, CHANNELS), -1, (2, 4, 7, 3)),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_member_mask_zeroes_the_channels_of_each_member(layer: nn.Module, axis: int, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    x = rows(MEMBERS * shape[0], *shape[1:])
    out = MemberMask(layer, MASK, axis)(x)
    for k, part in enumerate(x.chunk(MEMBERS)):
        expected = layer(part).movedim(axis, -1) * MASK[k]
        torch.testing.assert_close(out.chunk(MEMBERS)[k].movedim(axis, -1), expected)


def test_member_mask_takes_masks_from_a_state() -> None:
    mask = torch.tensor([[True, False, True]] * 2)
    one, other = (MemberMask(nn.Conv2d(2, 3, 1), kept, 1, common=True) for kept in (mask, torch.ones_like(mask)))
    loaded = copy.deepcopy(other)
    loaded.load_state_dict(one.state_dict())
    x = torch.randn(4, 2, 5, 5)
    assert torch.equal(loaded(x), one(x))
    assert other(x)[:, 1].any()


def test_member_mask_equals_the_official_layers() -> None:
    # 16, because the official layers draw masks of their own first, and cannot for fewer than 10 channels
    official2d, official1d = Masksembles2D(16, MEMBERS, 2.0), Masksembles1D(16, MEMBERS, 2.0)
    official2d.masks = official1d.masks = MASK.float()
    images, features = rows(MEMBERS * 2, CHANNELS, 3, 3), rows(MEMBERS * 2, CHANNELS)
    assert torch.equal(MemberMask(nn.Identity(), MASK, 1)(images), official2d(images))
    assert torch.equal(MemberMask(nn.Identity(), MASK, -1)(features), official1d(features))


@pytest.mark.parametrize("bias", [True, False])
def test_member_linear_equals_separate_heads(bias: bool) -> None:
    dense = nn.Linear(4, 3, bias=bias).double()
    together = MemberLinear(dense, MEMBERS)
    x = rows(MEMBERS * 2, 4)
    torch.testing.assert_close(together(x), dense(x))
    with torch.no_grad():
        together.weight.copy_(rows(MEMBERS, 3, 4, seed=1))
        if together.bias is not None:
            together.bias.copy_(rows(MEMBERS, 3, seed=2))
    expected = [
        F.linear(part, together.weight[k], None if together.bias is None else together.bias[k])
        for k, part in enumerate(x.chunk(MEMBERS))
    ]
    torch.testing.assert_close(together(x), torch.cat(expected))


def test_select_keeps_the_named_members_in_order() -> None:
    norm = MemberNorm(lively(nn.BatchNorm2d(CHANNELS)), MASK).eval()
    with torch.no_grad():
        norm.running_mean.copy_(rows(MEMBERS, CHANNELS))
    x = rows(MEMBERS * 2, CHANNELS, 3, 3)
    parts = norm(x).chunk(MEMBERS)
    norm.select([3, 1])
    torch.testing.assert_close(norm(torch.cat([x.chunk(MEMBERS)[3], x.chunk(MEMBERS)[1]])), torch.cat([parts[3], parts[1]]))  # fmt: skip
    assert torch.equal(norm.mask, MASK[[3, 1]])


@pytest.mark.parametrize("training", [False, True])
def test_a_branch_that_a_member_leaves_out_ends_in_zeros(training: bool) -> None:
    mask, kept = torch.ones(3, 4, dtype=torch.bool), torch.tensor([True, False, True])
    mask[2, 1] = False
    x = torch.randn(6, 4, 5, 5)
    for whole, thinned in (
        (MemberNorm(nn.BatchNorm2d(4), mask), MemberNorm(nn.BatchNorm2d(4), mask, kept)),
        (MemberMask(nn.Identity(), mask, 1), MemberMask(nn.Identity(), mask, 1, kept)),
    ):
        expected = whole.train(training)(x).clone()
        expected[2:4] = 0.0
        assert torch.equal(thinned.train(training)(x), expected)
        thinned.select([1, 2])
        assert thinned.kept is not None
        assert thinned.kept.tolist() == [False, True]
        assert torch.equal(thinned.train(training)(x[2:]), expected[2:])
    assert "kept" in thinned.state_dict()
    assert "kept" not in whole.state_dict()  # files of networks without branches stay what they are
