"""The main job end to end, at the smallest scale, and what it reads and leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import subnet_search.pipeline as pipeline
from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.data import load_data
from subnet_search.data.digits import load_digits
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig, known_limits
from subnet_search.evaluate.keys import CRITERIA, FIGURES, FIXED_KEYS, SCORES, limit_key
from subnet_search.export import load_ensemble, read_manifest
from subnet_search.finetune import FinetuneConfig, checkpoint
from subnet_search.inputs import Splits
from subnet_search.pipeline import STAGES, RunResult, Stage
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import ALGORITHMS, BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig

FILES = {"config.json", "inputs.json", "log.txt", "relevance.safetensors", "masks.safetensors", "checkpoint.pt", "metrics.json", "evidence.safetensors", "report.html", "report", "ensemble"}  # fmt: skip
EVALUATED = {"metrics.json", "evidence.safetensors", "report.html", "report", "ensemble"}
LEFT_BY: dict[Stage, set[str]] = {
    "score": FILES - EVALUATED - {"masks.safetensors", "checkpoint.pt"},
    "search": FILES - EVALUATED - {"checkpoint.pt"},
    "finetune": FILES - EVALUATED,
    "evaluate": FILES - {"ensemble"},
    "export": FILES,
}


def tiny(out: Path, **changes: Any) -> RunConfig:
    settings = {
        "members": 3,
        "images": DataConfig(ood=()),
        "relevance": RelevanceConfig(samples=16, nodes=2, precision="fp32"),
        "finetune": FinetuneConfig(epochs=1, precision="fp32"),
        "evaluate": EvaluateConfig(latency_repeats=0),
    }
    return RunConfig(out=out, **{**settings, **changes})


def run(config: RunConfig, *, report: bool = False, **given: Any) -> RunResult:
    """Most of these tests look at no report, and drawing one takes longer than such a run."""
    return pipeline.run(config, report=report, **given)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def figures(result: RunResult) -> dict[str, dict[str, float | None]]:
    return {name: row["metrics"] for name, row in result.metrics.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    out = tmp_path_factory.mktemp("runs") / "run"
    return run(tiny(out, images=DataConfig(), evaluate=EvaluateConfig(latency_repeats=1)), report=True)


def test_a_run_leaves_all_files_and_no_others(finished) -> None:
    assert names(finished.folder.path) == FILES
    assert names(finished.folder.ensemble) == {"model.safetensors", "manifest.json"}


def test_both_networks_get_every_figure(finished) -> None:
    stored = json.loads(finished.folder.metrics_file.read_text())
    assert stored == finished.metrics
    ood = {f"ood/photos/{f}/{c}" for f in FIGURES for c in CRITERIA}
    for row in stored.values():
        assert set(row["metrics"]) == {*FIXED_KEYS, *ood, *map(limit_key, SCORES)}
        assert row["metrics"]["cls/Acc"] > 0.9
    assert [row["method"] for row in stored.values()] == ["dense", "search+flow"]
    assert (stored["ensemble"]["members"], stored["ensemble"]["samples_seen"]) == (3, 8 * 3 * (128 // 3))
    assert 1.9 < stored["ensemble"]["metrics"]["cplx/MACsRatio"] <= 2.0


def test_the_exported_ensemble_predicts_bit_for_bit(finished) -> None:
    back = load_ensemble(finished.folder.ensemble)
    images = load_data("digits:test", back.card).images
    ours, theirs = finished.ensemble.predict(images), back.predict(images)
    assert torch.equal(ours.probabilities, theirs.probabilities)
    assert torch.equal(ours.epistemic, theirs.epistemic)
    masks = finished.folder.masks()
    assert masks is not None
    assert finished.masks.digest() == back.masks.digest() == masks.digest()


def test_the_log_tells_the_stages(finished) -> None:
    text = (finished.folder.path / "log.txt").read_text()
    for words in ("groups are searchable", "scored by ig", "searched by flow", "fine-tuned on", "dense: accuracy", "exported to", "reported in"):  # fmt: skip
        assert words in text


def test_stage_by_stage_is_the_same_run(tmp_path, finished) -> None:
    config = tiny(tmp_path / "run", images=DataConfig(), evaluate=EvaluateConfig(latency_repeats=0))
    for stage in STAGES:
        result = run(config, until=stage, report=True)
        assert names(config.out) == LEFT_BY[stage]
    expected = {name: {**row, "cplx/LatencyMs": None} for name, row in figures(finished).items()}
    assert figures(result) == expected


def test_other_test_images_under_the_same_name_are_evaluated_anew(tmp_path, monkeypatch) -> None:
    test = load_data("digits:test", load_backbone("digits").card)
    file = tmp_path / "test.npz"
    np.savez(file, x=test.images, y=test.labels)
    config = tiny(tmp_path / "run", images=DataConfig(test=f"npz:{file}", ood=()))
    first = run(config)
    np.savez(file, x=255 - test.images.numpy(), y=test.labels)
    for stage in ("score", "search"):
        monkeypatch.setattr(pipeline, stage, lambda *_, stage=stage: pytest.fail(f"{stage} was run again"))
    again = run(config)
    assert figures(again)["dense"]["cls/NLL"] > figures(first)["dense"]["cls/NLL"]
    assert read_manifest(config.out / "ensemble").metrics == figures(again)["ensemble"]
    load_ensemble(config.out / "ensemble")


def test_figures_of_a_version_that_found_no_limits_are_computed_anew(tmp_path) -> None:
    config = tiny(tmp_path / "run", images=DataConfig(ood=()))
    first = run(config)
    older = {
        name: {**row, "metrics": {key: value for key, value in row["metrics"].items() if "refuse/" not in key}}
        for name, row in first.metrics.items()
    }
    first.folder.metrics_file.write_text(json.dumps(older))
    assert figures(run(config)) == figures(first)
    assert known_limits(read_manifest(config.out / "ensemble").metrics).keys() == set(SCORES)


def test_other_training_images_under_the_same_name_are_refused(tmp_path) -> None:
    data = load_data("digits", load_backbone("digits").card)
    file = tmp_path / "train.npz"
    np.savez(file, x=data.images, y=data.labels)
    config = tiny(tmp_path / "run", images=DataConfig(f"npz:{file}", ood=()))
    run(config, until="search")
    np.savez(file, x=255 - data.images.numpy(), y=data.labels)
    with pytest.raises(SubnetSearchError, match="results for another training set, under"):
        run(config)


def test_a_finished_run_is_not_done_again(tmp_path, monkeypatch) -> None:
    first = run(tiny(tmp_path / "run"), report=True)
    before = {
        path: path.read_bytes() for path in first.folder.path.rglob("*") if path.is_file() and path.name != "log.txt"
    }
    for stage in ("score", "search", "figures", "write_run_report"):
        monkeypatch.setattr(pipeline, stage, lambda *_, stage=stage: pytest.fail(f"{stage} was run again"))
    again = run(tiny(tmp_path / "run"), report=True)
    assert again.metrics == first.metrics
    assert {path: path.read_bytes() for path in before} == before
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(again.ensemble.predict(x).probabilities, first.ensemble.predict(x).probabilities)


def test_an_evaluation_may_be_repeated_with_other_images(tmp_path) -> None:
    first = run(tiny(tmp_path / "run"), until="evaluate")
    digits = load_digits("test")
    np.savez(tmp_path / "few.npz", x=digits.images[:100].numpy(), y=digits.labels[:100].numpy())
    config = tiny(tmp_path / "run", images=DataConfig(test=f"npz:{tmp_path / 'few.npz'}", ood=("noise=noise",)))
    second = run(config, until="evaluate")
    assert "ood/noise/AUROC/mi" in figures(second)["ensemble"]
    assert figures(second)["dense"]["cls/NLL"] != figures(first)["dense"]["cls/NLL"]
    assert figures(second)["dense"]["cplx/MACs"] == figures(first)["dense"]["cplx/MACs"]


def test_later_stages_may_be_given_later(tmp_path) -> None:
    run(tiny(tmp_path / "run"), until="score")
    for algorithm in ("magnitude", "draft"):  # what was not searched yet can be searched otherwise
        config = tiny(tmp_path / "run", search=SearchConfig(algorithm))
        assert run(config, until="score").masks is None
    masks = run(config, until="search").masks
    assert masks is not None
    assert masks.algorithm == "draft"
    with pytest.raises(SubnetSearchError, match=r"search.algorithm: draft there, flow asked for"):
        run(tiny(tmp_path / "run"), until="search")


def test_scores_of_another_criterion_are_not_taken(tmp_path) -> None:
    run(tiny(tmp_path / "a"), until="score")
    one = run(tiny(tmp_path / "a", search=SearchConfig("magnitude")), until="search").masks
    two = run(tiny(tmp_path / "b", search=SearchConfig("magnitude")), until="search").masks
    assert one is not None
    assert two is not None
    assert one.digest() == two.digest()


def test_scores_of_a_deeper_trunk_are_not_taken(tmp_path) -> None:
    deep, none = EnsembleConfig(trunk=0.6), EnsembleConfig(trunk=0.0)
    run(tiny(tmp_path / "a", ensemble=deep), until="score")
    one = run(tiny(tmp_path / "a", ensemble=none), until="search")
    two = run(tiny(tmp_path / "b", ensemble=none), until="search")
    assert one.masks is not None
    assert two.masks is not None
    assert one.masks.digest() == two.masks.digest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_and_no_training_at_all(tmp_path, algorithm) -> None:
    config = tiny(
        tmp_path / "run",
        search=SearchConfig(algorithm, candidates=2, swaps=3, rescoring=1),
        finetune=FinetuneConfig(epochs=0, precision="fp32"),
    )
    result = run(config)
    assert result.metrics["ensemble"]["method"] == f"search+{algorithm}"
    assert result.metrics["ensemble"]["samples_seen"] == 0
    assert figures(result)["ensemble"]["cplx/MACsRatio"] <= 2.0
    scored = ("flow", "draft", "core", "pairs", "swap", "magnitude", "progressive", "gates")
    assert (config.out / "relevance.safetensors").exists() == (algorithm in scored)


class Poison(Dataset):
    """Test or OOD images that nothing may read before the evaluation."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.open = False

    def __len__(self) -> int:
        assert self.open, "the length was asked for before the evaluation"
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        assert self.open, "an image was read before the evaluation"
        return self.dataset[index]


