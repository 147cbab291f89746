from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import lab, rows, trade_off
from benchmarks.several_inputs import several_inputs_row
from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig, check_row
from subnet_search.inputs import Splits
from subnet_search.search import CONTROLS


def test_an_idea_says_what_it_changes() -> None:
    assert lab.changes("best-of-n") == {"search.algorithm": "best-of-n"}
    assert lab.changes("flow-trunk-36-overlap-0.3-repeat-shuffled") == {
        "search.algorithm": "flow",
        "ensemble.trunk": 0.36,
        "search.lambda_overlap": 0.3,
        "finetune.mode": "repeat",
    }


def test_the_settings_of_a_cell_are_those_of_its_idea() -> None:
    config = lab.settings(lab.Grid(epochs=3), "random-trunk-68-distill-50-bagging", 1.0, 7)
    assert config.search.algorithm == "random"
    assert (config.ensemble.trunk, config.finetune.distill, config.finetune.bagging) == (0.68, 0.5, True)
    assert (config.finetune.epochs, config.budget.budget, config.seed) == (3, 1.0, 7)


def test_the_order_of_what_is_added_does_not_matter() -> None:
    for idea in ("flow-joint-50-repeat", "flow-repeat-joint-50"):
        training = lab.settings(lab.Grid(), idea, 1.0, 0).finetune
        assert (training.mode, training.joint) == ("repeat", 0.5)


@pytest.mark.parametrize("name", ["nothing", "flows", "flow-trunks-36", "flow-36", "flow-trunk-", "flow-trunk"])
def test_a_name_that_is_not_understood_is_refused(name: str) -> None:
    with pytest.raises(SubnetSearchError, match="expected"):
        lab.changes(name)


def test_every_row_and_control_is_an_idea() -> None:
    for name in {row["method"] for row in rows.read("lab")} - {"dense", "tuned"} | CONTROLS:
        assert lab.changes(name)["search.algorithm"] in lab.ALGORITHMS


def cell(idea: str, overlap: float, correlation: float, accuracy: float, budget: float = 1.0) -> dict[str, object]:
    return {
        "method": idea,
        "backbone": "resnet20",
        "data": "cifar10-train:25000",
        "budget": budget,
        "epochs": 4,
        "settings": {"on": "validation", "search": {"lambda_overlap": overlap}},
        "metrics": {"ens/ErrCorr": correlation, "ens/MemberAcc": accuracy},
    }


def test_a_front_has_the_prices_of_overlaps_in_their_order_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        cell("flow-overlap-10", 10.0, 0.5, 0.70),
        cell("flow-overlap-10", 10.0, 0.6, 0.72),
        cell("flow-overlap-0", 0.0, 0.7, 0.80),
        cell("flow", 1.0, 0.65, 0.75),
        cell("flow-head", 1.0, 0.1, 0.99),
        cell("flow-shuffled", 1.0, 0.1, 0.66),  # other masks, though no setting is another
        cell("flow-unequal", 1.0, 0.1, 0.66),
        cell("random", 1.0, 0.1, 0.99),
        cell("flow-trunk-68", 1.0, 0.8, 0.85),
        cell("flow-trunk-68-overlap-3", 3.0, 0.7, 0.84),
        cell("flow-trunk-68-overlap-10", 10.0, 0.6, 0.83),
        *(cell(f"flow-overlap-{price}", price, 0.5, 0.9, budget=2.0) for price in (0.0, 10.0)),  # two make no front
    ]
    monkeypatch.setattr(rows, "read", lambda _: found)
    fronts = trade_off.fronts()
    plain = trade_off.Setting("resnet20", "validation", 1.0, 4, 25_000, trunk=0.0)
    trunk = plain._replace(trunk=0.68)
    assert (plain.slug, trunk.slug) == ("resnet20-1.0-4x25000-validation", "resnet20-1.0-trunk-68-4x25000-validation")
    assert {name: list(points) for name, points in fronts.items()} == {plain: [0.0, 1.0, 10.0], trunk: [1.0, 3.0, 10.0]}
    (axes,) = trade_off.draw_front("a front", fronts[plain]).axes
    (line,) = (line for line in axes.lines if line.get_gid() == "front")
    assert line.get_xdata() == pytest.approx([0.7, 0.65, 0.55])
    assert line.get_ydata() == pytest.approx([80.0, 75.0, 71.0])


def test_members_with_several_inputs_are_an_idea_that_is_no_setting_of_a_run(tmp_path: Path) -> None:
    idea = "random-trunk-70-repeat-head-mimo-90"
    assert lab.changes(idea)[lab.REPETITION] == 0.9
    config = lab.settings(lab.Grid(epochs=1), idea, 1.0, 0)
    plain = lab.settings(lab.Grid(epochs=1), "random-trunk-70-repeat-head", 1.0, 0)
    assert replace(config, out=plain.out) == plain
    draw = torch.Generator().manual_seed(0)
    images = ArrayDataset(torch.rand(40, 3, 32, 32, generator=draw), torch.arange(40) % 10, "few")
    job = replace(config, out=tmp_path, evaluate=EvaluateConfig(latency_repeats=0))
    row = several_inputs_row(job, 0.9, load_backbone("resnet20", "random"), Splits(images, images))
    check_row(row)
    assert (row["members"], row["samples_seen"], row["settings"]["baselines"]["input_repetition"]) == (8, 160, 0.9)
    assert row["metrics"]["cplx/MACsRatio"] <= 1.0
    again = several_inputs_row(job, 0.9, load_backbone("resnet20", "random"), Splits(images, images))
    assert again["metrics"]["cls/NLL"] == row["metrics"]["cls/NLL"]  # takes up masks and training
    with pytest.raises(SubnetSearchError, match="mimo searches its own masks, which cannot be shuffled"):
        lab.changes("flow-mimo-50-shuffled")
