"""Settings of a study: their JSON form, what processes must share, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.search import BudgetConfig
from subnet_search.settings import DataConfig, from_dict
from subnet_search.tune import SpaceConfig, TuneConfig


def test_settings_come_back_from_json() -> None:
    config = TuneConfig(objectives=("nll", "macs"), rungs=(0, 0.5, 1), space=SpaceConfig(epochs=(1, 4)), max_macs=2.0)
    assert from_dict(TuneConfig, json.loads(json.dumps(config.record())), "test") == config


def test_a_password_is_not_kept() -> None:
    config = TuneConfig(storage="postgresql+psycopg://me:secret@host/base")
    assert "secret" not in json.dumps(config.record())


def test_processes_share_what_decides_a_trial() -> None:
    one = TuneConfig()
    for same in (
        replace(one, out=Path("elsewhere"), trials=7, workers=3, heartbeat=5, study_name="s", storage="sqlite://"),
        replace(one, images=DataConfig(data="npz:there.npz", ood=())),
    ):
        assert same.decisive() == one.decisive()
    for other in (
        replace(one, seed=1),
        replace(one, members=3),
        replace(one, finetune=FinetuneConfig(epochs=2)),
        replace(one, objectives=("nll", "macs")),
        replace(one, eta=3),
    ):
        assert other.decisive() != one.decisive()


def test_a_study_has_the_name_of_its_folder() -> None:
    assert TuneConfig(out=Path("runs/mine")).name == "mine"
    assert TuneConfig(out=Path("runs/mine"), study_name="yours").name == "yours"


def test_a_run_has_the_settings_of_the_job() -> None:
    run = TuneConfig(members=3, seed=5, finetune=FinetuneConfig(epochs=2)).run()
    assert (run.members, run.seed, run.finetune.epochs) == (3, 5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials is 0, expected at least 1"),
        ({"workers": 0}, "workers is 0"),
        ({"eta": 1}, "eta is 1, expected at least 2"),
        ({"heartbeat": 0}, "heartbeat is 0"),
        ({"sampler": "grid"}, "sampler is 'grid', expected one of tpe"),
        ({"objectives": ("nll",), "pruner": "patience"}, "pruner is 'patience', expected one of hyperband"),
        ({"pruner": "hyperband"}, "judges by one objective, got 3"),
        ({"rungs": (0.0, 0.5)}, "expected growing shares of the epochs"),
        ({"rungs": (0.5, 0.2, 1.0)}, "expected growing shares"),
        ({"rungs": ()}, "expected growing shares"),
        ({"max_macs": 0.0}, "max_macs is 0.0, expected a positive number"),
        ({"objectives": ("nll", "beauty")}, "expected different ones of nll"),
        ({"budget": BudgetConfig(keep=0.5)}, "give --budget instead of --keep"),
        ({"members": 1}, "members is 1, expected at least 2"),
    ],
)
def test_settings_that_cannot_be_met(changes, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        TuneConfig(**changes)


def test_a_kept_share_is_allowed_where_the_budget_is_not_searched() -> None:
    assert TuneConfig(budget=BudgetConfig(keep=0.5), space=SpaceConfig(names=("members",))).budget.keep == 0.5
