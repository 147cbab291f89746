"""The comparison of all methods: what it computes, what it does not compute again, and what it says is missing."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import subnet_search.entwined.phases as phases
from subnet_search.backbones import Backbone, load_backbone
from subnet_search.baselines import SYSTEMS
from subnet_search.compare import METHODS, CompareConfig, Comparison, compare, read_rows, settings_digest
from subnet_search.data import ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig, check_row
from subnet_search.finetune import FinetuneConfig, checkpoint
from subnet_search.inputs import Splits, open_splits
from subnet_search.search import BudgetConfig
from subnet_search.settings import DataConfig

GRID = ("msp", "mc_dropout", "random", "batch_ensemble")


def network(seed: int = 9) -> Backbone:
    return load_backbone("digits", "random", seed=seed, width=4)


def few(**changes: Any) -> Splits:
    whole = open_splits(DataConfig(ood=()), network().card)

    def part(data: Any, count: int) -> ArrayDataset:
        assert isinstance(data, ArrayDataset)
        return data.subset(range(count))

    return Splits(**{"train": part(whole.train, 48), "validation": part(whole.validation, 30), "test": part(whole.test, 60), **changes})  # fmt: skip


def tiny(out: Path, **changes: Any) -> CompareConfig:
    settings = {
        "methods": GRID,
        "seeds": (0, 1),
        "members": 3,
        "finetune": FinetuneConfig(epochs=2, batch_size=24, precision="fp32"),
        "evaluate": EvaluateConfig(latency_repeats=0),
    }
    return CompareConfig(out=out, **{**settings, **changes})


def run(config: CompareConfig, **given: Any) -> Comparison:
    return compare(config, **{"backbone": network(), "splits": few(), "report": False, **given})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, Comparison]:
    config = tiny(tmp_path_factory.mktemp("comparison") / "out", scratch_epochs=3)
    return config, run(config, splits=few(ood={"seen": few().validation}))


def test_there_is_a_row_for_each_method_and_seed_and_one_of_the_dense_network(finished) -> None:
    config, found = finished
    assert [(row["method"], row["seed"]) for row in found.rows] == [
        ("msp", 0), ("mc_dropout", 0), ("random", 0), ("batch_ensemble", 0),
        ("mc_dropout", 1), ("random", 1), ("batch_ensemble", 1),
    ]  # fmt: skip
    assert found.missing == {}
    assert list(found.rows) == read_rows(config.out / "rows.jsonl")
    assert json.loads((config.out / "missing.json").read_text()) == {}
    for row in found.rows:
        check_row(row)
        assert (row["backbone"], row["data"]) == ("digits", "digits")
        assert row["metrics"]["ood/seen/AUROC/entropy"] is not None
        assert row["metrics"]["cls/NLL_TS"] is not None


def test_rows_tell_what_was_paid(finished) -> None:
    rows = {row["method"]: row for row in finished[1].rows}
    paid = {name: (row["members"], row["epochs"], row["samples_seen"], row["budget"]) for name, row in rows.items()}
    assert paid == {
        "msp": (1, None, None, None),
        "mc_dropout": (3, 2, 96, None),
        "random": (3, 2, 96, 2.0),
        "batch_ensemble": (3, 3, 144, None),
    }
    assert {name: row["settings"]["origin"] for name, row in rows.items()} == {
        "msp": "backbone", "mc_dropout": "backbone", "random": "backbone", "batch_ensemble": "scratch",
    }  # fmt: skip
    ratios = {name: row["metrics"]["cplx/MACsRatio"] for name, row in rows.items()}
    assert (ratios["msp"], ratios["mc_dropout"], ratios["batch_ensemble"]) == (1.0, 3.0, 3.0)
    assert 1.8 < ratios["random"] <= 2.0
    assert rows["msp"]["metrics"]["ens/Disagreement"] is None
    assert [row["metrics"]["ens/IoU"] is None for row in rows.values()] == [True, True, False, True]


def test_curves_are_those_of_the_figures(finished) -> None:
    config, found = finished
    curves = [json.loads(line) for line in (config.out / "curves.jsonl").read_text().splitlines()]
    assert [(c["method"], c["seed"]) for c in curves] == [(row["method"], row["seed"]) for row in found.rows]
    assert len({c["settings"] for c in curves}) == 1
    for curve, row in zip(curves, found.rows, strict=True):
        bins = curve["reliability"]
        gaps = [
            n * abs(accuracy - confidence)
            for n, accuracy, confidence in zip(bins["count"], bins["accuracy"], bins["confidence"], strict=True)
            if n
        ]
        assert sum(bins["count"]) == 60
        assert sum(gaps) / 60 == pytest.approx(row["metrics"]["cal/ECE"], abs=1e-6)
        assert curve["risk_coverage"]["risk"][-1] == pytest.approx(1 - row["metrics"]["cls/Acc"])
        assert curve["risk_coverage"]["coverage"][-1] == 1.0


def test_seeds_differ(finished) -> None:
    for method in GRID[1:]:
        one, other = (row["metrics"]["cls/NLL"] for row in finished[1].rows if row["method"] == method)
        assert one != other


def test_a_second_call_computes_nothing(finished, monkeypatch) -> None:
    config, found = finished
    before = (config.out / "rows.jsonl").read_bytes()
    module = sys.modules["subnet_search.compare.comparison"]
    for name in ("build", "evaluate"):
        monkeypatch.setattr(module, name, None)
    splits = few(ood={"seen": few().validation})
    assert run(config, splits=splits) == found
    again = run(replace(config, methods=("random", "random"), seeds=(1, 0)), splits=splits)
    assert [(row["method"], row["seed"]) for row in again.rows] == [("random", 1), ("random", 0)]
    assert (config.out / "rows.jsonl").read_bytes() == before


def test_another_evaluation_takes_up_the_training(tmp_path, no_training) -> None:
    config = tiny(tmp_path, methods=("random",), seeds=(0,))
    (row,) = run(config).rows
    no_training()
    other = replace(config, evaluate=EvaluateConfig(latency_repeats=0, batch_size=7, shift_samples=4))
    (again,) = run(other).rows
    assert "shift/blur/1/Acc" not in row["metrics"]
    assert any(key.startswith("shift/") for key in again["metrics"])
    assert again["metrics"]["cls/NLL"] == pytest.approx(row["metrics"]["cls/NLL"], abs=1e-5)
    with pytest.raises(AssertionError, match="a training step was made"):
        run(replace(config, finetune=replace(config.finetune, learning_rate=0.01)))


def test_epochs_of_an_interrupted_training_count_as_time(tmp_path, monkeypatch) -> None:
    module = sys.modules["subnet_search.compare.comparison"]
    trained = module.train
    monkeypatch.setattr(module, "train", lambda *given: replace(trained(*given), seconds=(1000.0, 500.0)))
    (row,) = run(tiny(tmp_path, methods=("random",), seeds=(0,))).rows
    assert 1500 < row["seconds"] < 2000


@pytest.mark.parametrize("other", ["network", "images"])
def test_results_of_other_networks_and_images_are_not_taken_up(tmp_path, other) -> None:
    config = tiny(tmp_path, methods=("msp", "random"), seeds=(0,))
    first = run(config)
    train = few().train
    assert isinstance(train, ArrayDataset)
    given = {"backbone": network(3)} if other == "network" else {"splits": few(train=train.subset(range(2, 44)))}
    second = run(config, **given)
    assert second.rows[1]["metrics"]["cls/NLL"] != first.rows[1]["metrics"]["cls/NLL"]
    assert len(read_rows(tmp_path / "rows.jsonl")) == 4
    assert run(config) == first


def test_other_test_images_are_another_row_of_the_same_training(tmp_path, no_training) -> None:
    config = tiny(tmp_path, methods=("random",), seeds=(0,))
    (row,) = run(config).rows
    no_training()
    test = few().test
    assert isinstance(test, ArrayDataset)
    (other,) = run(config, splits=few(test=replace(test, images=test.images // 2))).rows
    assert other["metrics"]["cls/NLL"] != row["metrics"]["cls/NLL"]
    assert run(config).rows == (row,)


@pytest.mark.parametrize("method", ["random", "mimo", "mc_dropout"])
def test_an_interrupted_comparison_goes_on_in_the_middle_of_a_training(tmp_path, monkeypatch, method) -> None:
    undisturbed = run(tiny(tmp_path / "a", methods=(method,), seeds=(0,)))
    save = checkpoint.save

    def interrupted(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        raise KeyboardInterrupt

    config = tiny(tmp_path / "b", methods=("msp", method), seeds=(0,))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert [row["method"] for row in read_rows(config.out / "rows.jsonl")] == ["msp"]
    begun: list[int] = []
    original = phases.finetune

    def noting(*arguments: Any, checkpoint: Path, **named: Any) -> Any:
        begun.append(len(torch.load(checkpoint, weights_only=True)["losses"]))
        return original(*arguments, checkpoint=checkpoint, **named)

    monkeypatch.setattr(phases, "finetune", noting)
    found = run(config)
    assert begun == [1]
    assert found.rows[1]["metrics"] == undisturbed.rows[0]["metrics"]


@pytest.mark.parametrize("method", ["search", "search+stochastic_depth"])
def test_an_interrupted_comparison_does_not_search_anew(tmp_path, monkeypatch, method) -> None:
    config = tiny(tmp_path / "b", methods=(method,), seeds=(0,))
    undisturbed = run(replace(config, out=tmp_path / "a"))
    with monkeypatch.context() as patch:
        patch.setattr(phases, "finetune", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config)
    module = sys.modules["subnet_search.baselines.composed"]
    for name in ("score", "search"):
        monkeypatch.setattr(module, name, None)
    (row,) = run(config).rows
    assert row["metrics"] == undisturbed.rows[0]["metrics"]


def test_what_is_missing_is_said_with_the_reason_and_the_others_are_run(tmp_path) -> None:
    config = tiny(tmp_path, methods=("random", "depth_masks", "msp", "singe"), budget=BudgetConfig(budget=0.01))
    found = run(config)
    assert [row["method"] for row in found.rows] == ["msp"]
    assert list(found.missing) == ["random", "depth_masks", "singe"]
    assert "budget 0.01 cannot be met with 3 members" in found.missing["random"]
    assert "with 3 members: without any residual branch they cost" in found.missing["depth_masks"]
    assert json.loads((tmp_path / "missing.json").read_text()) == found.missing
    affordable = run(replace(config, methods=("random", "msp"), seeds=(0,), budget=BudgetConfig(budget=2.0)))
    assert (len(affordable.rows), affordable.missing) == (2, {})
    assert json.loads((tmp_path / "missing.json").read_text()) == {}


def test_a_network_without_residual_branches_misses_its_depth(tmp_path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip
    config = tiny(tmp_path, methods=("stochastic_depth", "depth_masks", "random"), seeds=(0,))
    found = run(config, backbone=Backbone(model.eval(), network().card))
    assert [row["method"] for row in found.rows] == ["random"]
    assert "no branch to leave out" in found.missing["stochastic_depth"]
    assert "no residual branches" in found.missing["depth_masks"]


def test_a_network_without_groups_is_compared_as_a_whole(tmp_path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )
    methods = ("search", "msp", "mc_dropout", "deep_ensemble_finetuned", "bagging", "stochastic_depth")
    found = run(
        tiny(tmp_path, methods=methods, seeds=(0,)), backbone=Backbone(model.eval(), network().card), report=True
    )
    rows = {row["method"]: row["metrics"] for row in found.rows}
    assert [metrics["cplx/MACsRatio"] for metrics in rows.values()] == [1.0, 3.0, 3.0]
    assert list(rows) == ["msp", "deep_ensemble_finetuned", "bagging"]
    assert list(found.missing) == ["search", "mc_dropout", "stochastic_depth"]
    assert all("no channels that can be searched" in reason for reason in found.missing.values())


def test_without_test_images_the_validation_part_is_compared_on(tmp_path) -> None:
    (row,) = run(tiny(tmp_path, methods=("msp",)), splits=few(test=None), report=True).rows
    page = (tmp_path / "report.html").read_text()
    assert "measured on the same held-out images" in page
    assert "No test images were given" in page
    assert row["metrics"]["cls/NLL_TS"] is None
    assert row["metrics"]["cls/Acc"] * 30 == pytest.approx(round(row["metrics"]["cls/Acc"] * 30))


def test_human_labels_are_compared_with_the_doubt_in_the_images(tmp_path) -> None:
    counts = torch.randint(0, 9, (60, 10), generator=torch.Generator().manual_seed(0)) + 1
    (row,) = run(tiny(tmp_path, methods=("msp",)), human_counts=counts).rows
    assert row["metrics"]["aleatoric/Spearman"] is not None


def test_rows_and_curves_may_be_kept_elsewhere(tmp_path) -> None:
    files = {"rows_file": tmp_path / "r" / "rows.jsonl", "curves_file": tmp_path / "c.jsonl"}
    config = tiny(tmp_path / "out", methods=("msp",))
    found = run(config, **files)
    assert read_rows(files["rows_file"]) == list(found.rows)
    assert len(files["curves_file"].read_text().splitlines()) == 1
    assert {path.name for path in config.out.iterdir()} == {"missing.json", "figures"}
    assert run(config, **files) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("msp", "magic")}, "method 'magic': expected one of " + ", ".join(SYSTEMS)),
        ({"methods": ()}, "at least one method and one seed"),
        ({"seeds": ()}, "at least one method and one seed"),
        ({"seeds": (1, -1)}, "seeds are 1 -1, expected integers of at least 0"),
        ({"members": 1}, "members is 1, expected at least 2"),
    ],
)
def test_settings_that_cannot_be_met(tmp_path, changes, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        tiny(tmp_path, **changes)


def test_the_methods_of_the_default_are_all_there_are_from_the_backbone() -> None:
    assert CompareConfig().methods == METHODS
    assert set(METHODS) >= {"msp", "mc_dropout", "masksembles", "random", "search"}


def test_the_rows_are_drawn_and_reported(tmp_path) -> None:
    config = tiny(tmp_path, methods=("msp",))
    run(config, report=True)
    page = (tmp_path / "report.html").read_text()
    assert "measured on the same test images" in page
    assert "held-out images" not in page
    assert "digits: 1 method compared" in page
    assert "The network and the images came from Python" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report" / "nll-cost.csv").exists()
    names = {path.name for path in (config.out / "figures").iterdir()}
    assert {
        f"{name}.{kind}" for name in ("nll_cost", "reliability", "risk_coverage") for kind in ("svg", "png")
    } <= names


def test_rows_written_before_a_setting_was_added_are_still_found(finished) -> None:
    config, found = finished
    row = json.loads(json.dumps(found.rows[0]))
    digest = settings_digest(row)
    del row["settings"]["budget"]["multiple_of"]  # has its default
    assert settings_digest(row) == digest
    row["settings"]["budget"]["multiple_of"] = 2
    assert settings_digest(row) != digest
    row["settings"]["budget"]["multiple_of"] = 1
    row["settings"]["members"] = config.members + 1
    assert settings_digest(row) != digest
