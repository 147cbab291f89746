"""How images are shown where the settings leave it open."""

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune, mode_to_take, order_of_epoch

OPEN = FinetuneConfig(mode=None)


@pytest.mark.parametrize(
    ("members", "budget", "common", "mode"),
    [
        (4, 1.0, 0.68, "repeat"),  # 1.0 beside 0.68 + 0.08
        (4, 2.0, 0.51, "split"),  # 2.0 beside 0.51 + 0.37
        (4, 1.0, 0.5, "split"),  # 1.0 beside 0.625
        (2, 1.0, 0.5, "repeat"),  # 1.0 beside 0.75
        (4, 1.0, 0.0, "split"),
        (4, None, 0.9, "split"),
    ],
)
def test_all_members_see_all_images_where_that_costs_at_most_half_as_much_again(members, budget, common, mode) -> None:
    assert mode_to_take(OPEN, members, budget, common) == mode


def test_what_a_loss_or_bootstraps_need_comes_first() -> None:
    for name in ("joint", "decorrelate"):
        assert mode_to_take(FinetuneConfig(mode=None, **{name: 0.5}), 4, 2.0, 0.0) == "repeat"
    assert mode_to_take(FinetuneConfig(mode=None, bagging=True), 4, 1.0, 0.68) == "split"


def test_a_mode_that_was_chosen_stays() -> None:
    assert mode_to_take(FinetuneConfig(mode="split"), 4, 1.0, 0.68) == "split"
    assert mode_to_take(FinetuneConfig(mode="independent"), 4, 1.0, 0.68) == "independent"


def test_training_wants_one(small) -> None:
    message = "finetune.mode is None, expected one of split, repeat, independent: only a run can choose it"
    with pytest.raises(SubnetSearchError, match=message):
        order_of_epoch(OPEN, 8, 2, 0)
    before = {name: value.clone() for name, value in small.network.state_dict().items()}
    with pytest.raises(SubnetSearchError, match=message):
        finetune(small.ensemble(), small.data, OPEN)
    assert all(torch.equal(value, before[name]) for name, value in small.network.state_dict().items())
