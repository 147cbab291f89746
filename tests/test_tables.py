from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from subnet_search.backbones import load_backbone
from subnet_search.groups import GroupGraph, LeftWhole, find_groups
from subnet_search.tables import bench_tables, comparison_table, groups_table, mean_of, metrics_table, spread


def printed(table: Table) -> str:
    console = Console(width=200, color_system="standard", force_terminal=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def row(members: int, **figures: float | None) -> dict[str, Any]:
    return {"backbone": "net", "data": "npz:[x].npz", "members": members, "metrics": figures}


def line_of(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if title in line)


BOLD = "\x1b[1m"


@pytest.mark.parametrize(("key", "title", "better"), [("cls/Acc", "accuracy", 0), ("cls/NLL", "NLL", 1)])
def test_the_better_figure_is_bold(key, title, better) -> None:
    text = printed(metrics_table({"dense": row(1, **{key: 0.75}), "ensemble": row(4, **{key: 0.5})}))
    values = ["0.7500", "0.5000"]
    line = line_of(text, title)
    assert f"{BOLD}{values[better]}" in line
    assert f"{BOLD}{values[1 - better]}" not in line


def test_equal_figures_are_not_bold_and_absent_ones_a_dash() -> None:
    dense = row(1, **{"cls/Acc": 0.5, "ens/IoU": None, "cal/ECE_TS": None})
    text = printed(
        metrics_table({"dense": dense, "ensemble": row(4, **{"cls/Acc": 0.5, "ens/IoU": 0.25, "cal/ECE_TS": None})})
    )
    assert f"{BOLD}0.5" not in line_of(text, "accuracy")
    assert "–" in line_of(text, "mask IoU")
    assert "ECE, temperature scaled" not in text
    assert "ensemble of 4" in text
    assert "net on [x]" in text  # the brackets are no markup


def test_ood_sets_have_their_rows() -> None:
    figures = {"ood/svhn/AUROC/msp": 0.9, "ood/svhn/AUROC/mi": None, "ood/svhn/FPR95/msp": 0.1}
    text = printed(
        metrics_table({"dense": row(1, **figures), "ensemble": row(2, **{**figures, "ood/svhn/AUROC/mi": 0.8})})
    )
    assert "0.9000" in line_of(text, "OOD svhn, AUROC by max probability")
    assert "0.8000" in line_of(text, "OOD svhn, AUROC by mutual information")
    assert "FPR95" not in text


def test_groups_and_what_is_left_whole_are_listed() -> None:
    backbone = load_backbone("digits")
    graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
    whole = (LeftWhole("stem[0]", 12, "its channels are shuffled [odd]"),)
    fields = {name: getattr(graph, name) for name in graph.__dataclass_fields__}
    text = printed(groups_table(GroupGraph(**{**fields, "left_whole": whole})))
    for group in graph.groups:
        assert str(group.width) in line_of(text, group.name)
    assert "its channels are shuffled [odd]" in line_of(text, "stem[0]")


def compared(method: str, origin: str = "backbone", **figures: float | None) -> dict[str, Any]:
    return {**row(4, **figures), "method": method, "settings": {"origin": origin}}


def test_methods_stand_below_each_other_with_their_spread() -> None:
    rows = [
        compared("msp", **{"cls/Acc": 0.9, "cls/NLL": 0.25, "ood/a/AUROC/entropy": 0.7, "ood/b/AUROC/entropy": 0.9}),
        compared("random", **{"cls/Acc": 0.91, "cls/NLL": 0.2, "cplx/MACsRatio": 2.0}),
        compared("random", **{"cls/Acc": 0.93, "cls/NLL": None, "cplx/MACsRatio": 2.0}),
        compared("mimo", "scratch", **{"cls/Acc": 0.5}),
    ]
    text = printed(comparison_table(rows, {}))
    assert "net on [x]" in text
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if "random" in line)
    assert lines[start].replace("│", " ").split() == ["random", "92.00", "0.200", "–", "–", "–", "2.00", "2"]
    assert lines[start + 1].replace("│", " ").split() == ["±1.41", "±0.00"]
    assert line_of(text, "msp").replace("│", " ").split() == ["msp", "90.00", "0.250", "–", "–", "0.800", "–", "1"]
    below = lines[next(i for i, line in enumerate(lines) if "mimo" in line) + 1]
    assert "(from scratch)" in below
    assert text.count("from scratch") == 1


