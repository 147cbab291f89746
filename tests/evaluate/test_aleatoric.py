"""The rank correlation with human doubt."""

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.aleatoric import human_agreement

COUNTS = torch.tensor([[10, 0, 0], [8, 2, 0], [5, 5, 0], [4, 3, 3]])  # in order of growing entropy


def test_the_same_ranking_is_one_and_the_reverse_minus_one() -> None:
    doubt = torch.tensor([0.1, 0.2, 0.5, 0.9])
    assert human_agreement(doubt, COUNTS) == pytest.approx(1.0)
    assert human_agreement(-doubt, COUNTS) == pytest.approx(-1.0)


def test_one_swap_by_hand() -> None:
    # 1 − 6 Σ d² / (n (n² − 1)) = 1 − 6 · 2 / 60
    assert human_agreement(torch.tensor([0.2, 0.1, 0.5, 0.9]), COUNTS) == pytest.approx(0.8)


def test_the_number_of_people_is_irrelevant() -> None:
    doubt = torch.tensor([0.3, 0.1, 0.2, 0.9])
    assert human_agreement(doubt, COUNTS) == human_agreement(doubt, COUNTS / 10)


def test_a_constant_has_no_rank_correlation() -> None:
    assert human_agreement(torch.ones(4), COUNTS) is None
    assert human_agreement(torch.rand(4), torch.ones(4, 3)) is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"expected \[3, class\]: one row for each test sample"):
        human_agreement(torch.rand(3), COUNTS)


def test_samples_that_nobody_labelled_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match="1 of 4 rows have no label or a negative one"):
        human_agreement(torch.rand(4), torch.tensor([[1, 1], [0, 0], [1, 0], [2, 1]]))
