"""Gates: how they are ranked, what passes through them, and what moves them."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from subnet_search.entwined import gated_ensemble as gated_ensemble_module
from subnet_search.entwined.gated_ensemble import AJAR, GatedEnsemble, Gates
from subnet_search.finetune import finetune
from subnet_search.masks import MaskSet
from subnet_search.search.overlap import overlap_penalty


def drawn(members: int, width: int, quotas: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random masks with these quotas, and scores."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(members, width, generator=generator).argsort(dim=1)
    mask = order < torch.tensor(quotas)[:, None]
    return mask, torch.rand(members, width, generator=generator)


def gates_of(start: Tensor, scores: Tensor, **changes: float) -> Gates:
    settings = {"noise": 0.1, "speed": 1.0, "memory": 1.0, "lambda_overlap": 0.0, **changes}
    return Gates(start, scores, **settings)


quota_lists = st.integers(1, 12).flatmap(
    lambda width: st.tuples(st.just(width), st.lists(st.integers(1, width), min_size=1, max_size=4))
)


@given(shape=quota_lists, seed=st.integers(0, 1000), noise=st.sampled_from([0.01, 0.3, 5.0]))
def test_quotas_are_exact_in_every_draw(shape: tuple[int, list[int]], seed: int, noise: float) -> None:
    width, quotas = shape
    start, scores = drawn(len(quotas), width, quotas, seed)
    gates = gates_of(start, scores, noise=noise)
    assert torch.equal(gates.kept(), start)
    gate = gates(torch.rand(len(quotas), width, generator=torch.Generator().manual_seed(seed)))
    closed = gate.detach() < 0.5
    assert torch.allclose(gate.detach(), torch.where(closed, AJAR, 1.0), atol=1e-6)
    assert (~closed).sum(dim=1).tolist() == quotas


def test_gates_start_in_the_order_of_the_scores_on_either_side_of_the_border() -> None:
    start = torch.tensor([[True, False, True, False], [False, False, False, True]])
    scores = torch.tensor([[0.1, 9.0, 0.2, 0.3], [0.5, 0.5, 0.1, 0.0]])
    alpha = gates_of(start, scores).alpha.detach() * 4
    assert alpha.tolist() == [[0.5, -0.5, 1.5, -1.5], [-0.5, -1.5, -2.5, 0.5]]  # of equals the lower is the better


def test_noise_lets_those_near_the_border_come_and_go_and_no_others() -> None:
    start, scores = drawn(3, 40, [20, 20, 20])
    gates = gates_of(start, scores, noise=0.02)
    generator = torch.Generator().manual_seed(1)
    open_share = torch.stack([gates(torch.rand(3, 40, generator=generator)).detach() for _ in range(300)]).mean(dim=0)
    near = gates.alpha.detach().abs() < 0.02
    far = gates.alpha.detach().abs() > 0.25
    assert (open_share[near] > 0.1).all()
    assert (open_share[near] < 0.9).all()
    assert torch.equal(open_share[far].round(), start[far].float())
    assert ((open_share[far] - start[far].float()).abs() < 0.01).all()


def test_the_gradient_goes_straight_through_to_a_sigmoid() -> None:
    """Without noise: d gate / d alpha is that of sigmoid((alpha − border) / noise); the pull is the scaled gradient."""
    start, scores = drawn(2, 6, [3, 2])
    gates, weights = gates_of(start, scores, noise=0.25, speed=2.0), torch.randn(2, 6)
    (gates(torch.full((2, 6), 0.5)) * weights).sum().backward()
    ordered = gates.alpha.detach().sort(dim=1, descending=True).values
    border = torch.stack([(ordered[0, 2] + ordered[0, 3]) / 2, (ordered[1, 1] + ordered[1, 2]) / 2])[:, None]
    soft = torch.sigmoid((gates.alpha.detach() - border) / 0.25)
    expected = weights / weights.abs().mean() * (4 * 0.25 * 2.0) * soft * (1 - soft) / 0.25
    torch.testing.assert_close(gates.alpha.grad, expected)


def test_the_price_of_overlap_is_that_of_the_search() -> None:
    """Against the gradient of Σ φ(overlap), taken by autograd of the naive sum over pairs."""
    start, scores = drawn(4, 10, [5, 5, 3, 7])
    gates = gates_of(start, scores, lambda_overlap=0.7, noise=0.3)
    gates(torch.full((4, 10), 0.5)).sum().mul(0.0).backward()  # the loss itself pulls at nothing
    places = gates.alpha.detach().clone().requires_grad_()
    ordered = gates.alpha.detach().sort(dim=1, descending=True).values
    border = torch.stack([(ordered[k, q - 1] + ordered[k, q]) / 2 for k, q in enumerate([5, 5, 3, 7])])[:, None]
    soft = torch.sigmoid((places - border) / 0.3)
    penalty = sum(((soft[k] * soft[m]).sum() ** 2 / 10 for k, m in combinations(range(4), 2)), torch.zeros(()))
    (0.7 * penalty).backward()
    torch.testing.assert_close(gates.alpha.grad, places.grad * (4 * 0.3 * 1.0))


def step(gates: Gates, uniform: Tensor, weights: Tensor) -> Tensor:
    """One draw, and the gradient of a loss that is linear in it."""
    gates.alpha.grad = None
    (gates(uniform) * weights).sum().backward()
    assert gates.alpha.grad is not None
    return gates.alpha.grad


def test_gates_follow_running_averages() -> None:
    start, scores = drawn(2, 6, [3, 3])
    gates = gates_of(start, scores, memory=0.25)
    ones, halves = torch.ones(2, 6), torch.full((2, 6), 0.5)
    for sign in (1.0, 1.0, -1.0):  # one contrary step does not turn it
        assert (step(gates, halves, ones * sign) > 0).all()
    expected = (1 - 0.75**2) * 0.75 - 0.25
    torch.testing.assert_close(gates.averages[1], start * expected)
    torch.testing.assert_close(gates.averages[0], ~start * expected)


def test_a_gate_is_moved_by_what_it_says_open_and_closed() -> None:
    """Between two gates of a member that change places in every step: the mean of both states, whatever their order."""
    start, scores = torch.tensor([[True, False, True, False]]), torch.tensor([[0.1, 0.2, 9.0, 0.0]])
    gates = gates_of(start, scores, noise=0.05)
    usual, changed = torch.full((1, 4), 0.5), torch.tensor([[0.001, 0.999, 0.5, 0.5]])
    step(gates, usual, torch.tensor([[0.0, -0.5, 0.0, 0.0]]))
    pulled = step(gates, changed, torch.tensor([[-3.0, 1.5, 0.0, 0.0]]))
    assert gates.averages[:, 0, :2].tolist() == [[-3.0, -0.5], [0.0, 1.5]]  # channel 0 says nothing open: it is at rest
    assert pulled[0, 0] < 0 < pulled[0, 1]  # its absence costs more than that of the other, which is better closed
    assert (pulled[0, 2:] == 0).all()


def test_a_gate_that_is_pulled_all_the_time_moves_as_far_as_was_said() -> None:
    """Just above the border, where the sigmoid is steepest."""
    start, scores = drawn(1, 200, [100])
    rate, pace, steps = 0.002, 0.05, 400
    gates = gates_of(start, scores, noise=0.5, speed=rate / (pace * steps))
    pulled = int(torch.where(start, gates.alpha.detach(), torch.inf)[0].argmin())
    weights = torch.ones(1, 200)  # mean magnitude 1
    weights[0, ::2], weights[0, pulled] = -1, 1
    before = gates.alpha.detach()[0, pulled].item()
    optimizer = torch.optim.SGD(gates.parameters(), lr=pace)
    for _ in range(steps):
        optimizer.zero_grad()
        (gates(torch.full((1, 200), 0.5)) * weights).sum().backward()
        optimizer.step()
    assert before - gates.alpha.detach()[0, pulled].item() == pytest.approx(rate, rel=0.05)


def test_alike_members_part_by_the_price_of_their_overlap_alone() -> None:
    start = torch.tensor([[True] * 6 + [False] * 6] * 2)
    scores = torch.rand(2, 12, generator=torch.Generator().manual_seed(3))
    gates = gates_of(start, scores, lambda_overlap=1.0, speed=0.5, noise=0.2)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(gates.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (gates(torch.rand(2, 12, generator=generator)) * 0).sum().backward()
        optimizer.step()
    assert overlap_penalty(gates.kept().numpy()) < 0.2 * overlap_penalty(start.numpy())
    assert gates.kept().sum(dim=1).tolist() == [6, 6]


@pytest.mark.parametrize("ajar", [AJAR, 0.0])
def test_only_gates_that_are_ajar_have_a_gradient_before_a_relu(small, monkeypatch, ajar) -> None:
    monkeypatch.setattr(gated_ensemble_module, "AJAR", ajar)
    gated = gated_ensemble(small, half(small), noise=1e-4).train()
    gated(torch.rand(6, 2, 6, 6)).square().sum().backward()
    for gates in gated.gates:
        assert (gates.averages[0] != 0).any() == (ajar > 0)
        assert (gates.averages[1] != 0).any()


def half(small, members: int = 3) -> MaskSet:
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for name, mask in small.intact(members).masks.masks.items():
        masks[name] = torch.rand(mask.shape, generator=generator).argsort(dim=1) < mask.shape[1] // 2
    return MaskSet(masks, "half")


def gated_ensemble(small, masks: MaskSet, **changes: float) -> GatedEnsemble:
    scores = small.scores(masks.members)
    gates = {name: gates_of(mask, scores[name], **changes) for name, mask in masks.masks.items()}
    return GatedEnsemble(small.intact(masks.members), gates, 4, {"start": masks.digest()})


def test_in_use_gates_are_masks(small) -> None:
    masks = half(small)
    gated, masked = gated_ensemble(small, masks).eval(), small.intact()
    masked.set_masks(masks)
    x = torch.rand(5, 2, 6, 6)
    torch.testing.assert_close(gated(x), masked(x))
    rows = torch.rand(9, 2, 6, 6)
    torch.testing.assert_close(gated(rows, repeat=False), masked(rows, repeat=False))
    assert int(gated.step) == 0
    assert gated.macs() == small.intact().macs()  # nothing is cut yet
    assert {name: mask.tolist() for name, mask in gated.kept().items()} == {
        n: m.tolist() for n, m in masks.masks.items()
    }


def test_in_training_each_step_draws_anew_and_a_state_draws_again(small) -> None:
    masks = half(small)
    one, other = (gated_ensemble(small, masks, noise=1.0).train() for _ in range(2))
    x = torch.rand(6, 2, 6, 6)
    first, second = one(x), one(x)
    assert not torch.allclose(first, second)
    assert torch.equal(other(x), first)
    later = gated_ensemble(small, masks, noise=1.0).train()
    later.load_state_dict(other.state_dict())
    assert torch.equal(later(x), other(x))
    assert int(one.step) == int(later.step) == 2


def test_gates_are_no_weights_that_decay(small) -> None:
    gated = gated_ensemble(small, half(small), speed=0.0)
    before = [gates.alpha.detach().clone() for gates in gated.gates]
    finetune(gated, small.data, small.training)
    assert all(torch.equal(gates.alpha, alpha) for gates, alpha in zip(gated.gates, before, strict=True))
    assert all((gates.averages != 0).any() for gates in gated.gates)
    assert not torch.equal(gated.ensemble.network.conv1.weight, small.network.conv1.weight)


def test_what_the_gates_start_from_is_part_of_the_identity(small) -> None:
    gated = gated_ensemble(small, half(small))
    assert gated.identity()["gates"] == {"start": half(small).digest(), "seed": 4}
    assert gated.identity()["masks"] == small.intact().masks.digest()
