"""How images are shown where the settings leave it open."""

import pytest
import torch

from subnet_search.baselines.system import Setup
from subnet_search.compare import CompareConfig
from subnet_search.entwined.parts import shown_to_all
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune, mode_to_take, order_of_epoch
from subnet_search.settings import RunConfig

OPEN = FinetuneConfig(mode=None)


@pytest.mark.parametrize(
    ("members", "budget", "common", "mode"),
    [
        (4, 1.0, 0.68, "repeat"),  # 1.0 beside 0.68 + 0.08
        (4, 2.0, 0.51, "split"),  # 2.0 beside 0.51 + 0.37
        (4, 1.0, 0.47, "repeat"),  # 1.0 beside 0.6025
        (4, 1.0, 0.4, "split"),  # 1.0 beside 0.55
        (2, 1.0, 0.5, "repeat"),  # 1.0 beside 0.75
        (4, 1.0, 0.0, "split"),
        (4, None, 0.9, "split"),
    ],
)
def test_all_members_see_all_images_where_that_costs_at_most_half_as_much_again(members, budget, common, mode) -> None:
    assert mode_to_take(OPEN, members, budget, common) == mode


def test_what_a_loss_or_bootstraps_need_comes_first() -> None:
    for changes in ({"joint": 0.5}, {"decorrelate": 0.5}, {"learn_probes": 0.5, "probes": "noisy"}):
        assert mode_to_take(FinetuneConfig(mode=None, **changes), 4, 2.0, 0.0) == "repeat"
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


def test_systems_of_a_comparison_have_one_for_all() -> None:
    assert CompareConfig().finetune.mode == "split"
    joint = FinetuneConfig(mode=None, joint=0.5)
    assert CompareConfig(finetune=joint).finetune.mode == "repeat"
    assert Setup(None, None, None, RunConfig(finetune=joint)).run.finetune.mode == "repeat"
    assert Setup(None, None, None, RunConfig()).run.finetune.mode == "split"


def test_searches_that_train_want_one() -> None:
    with pytest.raises(SubnetSearchError, match=r"finetune\.mode is None"):
        shown_to_all(OPEN, 8, 2)