def splits_of(card: Card, wrap: Callable[[Any], Any] = lambda dataset: dataset) -> Splits:
    """Small parts of the digits, so that each of them can be read sample by sample."""
    everything, test = load_data("digits", card), load_data("digits:test", card)
    return Splits(
        wrap(everything.subset(range(160))), wrap(everything.subset(range(160, 200))), wrap(test.subset(range(40)))
    )


@pytest.mark.parametrize("algorithm", ["flow", "best-of-n"])
def test_test_and_ood_images_are_seen_by_the_evaluation_only(tmp_path, monkeypatch, algorithm) -> None:
    card = load_backbone("digits").card
    splits = splits_of(card)
    test, far = Poison(splits.test), Poison(load_data("noise", card, labelled=False).subset(range(40)))
    original = pipeline.evaluation_digests

    def opened(*arguments: Any) -> Any:
        test.open = far.open = True
        return original(*arguments)

    monkeypatch.setattr(pipeline, "evaluation_digests", opened)
    config = tiny(tmp_path / "run", search=SearchConfig(algorithm, candidates=2))
    result = run(config, splits=replace(splits, test=test, ood={"far": far}))
    assert test.open
    assert figures(result)["ensemble"]["ood/far/AUROC/mi"] is not None


def as_tensors(dataset: Any) -> TensorDataset:
    return TensorDataset(dataset.images, dataset.labels)


