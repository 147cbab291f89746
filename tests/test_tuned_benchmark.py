import math
from dataclasses import replace

import pytest
import torch

import subnet_search.pipeline as pipeline
from benchmarks import lab, main_job, rows
from benchmarks.tuned import tuned_row
from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset
from subnet_search.evaluate import EvaluateConfig, check_row
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits, network_digest
from subnet_search.records import read_masks
from subnet_search.search import shuffled
from subnet_search.settings import RunConfig


@pytest.fixture
def few(monkeypatch) -> None:
    """Few made-up images in the place of CIFAR-10."""
    draw = torch.Generator().manual_seed(0)
    images = ArrayDataset(torch.rand(40, 3, 32, 32, generator=draw), torch.arange(40) % 10, "few")
    backbone = load_backbone("resnet20", "random")
    for module in (main_job, pipeline):
        monkeypatch.setattr(module, "open_splits", lambda *_: Splits(images, images))
        monkeypatch.setattr(module, "open_backbone", lambda _: backbone)
    monkeypatch.setattr(main_job.cifar, "npz", lambda name: f"npz:{name}.npz")
    monkeypatch.setattr(main_job.cifar, "folder", lambda: main_job.RUNS)
    monkeypatch.setattr(main_job.cifar, "weights", lambda _: "random")


def test_the_dense_network_is_trained_on_for_all_its_images_and_left_as_it_was(tmp_path) -> None:
    backbone = load_backbone("digits", seed=0)
    draw = torch.Generator().manual_seed(0)
    images = ArrayDataset(torch.rand(60, *backbone.card.input_shape, generator=draw), torch.arange(60) % 10, "few")
    before = network_digest(backbone.model)
    config = RunConfig(
        out=tmp_path / "tuned", finetune=FinetuneConfig(epochs=2), evaluate=EvaluateConfig(latency_repeats=0)
    )
    row = tuned_row(config, backbone, Splits(images, images), None)
    check_row(row)
    assert network_digest(backbone.model) == before
    assert (row["members"], row["samples_seen"], row["metrics"]["cplx/MACsRatio"]) == (1, 120, 1.0)
    assert math.isfinite(row["metrics"]["cls/NLL"])
    again = tuned_row(config, backbone, Splits(images, images), None)  # takes up what was trained
    assert again["metrics"]["cls/NLL"] == row["metrics"]["cls/NLL"]


@pytest.mark.usefixtures("few")
def test_the_main_job_has_it_beside_the_ensembles_and_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(main_job, "RUNS", tmp_path / "runs")
    grid = main_job.Grid(
        methods=("tuned",), budgets=(1.0,), seeds=(3,), epochs=1, mode="repeat", noisy=0.25, learn_noisy=0.25
    )
    main_job.main(grid)
    main_job.main(grid)
    (row,) = rows.read("main_job")
    assert (row["method"], row["budget"], row["epochs"], row["seed"], row["members"]) == ("tuned", 1.0, 1, 3, 1)
    assert row["settings"]["finetune"]["augment"] == "crop-flip"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", ["tuned", "random"])
def test_a_cell_whose_row_lacks_figures_of_today_can_be_measured_again(monkeypatch, tmp_path, method) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(main_job, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(main_job, "OOD", ())  # for which there are no images here
    monkeypatch.setattr(main_job, "_ood_keys", lambda: ["ood/far/AUROC/energy"])
    grid = main_job.Grid(methods=(method,), budgets=(1.0,), seeds=(3,), epochs=1, mode="repeat", trunk=0.7)
    main_job.main(grid)
    first = rows.read("main_job")
    assert main_job.measured() == first

    def trained(*_) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(torch.optim.SGD, "step", trained)
    main_job.main(replace(grid, again=True))
    both = rows.read("main_job")
    assert main_job.measured() == both[len(first) :]
    assert [row["method"] for row in both] == 2 * [row["method"] for row in first]
    assert both[-1]["metrics"]["cls/NLL"] == first[-1]["metrics"]["cls/NLL"]
    monkeypatch.setattr(main_job, "_ood_keys", list)
    main_job.main(replace(grid, again=True))  # nothing is missing
    assert rows.read("main_job") == both


def test_the_criterion_of_ood_is_the_best_on_the_set_for_choosing(monkeypatch) -> None:
    def row(method: str, seed: int, entropy: float, energy: float | None) -> dict[str, object]:
        scores = {"msp": 0.6, "entropy": entropy, "mi": None, "energy": energy}
        metrics = {
            f"ood/{name}/AUROC/{criterion}": None if score is None else score - down
            for name, down in (("tinyimagenet", 0.0), ("cifar100", 0.1), ("svhn", 0.2))
            for criterion, score in scores.items()
        }
        about = {"backbone": "net", "method": method, "budget": 1.0, "seed": seed, "epochs": 2, "members": 4}
        return {**about, "metrics": metrics}

    found = [
        row("search", 0, 0.9, 0.7),
        row("search", 1, 0.7, 0.8),
        row("random", 0, 0.7, 0.8),
        row("old", 0, 0.7, None),
    ]
    monkeypatch.setattr(rows, "read", lambda _: found)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in main_job.ood_table().splitlines()[2:]]
    assert [line[3:8] for line in lines] == [
        ["random", "energy", "0.700", "0.600", "0.800"],
        ["search", "entropy", "0.700 ± 0.141", "0.600 ± 0.141", "0.800 ± 0.141"],
    ]


def test_the_laboratory_knows_it_as_an_idea_without_changes() -> None:
    assert lab.changes("tuned") == {}
    with pytest.raises(lab.SubnetSearchError):
        lab.changes("tuned-trunk-36")


@pytest.mark.usefixtures("few")
def test_the_main_job_trains_the_shuffled_twin_of_a_search(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(main_job, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(main_job, "OOD", ())
    grid = main_job.Grid(methods=("search", "shuffled"), budgets=(1.0,), seeds=(3,), epochs=1, overlap=10)
    main_job.main(grid)
    _, searched, twin = rows.read("main_job")
    assert (searched["method"], twin["method"]) == ("search+overlap10", "shuffled+overlap10")
    found = {path.name.split("+")[0]: read_masks(path / "masks.safetensors") for path in main_job.RUNS.iterdir()}
    original, permuted = found["resnet20-search"], found["resnet20-shuffled"]
    assert permuted.notes["shuffled_from"] == original.digest()
    assert permuted.digest() == shuffled(original, 3).digest()
    assert twin["metrics"]["cplx/MACsRatio"] == searched["metrics"]["cplx/MACsRatio"]


@pytest.mark.usefixtures("few")
def test_the_main_job_parts_members_on_noisy_images_under_a_name_of_its_own() -> None:
    grid = main_job.Grid(mode="repeat", noisy=0.25)
    training = main_job.settings(grid, "search", 1.0, 0).finetune
    assert (training.decorrelate, training.probes) == (0.25, "noisy")
    assert main_job._key(grid, "search") == "search+repeat+noisy25"
    learned = main_job.Grid(mode="repeat", learn_noisy=0.25)
    training = main_job.settings(learned, "search", 1.0, 0).finetune
    assert (training.decorrelate, training.learn_probes, training.probes) == (0.0, 0.25, "noisy")
    assert main_job._key(learned, "search") == "search+repeat+learnnoisy25"
    assert main_job.settings(main_job.Grid(mode="repeat"), "search", 1.0, 0).finetune.decorrelate == 0.0