def test_what_is_missing_has_a_line_and_its_reason_below() -> None:
    text = printed(comparison_table([compared("msp", **{"cls/Acc": 0.9})], {"mimo": "needs [one] stem"}))
    assert line_of(text, "mimo").rstrip(" │").endswith(" 0")
    assert "(missing)" in text
    assert "mimo: needs [one] stem" in text


def test_a_method_that_lacks_a_seed_has_one_line() -> None:
    rows = [compared("msp", **{"cls/Acc": 0.9}), compared("random", **{"cls/Acc": 0.8})]
    text = printed(comparison_table(rows, {"random": "seed 1: nan"}, seeds=2))
    assert line_of(text, "random").rstrip().endswith(" 1 of 2")
    assert line_of(text, "msp").rstrip().endswith(" 1")
    assert "(missing)" not in text
    assert "random: seed 1: nan" in text


def test_a_comparison_in_which_nothing_could_be_run_is_a_table_too() -> None:
    assert "mimo: no stem" in printed(comparison_table([], {"mimo": "no stem"}))


def test_the_mean_over_sets_needs_all_of_them() -> None:
    figures = {"ood/a/AUROC/entropy": 0.5, "ood/b/AUROC/entropy": 0.7, "ood/a/AUROC/msp": 0.1}
    assert mean_of(figures, "ood/*/AUROC/entropy") == pytest.approx(0.6)
    assert mean_of({**figures, "ood/b/AUROC/entropy": None}, "ood/*/AUROC/entropy") is None
    assert mean_of({}, "cls/Acc") is None


def test_spreads_by_hand() -> None:
    assert spread([1.0, 2.0, None, 3.0], 2) == "2.00 ± 1.00"
    assert spread([0.5], 1, 100.0) == "50.0"
    assert spread([None], 3) == "–"


def cost(form: str, batch: int, median: float, **more: Any) -> dict[str, Any]:
    runtime = {"network": "net[0]", "device": "cpu: some processor of a long name, 2 threads", "dtype": "fp32"}
    figures = {
        "ratio_to_dense": 1.0,
        "ratio_to_pytorch": None,
        "images_per_s": 12345.6,
        "quartiles_ms": [99.9, 1234.4],
    }
    sizes = {"macs": 16_400_000_000, "parameters": 25_600_000, "file_bytes": None, "peak_bytes": 987_654_321}
    common = {"form": form, "batch": batch, "median_ms": median, "members": 1 if "dense" in form else 4}
    return {**runtime, **figures, **sizes, **common, **more}


def test_costs_fit_eighty_columns_and_the_fastest_ensemble_is_bold() -> None:
    rows = [
        cost("dense", 1, 0.1234),
        cost("sliced", 1, 2.5),
        cost("onnx_dense", 1, 1.5, file_bytes=102_400_000),
        cost("onnx", 1, 2.25, ratio_to_dense=0.996, file_bytes=380_000),
        cost("dense", 64, 6789.1),
    ]
    missing = [
        {"form": "pte", "batch": 1, "dtype": "fp32", "reason": "run: pip install 'x[edge]'"},
        {"form": "pte", "batch": 8, "dtype": "bf16", "reason": "not in bf16"},
    ]
    tables = bench_tables(rows, missing)
    assert len(tables) == 3
    console = Console(width=80, color_system="standard", force_terminal=True)
    with console.capture() as capture:
        console.print(*tables)
    text = capture.get()
    assert "…" not in text
    assert "batch 1, fp32, net[0] on cpu" in text
    assert f"{BOLD}onnx" in line_of(text, "2.25")
    assert BOLD not in line_of(text, "2.50")
    plain = [line.split() for line in Console(width=80).render_str(text).plain.splitlines()]
    assert ["onnx_dense", "1.50", "99.9–1234", "12346", "1.00", "–", "16400", "25.6", "102", "988"] in plain
    assert ["dense", "0.123"] in [words[:2] for words in plain]
    assert "0.38" in line_of(text, "2.25")
    assert text.index("pte: run: pip install 'x[edge]'") < text.index("batch 64, fp32")
    assert "pte: not in bf16" in text[text.index("batch 8, bf16") :]
