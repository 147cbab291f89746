import pytest
import torch

from benchmarks import latency
from subnet_search.backbones.resnet import resnet20
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
    def row(form: str, batch: int, ms: float) -> dict[str, object]:
        return {"form": form, "batch": batch, "dtype": "fp32", "median_ms": ms, "variant": f"{form}, contiguous"}

    found = latency._packed(
        [row("sliced", 1, 2.0), row("grouped", 1, 1.0), row("sliced", 64, 5.0), row("dense", 64, 1.0)]
    )
    assert [(r["batch"], r["median_ms"], r["variant"]) for r in found] == [
        (1, 1.0, "grouped, contiguous"),
        (64, 5.0, "sliced, contiguous"),
    ]


def test_the_table_tells_ratios_in_the_same_runtime_and_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"network": "n", "masks": "half", "dtype": "fp32", "threads": 1, "batch": 1, "device": "cpu: x, 1 threads"}
    dense = {**about, "form": "dense", "runtime": "pytorch", "median_ms": 2.0, "ratio_to_dense": 1.0}
    onnx = {**about, "form": "onnx", "runtime": "onnxruntime", "ratio_to_dense": 1.5, "ratio_to_pytorch": 0.75}
    monkeypatch.setattr(latency.rows, "read", lambda _: [dense, onnx])
    assert (
        latency.table().splitlines()[-1]
        == "| n | half | fp32 | 1 | 1 | 2 | – | – | – | – | – | – | 1.50 (0.75) | – | cpu: x |"
    )
