"""What the command line prints: figures side by side, and what can be searched in a network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from subnet_search.data import source_name
from subnet_search.evaluate.keys import OOD_AUROC
from subnet_search.groups import GroupGraph

_ROWS = (
    ("accuracy", "cls/Acc", "higher"),
    ("NLL", "cls/NLL", "lower"),
    ("NLL, temperature scaled", "cls/NLL_TS", "lower"),
    ("Brier", "cls/Brier", "lower"),
    ("ECE", "cal/ECE", "lower"),
    ("ECE, temperature scaled", "cal/ECE_TS", "lower"),
    ("AURC", "sc/AURC", "lower"),
    ("error detection, AUROC", "sc/ErrAUROC", "higher"),
    ("mean accuracy of a member", "ens/MemberAcc", "higher"),
    ("disagreement", "ens/Disagreement", ""),
    ("error correlation", "ens/ErrCorr", "lower"),
    ("mask IoU", "ens/IoU", "lower"),
    ("MACs / dense", "cplx/MACsRatio", "lower"),
    ("parameters", "cplx/Params", "lower"),
    ("latency, ms a batch, masked", "cplx/LatencyMs", "lower"),
)

_COLUMNS = (
    ("acc. %", "cls/Acc", 2, 100.0),
    ("NLL", "cls/NLL", 3, 1.0),
    ("ECE", "cal/ECE", 3, 1.0),
    ("AURC", "sc/AURC", 4, 1.0),
    ("OOD", OOD_AUROC, 3, 1.0),
    ("MACs", "cplx/MACsRatio", 2, 1.0),
)


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Lays the dense network and the ensemble side by side, the better figure in bold.

    Args:
        metrics: `{"dense": row, "ensemble": row}` as in `metrics.json`.
    """
    title = escape(f"{metrics['dense']['backbone']} on {source_name(metrics['dense']['data'])}")
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    for column in ("dense", f"ensemble of {metrics['ensemble']['members']}"):
        table.add_column(column, justify="right")
    for title, values, best in metrics_rows(metrics):
        cells = (f"[bold]{in_words(value)}" if k == best else in_words(value) for k, value in enumerate(values))
        table.add_row(escape(title), *cells)
    return table


def metrics_rows(
    metrics: Mapping[str, Any],
) -> list[tuple[str, tuple[float | None, float | None], int | None]]:
    """Lists the figures of the dense network and the ensemble.

    Args:
        metrics: `{"dense": row, "ensemble": row}` as in `metrics.json`.

    Returns:
        Name, the figures of both, and which is better, 0 or 1; None where neither is. What both lack is not there.
    """
    dense, ensemble = metrics["dense"]["metrics"], metrics["ensemble"]["metrics"]
    ood = [(_ood_title(key), key, "higher") for key in dense if key.startswith("ood/") and "/AUROC/" in key]
    found: list[tuple[str, tuple[float | None, float | None], int | None]] = []
    for title, key, better in (*_ROWS, *ood):
        first, second = dense.get(key), ensemble.get(key)
        if first is None and second is None:
            continue
        best = None
        if better and first is not None and second is not None and first != second:
            best = int((second > first) == (better == "higher"))
        found.append((title, (first, second), best))
    return found


def comparison_table(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str], seeds: int | None = None) -> Table:
    """Lays the methods of a comparison below each other, mean ± standard deviation over the seeds.

    OOD is the AUROC by entropy, the mean of all sets; MACs are relative to the dense network.

    Args:
        rows: Result rows of one comparison.
        missing: Method → why it, or a seed of it, has no row; a method without any row gets a line of its own, and the
            reasons stand below.
        seeds: How many seeds were asked for; it is said of methods that lack some of them.
    """
    title = escape(f"{rows[0]['backbone']} on {source_name(rows[0]['data'])}") if rows else None
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # 80 columns are not much
    table.add_column("method", no_wrap=True)
    for title, *_ in _COLUMNS:
        table.add_column(escape(title), justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    found = comparison_rows(rows)
    for method, scratch, cells, number in found:
        name = f"{method}\n[dim](from scratch)" if scratch else method
        trained = seeds_in_words(number, seeds if method in missing else None)
        table.add_row(name, *(cell.replace(" ± ", "\n±") for cell in cells.values()), trained)
    for method in without_row(rows, missing):
        table.add_row(f"[yellow]{escape(method)}\n(missing)", *[""] * len(_COLUMNS), "0")
    if missing:
        table.caption = "\n".join(f"{escape(method)}: {escape(reason)}" for method, reason in missing.items())
        table.caption_justify = "left"
    return table


def comparison_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool, dict[str, str], int]]:
    """Lists the methods of a comparison.

    Args:
        rows: Result rows of one comparison.

    Returns:
        Name, whether it was trained from scratch, its figures in words by the head of their column, mean ± standard
        deviation over the seeds, and the number of seeds.
    """
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = {
            head: spread([mean_of(row["metrics"], key) for row in own], digits, scale)
            for head, key, digits, scale in _COLUMNS
        }
        found.append((method, own[0]["settings"].get("origin") == "scratch", cells, len(own)))
    return found


