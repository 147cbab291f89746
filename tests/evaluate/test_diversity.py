"""How different members are, by hand."""

import math

import pytest
import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.diversity import disagreement, error_correlation, member_accuracy, pairwise_kl

FIGURES = (member_accuracy, disagreement, error_correlation, pairwise_kl)


def votes(predicted: list[list[int]], classes: int = 3) -> Tensor:
    """Certain members: `[member, sample]` predicted classes → probabilities."""
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def test_member_accuracy_and_disagreement_by_hand() -> None:
    members, labels = votes([[0, 1, 2, 0], [0, 1, 0, 1], [0, 0, 2, 1]]), torch.tensor([0, 1, 2, 0])
    assert member_accuracy(members, labels) == pytest.approx((4 + 2 + 2) / 12)
    assert disagreement(members, labels) == pytest.approx((2 + 2 + 2) / 4 / 3)


def test_error_correlation_by_hand() -> None:
    # errors 1100 and 1000: covariance 1/8, deviations 1/2 and √3/4
    members, labels = votes([[1, 1, 0, 0], [1, 0, 0, 0]]), torch.zeros(4, dtype=torch.int64)
    assert error_correlation(members, labels) == pytest.approx(1 / math.sqrt(3))


def test_error_correlation_is_the_mean_over_the_pairs() -> None:
    # 1100 with 1100 gives 1, with 0011 gives −1, twice
    members = votes([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    assert error_correlation(members, torch.zeros(4, dtype=torch.int64)) == pytest.approx(-1 / 3)


def test_different_wrong_answers_are_still_common_errors() -> None:
    members, labels = votes([[1, 0], [2, 0]]), torch.zeros(2, dtype=torch.int64)
    assert error_correlation(members, labels) == pytest.approx(1.0)
    assert disagreement(members, labels) == 0.5


@pytest.mark.parametrize("constant", [[0, 0, 0, 0], [1, 2, 1, 2]])
def test_a_member_that_is_never_or_always_wrong_has_no_correlation(constant: list[int]) -> None:
    members = votes([[1, 1, 0, 0], [1, 0, 0, 0], constant])
    assert error_correlation(members, torch.zeros(4, dtype=torch.int64)) is None


def test_kl_by_hand() -> None:
    p, q = [0.5, 0.5], [0.9, 0.1]
    forth = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    back = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    members = torch.tensor([[p], [q]], dtype=torch.float64)
    assert pairwise_kl(members, torch.tensor([0])) == pytest.approx((forth + back) / 2)


def test_kl_equals_torch_over_all_pairs() -> None:
    members = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=2)
    pairs = [
        torch.nn.functional.kl_div(members[b].log(), members[a], reduction="batchmean").item()
        for a in range(4)
        for b in range(4)
        if a != b
    ]
    assert pairwise_kl(members, torch.zeros(9, dtype=torch.int64)) == pytest.approx(sum(pairs) / 12)


def test_kl_of_zero_probabilities_is_finite() -> None:
    value = pairwise_kl(votes([[0], [1]]), torch.tensor([0]))
    assert value is not None
    assert math.isfinite(value)


def test_equal_members_do_not_differ() -> None:
    one = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    members, labels = one.expand(3, 50, 4), torch.arange(50) % 4
    assert disagreement(members, labels) == 0.0
    assert pairwise_kl(members, labels) == pytest.approx(0.0, abs=1e-12)
    assert error_correlation(members, labels) == pytest.approx(1.0)


def test_one_member_has_no_diversity() -> None:
    for figure in FIGURES:
        assert figure(votes([[0, 1]]), torch.tensor([0, 0])) is None


def test_the_member_axis_must_be_there() -> None:
    for figure in FIGURES:
        with pytest.raises(SubnetSearchError, match=r"expected \[member, sample, class\]"):
            figure(torch.rand(3, 4), torch.zeros(3, dtype=torch.int64))