def as_subset(dataset: Any) -> Subset:
    return Subset(dataset, list(range(len(dataset))))


def test_the_callers_own_datasets_give_the_same_run(tmp_path) -> None:
    card = load_backbone("digits").card
    results = [
        run(tiny(tmp_path / str(number)), splits=splits_of(card, wrap))
        for number, wrap in enumerate([lambda dataset: dataset, as_tensors, as_subset])
    ]
    assert figures(results[0]) == figures(results[1]) == figures(results[2])


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def own_backbone() -> Backbone:
    return Backbone(Own().eval(), Card("own", (1, 8, 8), tuple("0123456789")))


def test_the_callers_own_network_is_searched_and_comes_back(tmp_path) -> None:
    backbone = own_backbone()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    config = tiny(tmp_path / "run", ensemble=EnsembleConfig(head="member"))
    result = run(config, backbone=backbone, splits=splits_of(backbone.card))
    assert result.metrics["dense"]["backbone"] == "own"
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
    with pytest.raises(SubnetSearchError, match="'own' cannot be built by name"):
        load_ensemble(result.folder.ensemble)
    back = load_ensemble(result.folder.ensemble, Own())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(back.predict(x).probabilities, result.ensemble.predict(x).probabilities)


def test_results_of_another_network_are_not_taken_up(tmp_path) -> None:
    backbone = own_backbone()
    run(tiny(tmp_path / "run"), until="search", backbone=backbone, splits=splits_of(backbone.card))
    with pytest.raises(SubnetSearchError, match="holds results for another network, under the same settings"):
        run(tiny(tmp_path / "run"), backbone=own_backbone(), splits=splits_of(backbone.card))


