"""The pruning benchmark: what differs between its cells, and its tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import rows, singe
from subnet_search.baselines import BaselineConfig, Setup
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import find_groups
from subnet_search.inputs import Splits, example_of, open_backbone, open_splits
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig
from subnet_search.settings import RunConfig


@pytest.fixture(scope="module")
def setup() -> Setup:
    run = RunConfig(
        members=2,
        budget=BudgetConfig(budget=1 / 2.1),
        relevance=RelevanceConfig(samples=8, nodes=2, precision="fp32"),
        finetune=FinetuneConfig(epochs=2, precision="fp32"),
    )
    backbone = open_backbone(run.network)
    splits = open_splits(replace(run.images, ood=()), backbone.card)
    few = Splits(splits.train.subset(range(64)), splits.validation)
    graph = find_groups(backbone.model, example_of(few.train, backbone.card))
    return Setup(backbone, graph, few, run, BaselineConfig(rounds=2))


def test_the_scores_alone_differ(setup: Setup) -> None:
    masks, configs = {}, []
    for criterion in ("ig", "tp-magnitude", "tp-taylor", "tp-hessian", "tp-random"):
        system = singe.system(setup, criterion)
        for phase in system.phases:
            assert phase.masks is not None
            assert isinstance(system.predictor, SubnetEnsemble)
            system.predictor.set_masks(phase.masks(system.predictor))
        assert isinstance(system.predictor, SubnetEnsemble)
        masks[criterion] = system.predictor.masks
        configs.append([phase.config for phase in system.phases])
        assert 2.1 <= setup.graph.dense_macs / system.predictor.macs() < 2.2
    assert all(found == configs[0] for found in configs)
    assert all(dict(found.widths) == dict(masks["ig"].widths) for found in masks.values())
    assert len({found.digest() for found in masks.values()}) == len(masks)


def test_torch_prunings_scores_choose_the_same_again(setup: Setup) -> None:
    digests = []
    for _ in range(2):
        torch.rand(3)  # the global state must not matter
        system = singe.system(setup, "tp-random")
        assert system.phases[0].masks is not None
        assert isinstance(system.predictor, SubnetEnsemble)
        digests.append(system.phases[0].masks(system.predictor).digest())
    assert digests[0] == digests[1]


def made_up(method: str, seed: int, accuracy: float) -> dict[str, object]:
    asked = {"speedup": 1.0 if method == "dense" else 2.1, "rounds": 5, "finetune": {"learning_rate": 0.01}}
    metrics = {"cls/Acc": accuracy, "cls/NLL": 0.25, "cplx/MACsRatio": 1.0 if method == "dense" else 0.475}
    epochs = None if method == "dense" else 1
    return {"method": method, "backbone": "net", "seed": seed, "epochs": epochs, "settings": asked, "metrics": metrics}


def test_the_table_and_what_is_left_to_do_come_from_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    found = [made_up("singe+ig", 0, 0.91), made_up("dense", 0, 0.94), made_up("singe+ig", 1, 0.92)]
    (tmp_path / "singe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert singe.table().splitlines()[2:] == [
        "| net | 1 | – | – | dense | 94.00 | 0.250 | 1.00 | 1 |",
        "| net | 2.1 | 1 | 5 | ig | 91.50 ± 0.71 | 0.250 ± 0.000 | 2.11 | 2 |",
    ]
    grid = singe.Grid(backbone="net", epochs=1)
    assert singe._done(grid, (7, 1.0, None))
    assert singe._done(grid, (1, 2.1, "ig"))
    assert not singe._done(grid, (2, 2.1, "ig"))
    assert not singe._done(grid, (1, 2.6, "ig"))
    assert not singe._done(grid, (1, 2.1, "taylor"))
    assert not singe._done(replace(grid, epochs=2), (1, 2.1, "ig"))


def test_the_published_figures_are_told_apart() -> None:
    assert "| DepGraph, sparse learning | 2.13 | 93.53 | 93.77 |" in singe.published()
