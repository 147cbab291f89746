"""Result rows: complete, checked, one line each."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import FIXED_KEYS, is_key, ood_key, shift_key
from subnet_search.evaluate.row import ROW_KEYS, check_row, result_row, row_line
from subnet_search.provenance import current_commit, device_name, library_versions

METRICS = {key: None if key.startswith("ens/") else 0.5 for key in FIXED_KEYS}


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    folder: Path = Path("here")


def row(**changes):
    arguments = {
        "method": "dense",
        "backbone": "resnet20",
        "data": "digits",
        "seed": 0,
        "members": 1,
        "budget": None,
        "epochs": 0,
        "samples_seen": 0,
        "settings": {"finetune": Settings(), "members": 4},
        "metrics": METRICS,
        "device": "cpu",
        "seconds": 1.5,
    }
    return result_row(**(arguments | changes))


def test_a_row_has_the_documented_keys_and_survives_json() -> None:
    made = row()
    documented = (
        "method backbone data seed members budget epochs samples_seen settings metrics versions commit device seconds"
    )
    assert list(made) == documented.split() == list(ROW_KEYS)
    line = row_line(made)
    assert "\n" not in line
    assert json.loads(line) == made
    assert made["settings"] == {"finetune": {"rate": 0.1, "folder": "here"}, "members": 4}


def test_keys_are_recognised() -> None:
    assert is_key(ood_key("svhn", "FPR95", "mi"))
    assert is_key(shift_key("blur", 3, "NLL"))
    assert not is_key("ood/svhn/AUROC/warmth")
    assert not is_key("cls/Accuracy")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"cls/Accuracy": 0.5}, r"unknown metrics \['cls/Accuracy'\]"),
        ({"cls/NLL": float("nan")}, "metric cls/NLL is nan, expected a finite number or null"),
        ({"cplx/Params": "many"}, "metric cplx/Params is 'many'"),
        ({"cls/Acc": None}, "metric cls/Acc is null, expected a number"),
        ({"ens/KL": 0.1}, "metric ens/KL is 0.1 with one member, expected null"),
    ],
)
def test_metrics_that_mislead_are_refused(metrics, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        row(metrics=METRICS | metrics)


def test_a_missing_metric_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"missing metrics \['cal/ECE'\]"):
        row(metrics={key: value for key, value in METRICS.items() if key != "cal/ECE"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": None}, "method is None, expected str, finite"),
        ({"seed": True}, "seed is True, expected int"),
        ({"seconds": float("inf")}, "seconds is inf, expected int or float"),
        ({"budget": "1.0"}, r"budget is '1\.0', expected int or float or null"),
        ({"members": 0}, "members is 0, expected at least 1"),
        ({"settings": {"x": object()}}, "settings of the row cannot be written as JSON"),
        ({"settings": {"x": float("nan")}}, "settings of the row cannot be written as JSON"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(changes, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        row(**changes)


def test_missing_and_unknown_keys_are_refused() -> None:
    made = row()
    del made["seed"]
    with pytest.raises(SubnetSearchError, match=r"missing keys \['seed'\], unknown keys \['sed'\]"):
        check_row(made | {"sed": 0})


def test_an_ensemble_may_have_diversity() -> None:
    assert row(members=4, metrics=METRICS | {"ens/KL": 0.1})["metrics"]["ens/KL"] == 0.1


def test_provenance_names_what_it_can() -> None:
    versions = library_versions()
    assert versions["torch"] == torch.__version__
    assert all(isinstance(version, str) for version in versions.values())
    commit = current_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
    assert device_name("cpu").startswith("cpu: ")
    assert device_name("meta") == "meta"
