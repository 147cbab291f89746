"""The cache: the same settings and inputs give the same folder, and any number of processes may use it."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from subnet_search.masks import MaskSet
from subnet_search.relevance import Relevance
from subnet_search.tune.cache import Cache

SIZE = 20_000


def scores(value: float) -> Relevance:
    return Relevance({"a": torch.full((2, SIZE), value), "b": torch.eye(2)}, "ig", samples=3, seconds=1.5)


def never() -> Any:
    raise AssertionError("this was computed before")


def test_what_is_there_is_not_computed_again(tmp_path) -> None:
    cache = Cache(tmp_path, {"network": "n"})
    found = cache.relevance({"members": 2}, lambda: scores(0.25))
    again = Cache(tmp_path, {"network": "n"}).relevance({"members": 2}, never)
    assert again.scores["a"].equal(found.scores["a"])
    assert (again.criterion, again.samples, again.seconds) == ("ig", 3, 1.5)
    figures = {"cls/NLL": 0.1 + 0.2, "ens/ErrCorr": None}
    assert cache.figures({"epochs": 3}, lambda: figures) == figures
    assert cache.figures({"epochs": 3}, never) == figures
    masks = MaskSet({"a": torch.tensor([[True, False], [True, True]])}, "flow", 3, {"gap": 0.5})
    assert cache.measured({"epochs": 3}, lambda: (masks, figures))[1] == figures
    kept, same = cache.measured({"epochs": 3}, never)
    assert (kept.digest(), kept.algorithm, kept.notes, same) == (masks.digest(), "flow", {"gap": 0.5}, figures)


@pytest.mark.parametrize(
    ("inputs", "key"), [({"network": "m"}, {"members": 2}), ({"network": "n"}, {"members": 3}), ({}, {"members": 2})]
)
def test_other_settings_and_inputs_have_other_results(tmp_path, inputs, key) -> None:
    Cache(tmp_path, {"network": "n"}).figures({"members": 2}, lambda: {"x": 1})
    assert Cache(tmp_path, inputs).figures(key, lambda: {"x": 2}) == {"x": 2}


def test_kinds_of_results_do_not_meet(tmp_path) -> None:
    cache = Cache(tmp_path, {})
    cache.figures({}, lambda: {"x": 1})
    assert cache.relevance({}, lambda: scores(1.0)).criterion == "ig"


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"[1]"])
def test_a_damaged_result_is_computed_again(tmp_path, damage) -> None:
    cache = Cache(tmp_path, {})
    cache.relevance({}, lambda: scores(0.5))
    cache.figures({}, lambda: {"x": 1})
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(damage(path.read_bytes()))
    assert cache.relevance({}, lambda: scores(0.75)).scores["a"][0, 0] == 0.75
    assert cache.figures({}, lambda: {"x": 2}) == {"x": 2}
    assert cache.figures({}, never) == {"x": 2}


def hammer(folder: Path, seed: int, results: Any) -> None:
    """Asks for the same few results over and over, damaging some as it goes; every answer must be the right one."""
    torch.set_num_threads(1)
    cache = Cache(folder, {})
    wrong = 0
    for turn in range(12):
        k = (turn * 7 + seed) % 4
        wrong += not cache.relevance({"k": k}, lambda k=k: scores(float(k))).scores["a"].eq(float(k)).all()
        wrong += cache.figures({"k": k}, lambda k=k: {"k": k, "long": ["x" * 50] * 200})["k"] != k
        if turn % 4 == seed:
            for path in folder.rglob("[!.]*.json"):
                path.unlink(missing_ok=True)
    results.put(wrong)


def test_processes_that_hammer_it_never_see_half_a_result(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=hammer, args=(tmp_path, seed, results)) for seed in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=600) for _ in processes] == [0, 0, 0]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not list(tmp_path.rglob(".*.tmp"))
    assert all(json.loads(path.read_text())["long"] for path in tmp_path.rglob("*.json"))