def without_row(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> list[str]:
    """Lists the missing methods of which no seed at all has a row."""
    return [method for method in missing if method not in {row["method"] for row in rows}]


def seeds_in_words(number: int, asked: int | None) -> str:
    """Writes of how many seeds a figure is: `2`, or `1 of 2` where it is known that some are missing."""
    return str(number) if asked is None else f"{number} of {asked}"


def bench_tables(rows: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Lays the forms of an ensemble below each other, one table for each batch size and precision.

    `/dense` is the latency over that of the dense network in the same runtime, `/torch` over that in PyTorch, M a
    million. The fastest form of the whole ensemble is bold.

    Args:
        rows: What was measured, as in `BenchResult`.
        missing: What was not, and why; the reasons stand below.
    """
    tables = []
    for batch, dtype in dict.fromkeys((row["batch"], row["dtype"]) for row in (*rows, *missing)):
        own = [row for row in rows if (row["batch"], row["dtype"]) == (batch, dtype)]
        about = f", {own[0]['network']} on {own[0]['device']}" if own else ""
        table = Table(title=escape(f"batch {batch}, {dtype}{about}"), title_justify="left", box=SIMPLE_HEAD)
        table.padding = (0, 1, 0, 0)  # 80 columns are not much
        table.add_column("form", no_wrap=True)
        for title in ("ms", "quartiles", "img/s", "/dense", "/torch", "M MACs", "M par.", "MB file", "MB peak"):
            table.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)
        fastest = min((row["median_ms"] for row in own if row["members"] > 1), default=None)
        for row in own:
            lower, upper = map(_three_digits, row["quartiles_ms"])
            sizes = [row[key] for key in ("macs", "parameters", "file_bytes", "peak_bytes")]
            others = [row["ratio_to_dense"], row["ratio_to_pytorch"], *(size and size / 1e6 for size in sizes)]
            median = _three_digits(row["median_ms"])
            bold = "[bold]" if row["members"] > 1 and row["median_ms"] == fastest else ""
            table.add_row(
                f"{bold}{row['form']}",
                f"{bold}{median}",
                f"{lower}–{upper}",
                _three_digits(row["images_per_s"]),
                *("–" if value is None else _three_digits(value, 2) for value in others),
            )
        reasons = {(m["form"], m["reason"]): None for m in missing if (m["batch"], m["dtype"]) == (batch, dtype)}
        if reasons:
            table.caption = "\n".join(escape(f"{form}: {reason}") for form, reason in reasons)
            table.caption_justify = "left"
        tables.append(table)
    return tables


def mean_of(metrics: Mapping[str, float | None], pattern: str) -> float | None:
    """Returns the mean of all figures whose names fit a pattern, such as `ood/*/AUROC/entropy`; None where one is null."""
    values = [value for key, value in metrics.items() if fnmatchcase(key, pattern)]
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known and len(known) == len(values) else None


def spread(values: Sequence[float | None], digits: int, scale: float = 1.0) -> str:
    """Returns `mean ± standard deviation` of what is known, the mean alone of one value, and a dash of none."""
    known = [value * scale for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def groups_table(graph: GroupGraph) -> Table:
    """Lists what is searchable in a network, and what is not and why."""
    table = Table(title=f"{graph.dense_macs / 1e6:,.1f} M multiply-accumulates a sample", title_justify="left")
    for column, side in (("group", "left"), ("kind", "left"), ("channels", "right"), ("masked at", "left")):
        table.add_column(column, justify=side)  # type: ignore[arg-type] # rich wants its own Literal
    for group in graph.groups:
        sites = ", ".join(site.module for site in group.sites)
        table.add_row(escape(group.name), group.kind, str(group.width), escape(sites))
    for whole in graph.left_whole:
        table.add_row(
            f"[dim]{escape(whole.name)}", "[yellow]left whole", str(whole.width), f"[dim]{escape(whole.reason)}"
        )
    return table


def _ood_title(key: str) -> str:
    _, name, _, criterion = key.split("/")
    words = {"msp": "max probability", "mi": "mutual information", "energy": "free energy"}
    return f"OOD {name}, AUROC by {words.get(criterion, criterion)}"


def in_words(value: float | None) -> str:
    """Writes a figure: whole numbers whole, small ones with four decimals, and a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def _three_digits(value: float, decimals: int = 3) -> str:
    """The value with three digits or all of those before the point, and no more decimals than given."""
    digits = next((digits for limit, digits in ((1, 3), (10, 2), (100, 1)) if abs(value) < limit), 0)
    return f"{value:.{min(digits, decimals)}f}"
