"""Comparisons in which something went wrong: a seed that cannot be trained, damaged rows, folders that take no files."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from subnet_search.compare import read_rows
from subnet_search.compare.absences import reasons_of
from subnet_search.compare.rows import curves_by_cell
from subnet_search.errors import SubnetSearchError
from tests.test_compare import run, tiny


def test_a_seed_that_fails_leaves_the_others_of_its_method(tmp_path, monkeypatch) -> None:
    module = sys.modules["subnet_search.compare.comparison"]
    trained = module.train

    def diverging(system: Any, setup: Any, *given: Any) -> Any:
        if setup.run.seed == 0:
            raise SubnetSearchError("the loss is nan")
        return trained(system, setup, *given)

    config = tiny(tmp_path, methods=("msp", "random"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "train", diverging)
        found = run(replace(config, methods=("random",)), report=True)
    assert [(row["method"], row["seed"]) for row in found.rows] == [("random", 1)]
    assert found.missing == {"random": "seed 0: the loss is nan"}
    assert json.loads((tmp_path / "missing.json").read_text()) == found.missing
    page = (tmp_path / "report.html").read_text()
    assert "1 of 2" in page
    assert "Of random some seeds are missing." in page
    assert "could not be run" not in page
    assert run(config).missing == {}


def test_reasons_are_said_once_where_they_are_the_same_for_all_seeds() -> None:
    seeds = {"a": [0, 1], "b": [0, 1, 2], "c": [0]}
    failed = {("a", 0): "no", ("b", 0): "nan", ("b", 1): "cut", ("a", 1): "no", ("b", 2): "nan", ("c", 0): "big"}
    assert reasons_of(failed, seeds) == {"a": "no", "b": "seeds 0, 2: nan; seed 1: cut", "c": "big"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"method": "msp", "se\n', r"line 1 is no JSON .* delete that line"),
        (b'\n{"method": "\xff"}\n', r"line 2 is no JSON .* delete that line"),
        (b'{"rows": []}\n', r"line 1 is no row, expected an object with method, seed and settings"),
        (b"3\n", r"line 1 is no row"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "curves.jsonl"])
def test_a_damaged_line_is_named_before_anything_is_trained(tmp_path, no_training, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    no_training()
    with pytest.raises(SubnetSearchError, match=f"{name}: {message}"):
        run(tiny(tmp_path, methods=("random",)))


def test_where_nothing_can_be_kept_nothing_is_trained(tmp_path, no_training) -> None:
    no_training()
    (tmp_path / "file").touch()
    for name in ("rows.jsonl", "curves.jsonl", "missing.json"):
        (tmp_path / name / name).mkdir(parents=True)
    (tmp_path / "figures").touch()
    for out in ("file", "rows.jsonl", "curves.jsonl", "missing.json", "."):
        with pytest.raises(SubnetSearchError, match=r"cannot be written .* choose another --out"):
            run(tiny(tmp_path / out, methods=("random",)))


def test_a_row_without_its_curves_is_made_again(tmp_path, no_training) -> None:
    config = tiny(tmp_path, methods=("msp", "random"), seeds=(0,))
    first = run(config)
    lines = (tmp_path / "curves.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "curves.jsonl").write_bytes(lines[0])
    no_training()
    again = run(config)
    assert [row["metrics"]["cls/NLL"] for row in again.rows] == [
        pytest.approx(row["metrics"]["cls/NLL"], abs=1e-6) for row in first.rows
    ]
    assert len((tmp_path / "curves.jsonl").read_bytes().splitlines()) == 2
    assert run(config) == again
    assert len(read_rows(tmp_path / "rows.jsonl")) == 3


def test_of_curves_kept_twice_the_last_count() -> None:
    kept = [{"method": "msp", "seed": 0, "settings": digest, "n": n} for n, digest in enumerate("aab")]
    assert curves_by_cell(kept, "a") == {("msp", 0): kept[1]}
