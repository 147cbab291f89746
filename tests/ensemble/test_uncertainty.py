"""The decomposition of predictive entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.ensemble.uncertainty import decompose, entropy, uncertainty_of
from subnet_search.errors import SubnetSearchError


def test_two_certain_members_that_contradict_are_all_epistemic() -> None:
    parts = decompose(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert parts.total.item() == pytest.approx(math.log(2))
    assert parts.aleatoric.item() == 0.0
    assert parts.epistemic.item() == pytest.approx(math.log(2))
    assert parts.max_probability.item() == 0.5
    assert parts.variation_ratio.item() == 0.5


def test_members_that_all_doubt_are_all_aleatoric() -> None:
    parts = decompose(torch.full((3, 2, 4), 0.25))
    assert parts.aleatoric.tolist() == pytest.approx([math.log(4)] * 2)
    assert parts.epistemic.tolist() == [0.0, 0.0]
    assert parts.variation_ratio.tolist() == [0.0, 0.0]


def test_parts_by_hand() -> None:
    parts = decompose(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]], [[0.1, 0.9]]], dtype=torch.float64))
    expected = (-2 * (0.9 * math.log(0.9) + 0.1 * math.log(0.1)) + math.log(2)) / 3
    assert parts.probabilities.tolist() == [pytest.approx([0.5, 0.5])]
    assert parts.total.item() == pytest.approx(math.log(2))
    assert parts.aleatoric.item() == pytest.approx(expected)
    assert parts.epistemic.item() == pytest.approx(math.log(2) - expected)
    assert parts.variation_ratio.item() == pytest.approx(1 / 3)


def test_zero_probabilities_have_no_entropy_and_no_sign() -> None:
    value = entropy(torch.tensor([[1.0, 0.0, 0.0]]))
    assert value.tolist() == [0.0]
    assert math.copysign(1.0, value.item()) == 1.0


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    members=st.integers(1, 6),
    classes=st.integers(1, 12),
    spread=st.sampled_from([0.0, 0.1, 1.0, 10.0, 100.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_parts_add_up_and_stay_in_range(
    seed: int, members: int, classes: int, spread: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(members, 5, classes, generator=generator, dtype=dtype)
    parts = decompose(logits.softmax(dim=2))
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic, rtol=0, atol=1e-12)
    assert parts.total.dtype == torch.float64
    assert bool((parts.epistemic >= 0).all())
    assert bool((parts.epistemic <= math.log(members) + 1e-6).all())
    assert bool((parts.total >= 0).all())
    assert bool((parts.total <= math.log(classes) + 1e-6).all())
    assert bool(((parts.variation_ratio >= 0) & (parts.variation_ratio < 1)).all())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), members=st.integers(1, 9))
def test_equal_members_have_no_epistemic_uncertainty_at_all(seed: int, members: int) -> None:
    one = (5 * torch.randn(20, 7, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)
    assert decompose(one.expand(members, 20, 7)).epistemic.tolist() == [0.0] * 20


def test_the_order_of_members_and_classes_is_irrelevant() -> None:
    probabilities = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    parts = decompose(probabilities)
    turned = decompose(probabilities.flip(0).flip(2))
    torch.testing.assert_close(parts.epistemic, turned.epistemic)
    torch.testing.assert_close(parts.total, turned.total)
    torch.testing.assert_close(parts.variation_ratio, turned.variation_ratio)


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4), (2, 3, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SubnetSearchError, match=r"expected floating point \[member, batch, class\]"):
        decompose(torch.zeros(shape))


def test_the_members_own_probabilities_come_with_the_mean() -> None:
    members = torch.softmax(torch.randn(3, 5, 4), dim=-1)
    answer = decompose(members)
    torch.testing.assert_close(answer.member_probabilities, members.double())
    torch.testing.assert_close(answer.member_probabilities.mean(dim=0), answer.probabilities)


def test_the_energy_is_the_mean_of_the_members_and_knows_how_large_the_logits_are() -> None:
    logits = torch.tensor([[[0.0, 0.0], [10.0, 0.0]], [[2.0, 2.0], [0.0, 10.0]]])
    answer = uncertainty_of(logits)
    assert answer.energy is not None
    assert answer.energy.tolist() == pytest.approx([-math.log(2) - 1.0, -10.0 - math.log1p(math.exp(-10.0))])
    louder = uncertainty_of(logits + 3.0)
    torch.testing.assert_close(louder.probabilities, answer.probabilities)
    torch.testing.assert_close(louder.energy, answer.energy - 3.0)
    assert decompose(logits.softmax(dim=2)).energy is None


def test_a_single_network_is_one_member() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    one, same = uncertainty_of(logits), uncertainty_of(logits[None])
    assert torch.equal(one.member_probabilities, same.member_probabilities)
    assert torch.equal(one.energy, same.energy)
