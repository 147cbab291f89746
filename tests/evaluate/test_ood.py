"""The OOD scores and their direction."""

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import CRITERIA, FIGURES
from subnet_search.evaluate.ood import ood_figures, ood_scores
from subnet_search.evaluate.outputs import Outputs

CERTAIN = torch.tensor([[[0.98, 0.01, 0.01]], [[0.96, 0.02, 0.02]]])
CONTRARY = torch.tensor([[[0.98, 0.01, 0.01]], [[0.01, 0.98, 0.01]]])
UNKNOWN = torch.zeros(1, dtype=torch.int64)


def test_every_score_is_higher_where_the_members_contradict_and_little_speaks_for_a_class() -> None:
    inside = ood_scores(Outputs(CERTAIN, UNKNOWN, torch.tensor([-9.0])))
    outside = ood_scores(Outputs(CONTRARY, UNKNOWN, torch.tensor([-4.0])))
    assert tuple(inside) == CRITERIA
    for criterion in CRITERIA:
        assert inside[criterion].item() < outside[criterion].item()


def test_one_member_has_no_mutual_information_and_probabilities_alone_have_no_energy() -> None:
    found = ood_scores(Outputs(CERTAIN[:1], UNKNOWN))
    assert {name for name, scores in found.items() if scores is None} == {"mi", "energy"}


def test_figures_by_hand() -> None:
    found = ood_figures(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.5, 4.0]))
    assert tuple(found) == FIGURES
    assert found["AUROC"] == pytest.approx(5 / 6)
    assert found["AUPR"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert found["FPR95"] == pytest.approx(1 / 3)


def test_equal_scores_tell_nothing() -> None:
    assert ood_figures(torch.ones(30), torch.ones(10)) == {
        "AUROC": pytest.approx(0.5),
        "AUPR": pytest.approx(0.25),
        "FPR95": 1.0,
    }


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match="got 2 in-distribution and 0 OOD samples"):
        ood_figures(torch.ones(2), torch.ones(0))
