"""Accuracy, likelihood and Brier score by hand."""

import math

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.classification import accuracy, brier, negative_log_likelihood

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.25, 0.5, 0.25]])
Y = torch.tensor([0, 1, 0, 2])


def test_accuracy_by_hand() -> None:
    assert accuracy(P, Y) == 0.5


def test_likelihood_by_hand() -> None:
    assert negative_log_likelihood(P, Y) == pytest.approx(-math.log(0.7 * 0.6 * 0.2 * 0.25) / 4)


def test_brier_is_summed_over_the_classes() -> None:
    by_hand = [0.09 + 0.04 + 0.01, 0.01 + 0.16 + 0.09, 0.64 + 0.09 + 0.25, 0.0625 + 0.25 + 0.5625]
    assert brier(P, Y) == pytest.approx(sum(by_hand) / 4)
    assert brier(torch.tensor([[1.0, 0.0]]), torch.tensor([1])) == 2.0


def test_a_probability_of_zero_costs_much_but_not_infinity() -> None:
    loss = negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert loss == pytest.approx(87.34, abs=0.01)


def test_a_perfect_prediction() -> None:
    perfect = torch.eye(3)
    labels = torch.arange(3)
    assert (accuracy(perfect, labels), negative_log_likelihood(perfect, labels), brier(perfect, labels)) == (
        1.0,
        0.0,
        0.0,
    )


def test_unlabelled_samples_are_refused_with_their_number() -> None:
    with pytest.raises(SubnetSearchError, match=r"2 of 4 labels are outside 0\.\.2 \(got \[-1\]"):
        accuracy(P, torch.tensor([0, -1, -1, 2]))


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"1 of 4 labels are outside 0\.\.2 \(got \[3\]"):
        brier(P, torch.tensor([0, 1, 3, 2]))


def test_no_samples_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match="there are no samples"):
        negative_log_likelihood(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"expected \[sample, class\] and \[sample\]"):
        accuracy(P, Y[:3])
