"""Runs whose masks come out of their training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import subnet_search.pipeline as pipeline
from subnet_search import cli
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits
from subnet_search.pipeline import RunResult, run
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig, SearchConfig, shuffled
from subnet_search.settings import DataConfig, RunConfig

ALGORITHMS = ("progressive", "gates")
ROUNDS = {
    "progressive": {"masks-0.safetensors", "checkpoint-0.pt", "masks-1.safetensors", "checkpoint-1.pt"},
    "gates": {"masks-0.safetensors", "checkpoint-0.pt"},
}


def tiny(out: Path, algorithm: str, **changes: Any) -> RunConfig:
    settings = {
        "members": 3,
        "images": DataConfig(ood=(), validation=0.6),
        "relevance": RelevanceConfig(samples=16, nodes=2, precision="fp32"),
        "search": SearchConfig(algorithm, rounds=3, train_share=0.5, gate_rate=1.0),  # type: ignore[arg-type]
        "finetune": FinetuneConfig(epochs=4, precision="fp32", augment="crop"),
        "evaluate": EvaluateConfig(latency_repeats=0),
    }
    return RunConfig(out=out, **{**settings, **changes})


def figures(result: RunResult) -> dict[str, dict[str, float | None]]:
    return {name: row["metrics"] for name, row in result.metrics.items()}


@pytest.fixture(scope="module", params=ALGORITHMS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    out = tmp_path_factory.mktemp("runs") / request.param
    return run(tiny(out, request.param), until="evaluate", report=False)


def algorithm_of(result: RunResult) -> str:
    assert result.masks is not None
    return result.masks.algorithm


def test_a_run_leaves_what_others_leave_and_its_rounds(finished) -> None:
    algorithm = algorithm_of(finished)
    names = {path.name for path in finished.folder.path.iterdir()}
    assert {"relevance.safetensors", "masks.safetensors", "checkpoint.pt", "metrics.json", "rounds"} <= names
    assert {path.name for path in finished.folder.rounds.iterdir()} == ROUNDS[algorithm]
    kept = finished.folder.masks()
    assert kept.digest() == finished.masks.digest() == finished.ensemble.masks.digest()
    assert kept.notes == finished.masks.notes
    assert {"settings", "overlap", "relevance", "objective"} <= set(kept.notes)
    row = finished.metrics["ensemble"]
    assert (row["method"], row["epochs"]) == (f"search+{algorithm}", 4)
    assert row["metrics"]["ens/IoU"] == pytest.approx(kept.mean_iou())
    assert 1.8 < row["metrics"]["cplx/MACsRatio"] <= 2.0
    assert "searched on " in (finished.folder.path / "log.txt").read_text()


def test_as_many_samples_are_seen_as_by_any_other(finished, tmp_path) -> None:
    other = run(tiny(tmp_path / "run", "flow"), until="evaluate", report=False)
    assert finished.metrics["ensemble"]["samples_seen"] == other.metrics["ensemble"]["samples_seen"]


def test_stage_by_stage_is_the_same_run(finished, tmp_path) -> None:
    config = tiny(tmp_path / "run", algorithm_of(finished))
    for stage in ("score", "search", "finetune", "evaluate"):
        result = run(config, until=stage, report=False)  # type: ignore[arg-type]
        trained = (config.out / "checkpoint.pt").exists()
        assert trained == (stage in ("finetune", "evaluate"))
        if stage == "search":
            assert result.masks.digest() == finished.masks.digest()
    assert figures(result) == figures(finished)


def test_a_finished_run_is_not_done_again(finished, monkeypatch) -> None:
    monkeypatch.setattr("torch.optim.SGD.step", None)  # no further step
    for stage in ("score", "search", "figures"):
        monkeypatch.setattr(pipeline, stage, lambda *_, stage=stage, **__: pytest.fail(f"{stage} was run again"))
    monkeypatch.setattr("subnet_search.entwined.rounds.score_relevance", lambda *_, **__: pytest.fail("scored again"))
    config = tiny(finished.folder.path, algorithm_of(finished))
    again = run(config, report=False)
    assert again.metrics == finished.metrics
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(again.ensemble.predict(x).probabilities, finished.ensemble.predict(x).probabilities)


def test_settings_of_the_training_are_fixed_by_the_search(tmp_path) -> None:
    run(tiny(tmp_path / "run", "progressive"), until="search")
    longer = tiny(tmp_path / "run", "progressive", finetune=FinetuneConfig(epochs=8, precision="fp32", augment="crop"))
    with pytest.raises(SubnetSearchError, match=r"finetune.epochs: 4 there, 8 asked for"):
        run(longer)


def test_the_shuffled_twin_is_trained_from_the_beginning(finished, tmp_path) -> None:
    config = tiny(tmp_path / "run", algorithm_of(finished))
    searched = run(config, until="search")
    twin = shuffled(searched.masks, 1)
    searched.folder.save_masks(twin)
    result = run(config, until="evaluate", report=False)
    assert result.masks.digest() == twin.digest()
    assert dict(result.masks.widths) == dict(finished.masks.widths)
    assert result.metrics["ensemble"]["method"] == f"search+{algorithm_of(finished)}+shuffled"
    assert result.metrics["ensemble"]["samples_seen"] == finished.metrics["ensemble"]["samples_seen"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trunk_whole_branches_and_a_kept_share_are_kept_to(tmp_path, algorithm) -> None:
    budget = BudgetConfig(budget=1.5, depth=True)
    config = tiny(tmp_path / "a", algorithm, budget=budget, ensemble=EnsembleConfig(trunk=0.3))
    result = run(config, until="evaluate", report=False)
    assert result.metrics["ensemble"]["metrics"]["cplx/MACsRatio"] <= 1.5
    assert any(result.masks.left_out(member) for member in range(3))
    half = run(tiny(tmp_path / "b", algorithm, budget=BudgetConfig(keep=0.5)), until="search")
    plain = run(tiny(tmp_path / "c", "flow", budget=BudgetConfig(keep=0.5)), until="search")
    assert dict(half.masks.widths) == dict(plain.masks.widths)


def test_one_round_is_a_run_of_flow(tmp_path) -> None:
    once = SearchConfig("progressive", rounds=1)
    one = run(tiny(tmp_path / "a", "progressive", search=once), until="evaluate", report=False)
    flow = run(tiny(tmp_path / "b", "flow"), until="evaluate", report=False)
    assert one.masks.digest() == flow.masks.digest()
    assert figures(one) == figures(flow)


def test_images_that_are_no_arrays_are_searched_with_too(tmp_path) -> None:
    backbone = pipeline.open_backbone(RunConfig().network)
    whole = pipeline.open_splits(DataConfig(ood=(), validation=0.6), backbone.card)
    pairs = Splits(torch.utils.data.Subset(whole.train, range(len(whole.train))), whole.validation)
    results = [
        run(tiny(tmp_path / name, "progressive"), until="evaluate", splits=splits, report=False)
        for name, splits in (("a", pairs), ("b", Splits(whole.train, whole.validation)))
    ]
    assert figures(results[0]) == figures(results[1])


LONG = ["--members=3", "--relevance.samples=16", "--relevance.nodes=2", "--finetune.epochs=4", "--evaluate.latency-repeats=0", "--ood", "--relevance.precision=fp32", "--finetune.precision=fp32", "--search.train-share=0.75", "--search.rounds=4"]  # fmt: skip


@pytest.mark.parametrize(
    ("algorithm", "file"),
    [("progressive", "rounds/masks-1.safetensors"), ("progressive", "rounds/checkpoint-1.pt"), ("gates", "rounds/checkpoint-0.pt")],
)  # fmt: skip
def test_a_search_that_was_killed_in_its_training_ends_with_the_same_numbers(
    tmp_path, kill_when_there, algorithm, file
) -> None:
    job = [*LONG, f"--search.algorithm={algorithm}"]
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    kill_when_there(["search", "--out", str(out), *job], out / file)
    assert not (out / "masks.safetensors").exists()
    for folder in (out, undisturbed):
        cli.main(["evaluate", "--out", str(folder), *job])
    rows = [json.loads((folder / "metrics.json").read_text()) for folder in (out, undisturbed)]
    assert [row["metrics"] for row in rows[0].values()] == [row["metrics"] for row in rows[1].values()]
    assert len({(folder / "masks.safetensors").read_bytes() for folder in (out, undisturbed)}) == 1
