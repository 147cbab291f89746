"""From which score on an image is refused."""

import pytest
import torch

from subnet_search.ensemble.uncertainty import decompose, uncertainty_of
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import known_limits, limits, refused
from subnet_search.evaluate.keys import SCORES, is_key, limit_key
from subnet_search.evaluate.outputs import Outputs

LOGITS = torch.randn(3, 200, 5, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 9.0, 200)[:, None]
ANSWER = uncertainty_of(LOGITS)
OUTPUTS = Outputs(LOGITS.softmax(dim=2), torch.zeros(200, dtype=torch.int64), ANSWER.energy)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("share", "few"), [(0.95, 10), (0.5, 100), (1.0, 0), (0.001, 199)])
def test_just_so_many_of_the_images_that_it_was_found_on_are_beyond_it(score: str, share: float, few: int) -> None:
    limit = limits(OUTPUTS, share)[score]
    assert limit is not None
    beyond = refused(ANSWER, score, limit)
    assert beyond.sum() == few
    doubt = -ANSWER.max_probability if score == "max_probability" else getattr(ANSWER, score)
    if 0 < few < 200:
        assert doubt[beyond].min() >= doubt[~beyond].max()  # those with the most doubt


def test_what_a_network_does_not_have_has_no_limit() -> None:
    single = Outputs(OUTPUTS.member_probabilities[:1], OUTPUTS.labels)
    assert {score for score, limit in limits(single).items() if limit is None} == {"epistemic", "energy"}


@pytest.mark.parametrize("score", SCORES)
def test_what_has_no_score_is_refused(score: str) -> None:
    broken = uncertainty_of(torch.full((2, 1, 3), float("nan")))
    assert refused(broken, score, 1e9).all()
    assert refused(broken, score, -1e9).all()


def test_limits_are_found_among_the_figures() -> None:
    metrics = {"cls/Acc": 0.9, limit_key("total"): 1.5, limit_key("energy"): -3.0, limit_key("epistemic"): None}
    assert all(is_key(key) for key in metrics)
    assert known_limits(metrics) == {"total": 1.5, "energy": -3.0}
    assert known_limits(metrics, ["energy"]) == {"energy": -3.0}
    assert known_limits(metrics, []) == {}
    with pytest.raises(SubnetSearchError, match="no limit of epistemic, expected some of total, energy; evaluate"):
        known_limits(metrics, ["total", "epistemic"])
    with pytest.raises(SubnetSearchError, match="no limit of total, none are known; evaluate"):
        known_limits({}, ["total"])


def test_what_makes_no_sense_is_refused() -> None:
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(SubnetSearchError, match=r"a share of .* of 200 images, expected one in \(0, 1\]"):
            limits(OUTPUTS, share)
    with pytest.raises(SubnetSearchError, match="of 0 images"):
        limits(Outputs(torch.zeros(2, 0, 3), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(SubnetSearchError, match="energy is not known of probabilities alone"):
        refused(decompose(OUTPUTS.member_probabilities), "energy", 1.0)
    with pytest.raises(SubnetSearchError, match="max_probability is NaN or infinite"):
        limits(Outputs(torch.full((2, 3, 4), float("nan")), OUTPUTS.labels[:3]))
    with pytest.raises(SubnetSearchError, match="no score 'aleatoric' to refuse images by, expected one of max_prob"):
        refused(ANSWER, "aleatoric", 1.0)
