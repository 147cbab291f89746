from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import latency
from subnet_search.backbones.resnet import resnet20
from subnet_search.bench import BenchResult, bench
from subnet_search.groups import find_groups


def test_masks_are_what_their_names_say() -> None:
    ensembles = {kind: latency.ensemble_of("resnet20", kind, 4, 32)[0] for kind in ("half", "quarter")}
    widths = find_groups(resnet20(), torch.randn(2, 3, 32, 32)).widths
    assert all(kept == (widths[name] // 2,) * 4 for name, kept in ensembles["half"].masks.widths.items())
    assert float(ensembles["quarter"].masks.overlap().triu(1).sum()) == 0  # disjoint


@pytest.mark.parametrize(
    ("kind", "trunk"), [("budget 1.0", 0.0), ("run 1.0", 0.89), ("trunk 1.0", 0.7), ("thin 1.0", 0.7)]
)
def test_masks_of_a_budget_use_it_up(kind: latency.Masks, trunk: float) -> None:
    graph = find_groups(resnet20(), torch.randn(2, 3, 32, 32))
    ensemble, _ = latency.ensemble_of("resnet20", kind, 4, 32)
    assert 0.96 < ensemble.macs() / graph.dense_macs <= 1.0
    settings = latency.settings(kind, graph, 4)
    assert settings.ensemble.trunk == pytest.approx(trunk, abs=0.01)
    assert settings.budget.trunk_keep == (0.7 if kind == "thin 1.0" else 1.0)


def test_packed_is_the_faster_form() -> None:
    def row(form: str, ms: float) -> dict[str, object]:
        return {"form": form, "median_ms": ms, "variant": f"{form}, contiguous"}

    found = latency._packed([row("sliced", 2.0), row("grouped", 1.0), row("dense", 0.5)])
    assert found == [{"form": "packed", "median_ms": 1.0, "variant": "grouped, contiguous"}]
    assert latency._packed([row("dense", 0.5)]) == []


def test_what_was_measured_before_it_was_stopped_is_kept_and_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(latency.rows, "RESULTS", tmp_path)
    asked: list[tuple[tuple[int, ...], str]] = []

    def stopped(*arguments: Any) -> BenchResult:
        *first, config, progress, keep = arguments
        asked.append((config.batch, *config.precision))
        if asked[-1] == ((1, 2), "bf16"):
            bench(*first, replace(config, batch=(1,)), progress, keep)
            raise KeyboardInterrupt
        return bench(*arguments)

    monkeypatch.setattr(latency, "bench", stopped)
    forms = ("dense", "sliced")
    grid = latency.Grid(("resnet20",), ("half",), (1, 2), (1,), ("fp32", "bf16"), seconds=0.0, forms=forms)
    with pytest.raises(KeyboardInterrupt):
        latency.main(grid)
    latency.main(grid)
    latency.main(replace(grid, precision=("bf16",), forms=("sliced", "onnx")))  # of which bf16 has the first alone
    assert asked == [((1, 2), "fp32"), ((1, 2), "bf16"), ((2,), "bf16")]
    found = [(row["batch"], row["dtype"], row["form"]) for row in latency.rows.read("latency")]
    assert found == [(b, d, f) for d in ("fp32", "bf16") for b in (1, 2) for f in (*forms, "packed")]


def test_the_table_tells_ratios_in_the_same_runtime_and_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"network": "n", "masks": "half", "dtype": "fp32", "threads": 1, "batch": 1, "device": "cpu: x, 1 threads"}
    dense = {**about, "form": "dense", "runtime": "pytorch", "median_ms": 2.0, "ratio_to_dense": 1.0}
    onnx = {**about, "form": "onnx", "runtime": "onnxruntime", "ratio_to_dense": 1.5, "ratio_to_pytorch": 0.75}
    monkeypatch.setattr(latency.rows, "read", lambda _: [dense, onnx])
    assert (
        latency.table().splitlines()[-1]
        == "| n | half | fp32 | 1 | 1 | 2 | – | – | – | – | – | – | 1.50 (0.75) | – | cpu: x |"
    )
