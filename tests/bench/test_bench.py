"""Costs of every form: that all are there, that the figures fit together, and that what fails is told."""

import importlib.util
import json
import shutil
from typing import Any

import pytest
import torch
from rich.progress import Progress
from torch import Tensor, nn

from subnet_search.backbones import Backbone, load_backbone
from subnet_search.bench import BenchConfig, BenchResult, bench, forms, write_bench
from subnet_search.bench.bench import FORMS
from subnet_search.bench.forms import BASELINES, Forms, runtime_of
from subnet_search.bench.torch_forms import official_network
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet

MEMBERS = 3
QUICK = ("dense", "masked", "sliced", "grouped")
PACKAGES = {"onnx": "onnxruntime", "onnx_dense": "onnxruntime", "pte": "executorch", "pte_dense": "executorch"}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("digits")


@pytest.fixture(scope="module")
def ensemble(backbone: Backbone) -> SubnetEnsemble:
    """Half of each group for every member."""
    graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, width in graph.widths.items():
        masks[name] = torch.zeros(MEMBERS, width, dtype=torch.bool)
        for k in range(MEMBERS):
            masks[name][k, torch.randperm(width, generator=generator)[: width // 2]] = True
    return SubnetEnsemble(backbone.model, graph, MaskSet(masks, "random", 0), backbone.card).eval()


@pytest.fixture(scope="module")
def everything(ensemble: SubnetEnsemble, backbone: Backbone) -> BenchResult:
    """All forms, a single image."""
    return bench(ensemble, backbone.model, BenchConfig(batch=(1,), seconds=0.0))


def by_form(result: BenchResult) -> dict[str, dict[str, Any]]:
    return {row["form"]: row for row in result.rows}


def test_every_form_has_a_row_but_those_whose_package_is_missing(everything) -> None:
    absent = {form for form, package in PACKAGES.items() if importlib.util.find_spec(package) is None}
    assert set(by_form(everything)) == set(FORMS) - absent
    assert {entry["form"] for entry in everything.missing} == absent
    assert all("pip install 'subnet-search[" in entry["reason"] for entry in everything.missing)


def test_ratios_fit_the_times_they_are_of(everything) -> None:
    rows = by_form(everything)
    for form, row in rows.items():
        assert row["turns"] == 3
        assert 0 < row["quartiles_ms"][0] <= row["median_ms"] <= row["quartiles_ms"][1]
        assert row["images_per_s"] == pytest.approx(1000.0 / row["median_ms"])
        assert row["runtime"] == runtime_of(form)
        assert row["ratio_to_dense"] > 0
        assert (row["ratio_to_dense"] == 1.0) == (form in BASELINES.values())
        assert (row["members"], row["kept"]) == ((1, 1.0) if form in BASELINES.values() else (MEMBERS, 0.5))
        if row["runtime"] == "pytorch":
            assert row["ratio_to_dense"] == row["ratio_to_pytorch"]
    json.dumps(everything.rows, allow_nan=False)


def test_work_and_sizes_are_those_of_what_runs(everything, ensemble, backbone) -> None:
    rows, dense = by_form(everything), ensemble.graph.dense_macs
    for form, row in rows.items():
        expected = dense if form in BASELINES.values() else MEMBERS * dense
        if form not in (*BASELINES.values(), "official", "masked"):
            expected = ensemble.macs()
        if "merged" in row["variant"]:
            assert row["macs"] > expected  # zeros are multiplied, too
        elif "shared stem" not in row["variant"]:
            assert row["macs"] == expected
        assert row["macs_ratio"] == pytest.approx(row["macs"] / dense)
        assert (row["file_bytes"] is not None) == (row["runtime"] != "pytorch")
        if row["file_bytes"]:
            assert row["file_bytes"] > 4 * row["parameters"]
    assert rows["dense"]["parameters"] == sum(p.numel() for p in backbone.model.parameters())


def test_one_row_for_each_batch_and_precision(ensemble, backbone) -> None:
    config = BenchConfig(batch=(2, 3), precision=("fp32", "bf16"), seconds=0.0, forms=("grouped", "masked"), threads=2)
    kept: list[int] = []
    result = bench(ensemble, backbone.model, config, measured=lambda so_far: kept.append(len(so_far.rows)))
    assert kept == [2, 4, 6, 8]  # what was measured before it is stopped can be kept
    cells = [(row["form"], row["batch"], row["dtype"]) for row in result.rows]
    assert sorted(cells) == sorted((f, b, d) for f in config.forms for b in (2, 3) for d in ("fp32", "bf16"))
    assert {row["threads"] for row in result.rows} == {2}
    assert torch.get_num_threads() == 1
    assert {row["ratio_to_dense"] for row in result.rows} == {None}  # it was not asked for
    assert all(row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["median_ms"]) for row in result.rows)


def test_what_cannot_be_built_is_told_and_the_rest_measured(ensemble, backbone, monkeypatch) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise SubnetSearchError("onnx cannot be imported")

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("inside\nand more")

    monkeypatch.setattr(forms, "export_onnx", absent)
    monkeypatch.setattr(forms, "export_pte", absent)
    monkeypatch.setattr(forms, "official_network", broken)
    result = bench(ensemble, backbone.model, BenchConfig(batch=(1,), seconds=0.0))
    assert set(by_form(result)) == set(QUICK)
    reasons = {entry["form"]: entry["reason"] for entry in result.missing}
    assert reasons == {
        **dict.fromkeys(PACKAGES, "onnx cannot be imported"),
        "official": "it does not run: KeyError: 'inside\\nand more'",
    }
    assert {(entry["batch"], entry["dtype"]) for entry in result.missing} == {(1, "fp32")}


def test_a_form_that_fails_when_it_runs_is_told(ensemble, backbone, monkeypatch) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise RuntimeError("out of memory\nof this machine")
            return x

    monkeypatch.setattr(forms, "official_network", lambda *_: Fails())
    result = bench(ensemble, backbone.model, BenchConfig(batch=(4,), seconds=0.0, forms=("dense", "official")))
    assert set(by_form(result)) == {"dense"}
    assert result.missing[0]["reason"] == "it does not run: RuntimeError: out of memory"


def test_files_are_measured_in_fp32_only(ensemble, backbone) -> None:
    result = bench(ensemble, backbone.model, BenchConfig(batch=(1,), precision=("bf16",), forms=("onnx", "pte")))
    assert result.rows == []
    assert [entry["reason"] for entry in result.missing] == ["its file is in fp32, not in bf16"] * 2


def test_onnx_files_are_written_once_for_all_batches(ensemble, backbone, monkeypatch, tmp_path) -> None:
    written = []

    class Session(nn.Module):
        def __init__(self, path: Any, threads: int) -> None:
            super().__init__()
            written.append((path.name, threads))

    monkeypatch.setattr(forms, "export_onnx", lambda *a, **_: a[2].write_bytes(b"abc"))
    monkeypatch.setattr(forms, "OnnxNetwork", Session)
    made = Forms(ensemble, backbone.model, torch.device("cpu"), tmp_path, seconds=0.0)
    for batch in (1, 3):
        variants = made.build("onnx", torch.zeros(batch, 1, 8, 8), "fp32")
        assert [variant.label.partition(",")[0] for variant in variants] == ["sliced", "grouped", "merged"]
        assert [variant.file_bytes for variant in variants] == [3, 3, 3]
    assert written == [("0.onnx", 1), ("1.onnx", 1), ("2.onnx", 1)] * 2


def test_the_official_network_computes_what_its_masks_say(ensemble, backbone) -> None:
    pytest.importorskip("masksembles.torch")
    shared = SubnetEnsemble(
        backbone.model, ensemble.graph, ensemble.masks, ensemble.card, EnsembleConfig(norm="shared")
    )
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(official_network(backbone.model, ensemble)(x), shared(x))


def test_neither_network_is_changed(ensemble, backbone) -> None:
    before = {**ensemble.state_dict(prefix="e."), **backbone.model.state_dict(prefix="d.")}
    before = {name: (tensor.clone(), tensor.dtype, tensor.stride()) for name, tensor in before.items()}
    bench(ensemble, backbone.model, BenchConfig((1,), ("bf16",), seconds=0.0, forms=QUICK))
    for name, tensor in {**ensemble.state_dict(prefix="e."), **backbone.model.state_dict(prefix="d.")}.items():
        assert tensor.equal(before[name][0])
        assert (tensor.dtype, tensor.stride()) == before[name][1:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": ()}, "batch is"),
        ({"batch": (1, 0)}, r"batch is \(1, 0\), expected positive"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"forms": ("thin",)}, r"forms is \('thin',\), expected some of dense, official"),
        ({"precision": ()}, r"precision is \(\), expected some of fp32, bf16"),
    ],
)
def test_settings_that_make_no_sense(settings, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        BenchConfig(**settings)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_devices_that_are_not_there(ensemble, backbone, device) -> None:
    with pytest.raises(SubnetSearchError, match=f"device '{device}' cannot be used"):
        bench(ensemble, backbone.model, BenchConfig(device=device))


def test_the_file_holds_rows_and_reasons(tmp_path) -> None:
    result = BenchResult([{"form": "dense"}], [{"form": "onnx", "reason": "none"}])
    write_bench(result, tmp_path / "new" / "bench.json")
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == {"rows": result.rows, "missing": result.missing}
    (tmp_path / "file").write_text("")
    with pytest.raises(SubnetSearchError, match="cannot be written"):
        write_bench(result, tmp_path / "file" / "bench.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own code
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler, and there is no c++")
def test_compiled_forms_are_measured_against_the_dense_network_compiled(ensemble, backbone) -> None:
    config = BenchConfig(batch=(1, 2), seconds=0.0, forms=("dense", "grouped", "compiled_dense", "compiled"))
    # enough for the layouts of one batch size: behind the limit, nothing would be compiled any more
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        result = bench(ensemble, backbone.model, config)
    assert result.missing == []
    rows = {row["form"]: row for row in result.rows if row["batch"] == 2}
    assert {rows[form]["runtime"] for form in ("compiled_dense", "compiled")} == {"inductor"}
    assert rows["compiled_dense"]["ratio_to_dense"] == 1.0
    assert rows["compiled"]["ratio_to_dense"] != rows["compiled"]["ratio_to_pytorch"]
    assert rows["compiled_dense"]["macs"] == rows["dense"]["macs"]
    assert rows["compiled"]["variant"].partition(",")[0] in ("sliced", "grouped", "merged")


def test_what_is_named_twice_counts_once(ensemble, backbone) -> None:
    with Progress(disable=True) as progress:
        config = BenchConfig(forms=("dense", "dense", "masked"), batch=(2, 2), seconds=0.0)
        found = bench(ensemble, backbone.model, config, progress)
        (task,) = progress.tasks
    assert len(found.rows) == 2
    assert (task.completed, task.total) == (3, 3)