def test_a_network_is_imported_by_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "net_of_mine.py").write_text(
        "import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = BackboneConfig("net_of_mine:build", input_shape=(1, 8, 8), classes=tuple("abcdefghij"))
    result = run(tiny(tmp_path / "run", network=network))
    with pytest.raises(SubnetSearchError, match="import_code=True"):
        load_ensemble(result.folder.ensemble)
    back = load_ensemble(result.folder.ensemble, import_code=True)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(back.predict(x).probabilities, result.ensemble.predict(x).probabilities)
    assert back.card.classes == tuple("abcdefghij")


def test_no_test_images_have_the_figures_computed_on_the_validation_part(tmp_path) -> None:
    card = load_backbone("digits").card
    result = run(tiny(tmp_path / "run"), splits=replace(splits_of(card), test=None))
    assert figures(result)["ensemble"]["cls/NLL_TS"] is None  # nothing is left to fit the temperature on


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, monkeypatch) -> None:
    changes = {"finetune": FinetuneConfig(epochs=3, precision="fp32", augment="crop"), "images": DataConfig()}
    undisturbed = run(tiny(tmp_path / "a", **changes))
    save, saved = checkpoint.save, []

    def interrupted(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(tmp_path / "b", **changes))
    assert "stopped by KeyboardInterrupt" in (tmp_path / "b" / "log.txt").read_text()
    resumed = run(tiny(tmp_path / "b", **changes))
    assert len(saved) == 3
    assert figures(resumed) == figures(undisturbed)
    x = torch.rand(7, 1, 8, 8)
    assert torch.equal(resumed.ensemble.predict(x).probabilities, undisturbed.ensemble.predict(x).probabilities)


@pytest.mark.parametrize("algorithm", ["flow", "best-of-n"])
def test_members_can_leave_out_blocks_within_the_budget(tmp_path, algorithm) -> None:
    search = SearchConfig(algorithm=algorithm, candidates=2)
    result = run(tiny(tmp_path / "run", budget=BudgetConfig(budget=1.5, depth=True), search=search), until="evaluate")
    assert result.masks is not None
    assert result.ensemble is not None
    assert result.masks.depth
    assert {name: kept.tolist() for name, kept in result.folder.masks().depth.items()} == {
        name: kept.tolist() for name, kept in result.masks.depth.items()
    }
    assert result.ensemble.masks.depth.keys() == result.masks.depth.keys()
    assert 1.3 < figures(result)["ensemble"]["cplx/MACsRatio"] <= 1.5
    with pytest.raises(SubnetSearchError, match="depth needs a budget of MACs"):
        BudgetConfig(keep=0.5, depth=True)


def test_a_trunk_that_is_left_open_is_chosen_and_told(tmp_path) -> None:
    config = tiny(tmp_path / "run", budget=BudgetConfig(1.2))
    assert config.ensemble.trunk is None
    result = run(config)
    share = result.ensemble.config.trunk
    assert 0.3 < share < 0.9
    settings = result.metrics["ensemble"]["settings"]
    assert settings["ensemble"]["trunk"] == share
    assert settings["finetune"]["mode"] in ("split", "repeat")
    assert read_manifest(tmp_path / "run" / "ensemble").config.trunk == share
    assert "of the dense MACs in common" in (tmp_path / "run" / "log.txt").read_text()
    assert run(config).metrics == result.metrics  # it is the same run, still left open


@pytest.mark.parametrize(("budget", "warned"), [(3.0, True), (1.5, False)])
def test_members_that_all_keep_everything_are_warned_of(tmp_path, budget: float, warned: bool) -> None:
    config = tiny(tmp_path / "run", budget=BudgetConfig(budget=budget), search=SearchConfig(algorithm="random"))
    run(config, until="search")
    told = (config.out / "log.txt").read_text()
    assert ("each of the 3 members: they differ by their training alone" in told) is warned
    assert ("give a smaller budget" in told) is warned
