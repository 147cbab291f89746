"""The report of a comparison: what each method gives, for the same money, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from subnet_search.data import source_name
from subnet_search.evaluate.keys import OOD_AUROC
from subnet_search.plots import nll_cost, ood_cost, reliability, risk_coverage
from subnet_search.plots.curves import Curves, curves_of, mean_risk, pooled_bins
from subnet_search.plots.families import title_of
from subnet_search.plots.page import NARROW, WIDTH
from subnet_search.plots.summary import Method, Rows, by_method
from subnet_search.report.command import command_of, settings_of
from subnet_search.report.comparison_headline import comparison_headline
from subnet_search.report.judged_images import caution, judged_images
from subnet_search.report.page import Drawing, Page, Section, Table
from subnet_search.report.write import write_page
from subnet_search.tables import comparison_rows, mean_of, seeds_in_words

HIGHER = ("acc. %", "OOD")
"""Columns of the table in which higher is better."""


def write(
    path: Path, rows: Rows, curves: Curves, missing: Mapping[str, str], config: Any, passed: Sequence[str]
) -> Path:
    """Writes the report of a comparison; see `subnet_search.report.write_compare_report`."""
    methods = by_method(rows)
    lead, tiles = comparison_headline(methods, missing)
    first = rows[0]
    note = (
        f"The {' and the '.join(passed)} came from Python, and no command can name them: pass the same to subnet_search.compare."
        if passed
        else ""
    )
    page = Page(
        title=f"{first['backbone']} on {source_name(first['data'])}: {len(methods)} {'method' if len(methods) == 1 else 'methods'} compared",
        facts=[f"seeds {', '.join(map(str, sorted({row['seed'] for row in rows})))}", first["device"]],
        lead=lead + caution(judged_images(first)),
        tiles=tiles,
        sections=[
            _cost(rows, methods, missing, len(set(config.seeds))),
            _trust(rows, methods, curves, missing),
            *_missing(missing),
        ],
        command=command_of("compare", config),
        command_note=note,
        settings=settings_of(config),
        versions={"commit": first["commit"] or "not from a checkout", "device": first["device"], **first["versions"]},
    )
    return write_page(page, path)


def _cost(rows: Rows, methods: Sequence[Method], missing: Mapping[str, str], seeds: int) -> Section:
    """What each method gives for its multiplications."""
    drawings = []
    for name, key, draw, title, words in (
        (
            "nll-cost",
            "cls/NLL",
            nll_cost,
            "Who believes most in the right answer, for the cost?",
            "Lower is better, and further left is cheaper.",
        ),
        (
            "ood-cost",
            OOD_AUROC,
            ood_cost,
            "Who tells foreign images apart, for the cost?",
            "Higher is better, and further left is cheaper.",
        ),
    ):
        both = [draw(rows, missing, width=width) for width in (WIDTH, NARROW)]
        data = [
            {
                "method": row["method"],
                "seed": row["seed"],
                "macs_ratio": row["metrics"].get("cplx/MACsRatio"),
                key: mean_of(row["metrics"], key),
            }
            for row in rows
        ]
        said = [(m.title, m.spread(lambda metrics, key=key: mean_of(metrics, key))) for m in methods]  # type: ignore[misc]  # mypy cannot infer a default
        alt = "; ".join(f"{title_} {spread.mean:.3f}" for title_, spread in said if spread is not None)
        drawings += _drawing(
            both, name, title, f"{words} No method on the grey line is beaten in both by another.", alt, data
        )
    return Section(
        "cost",
        "What does each method give, for which cost?",
        f"All methods saw the same images and are measured on the same {judged_images(rows[0])}; the cost is that of a prediction.",
        drawings,
        [_table(rows, missing, seeds)],
    )


def _table(rows: Rows, missing: Mapping[str, str], seeds: int) -> Table:
    found = comparison_rows(rows)
    heads = list(found[0][2])
    cells = [
        [
            f"{title_of(name)}{' (from scratch)' if scratch else ''}",
            *own.values(),
            seeds_in_words(n, seeds if name in missing else None),
        ]
        for name, scratch, own, n in found
    ]
    best = set()
    for column, head in enumerate(heads[:-1], start=1):  # of the cost, the last, the lowest is no merit
        known = {k: float(row[column].split(" ")[0]) for k, row in enumerate(cells) if row[column] != "–"}
        top = (max if head in HIGHER else min)(known.values(), default=None)
        equal = len(set(known.values())) < 2
        best |= {(k, column) for k, value in known.items() if value == top and not equal}
    caption = (
        "Mean ± standard deviation over the seeds (n); the best of each column is bold. OOD: AUROC by entropy, mean of all "
        "sets. MACs: relative to the dense network."
    )
    return Table(caption, ["method", *heads, "n"], cells, frozenset(best), "methods")


def _trust(rows: Rows, methods: Sequence[Method], curves: Curves, missing: Mapping[str, str]) -> Section:
    """Reliability and selective prediction of all methods."""
    own = {method.name: found for method in methods if (found := curves_of(method, curves))}
    bins = [
        {
            "method": name,
            "from": k / len(count),
            "images": count[k],
            "confidence": confidence[k],
            "accuracy": accuracy[k],
        }
        for name, lines in own.items()
        for count, confidence, accuracy in [pooled_bins(lines)]
        for k in range(len(count))
        if count[k]
    ]
    risks = [
        {"method": name, "coverage": c, "risk": r}
        for name, lines in own.items()
        for c, r in zip(*mean_risk(lines), strict=True)
    ]
    errors = [(m.title, m.spread(lambda metrics: metrics.get("cal/ECE"))) for m in methods]
    areas = [(m.title, m.spread(lambda metrics: metrics.get("sc/AURC"))) for m in methods]
    drawings = [
        *_drawing(
            [reliability(rows, curves, missing, width) for width in (WIDTH, NARROW)],
            "reliability",
            "Is a method right as often as it says?",
            "Dots on the dashed line are honest; below it a method is too sure of itself.",
            "ECE: " + "; ".join(f"{title} {spread.mean:.3f}" for title, spread in errors if spread is not None),
            bins,
        ),
        *_drawing(
            [risk_coverage(rows, curves, missing, width) for width in (WIDTH, NARROW)],
            "risk-coverage",
            "What is refusing worth?",
            "The least certain images are refused first, from the right to the left; lower is better.",
            "AURC: " + "; ".join(f"{title} {spread.mean:.4f}" for title, spread in areas if spread is not None),
            risks,
        ),
    ]
    words = "Whether a method that says 80 % is right in 80 % of the cases, and errs where it is uncertain."
    none = [] if drawings else ["No curves were kept, so nothing is drawn here."]
    return Section("trust", "Can their confidence be relied upon?", words, drawings, missing=none)


def _drawing(
    both: Sequence[Figure | None], name: str, title: str, words: str, alt: str, data: Sequence[Mapping[str, Any]]
) -> list[Drawing]:
    """A figure in both widths; none where there is nothing to draw."""
    wide, narrow = both
    return [] if wide is None else [Drawing(name, title, words, f"{title} {alt}.", wide, data, narrow)]


def _missing(missing: Mapping[str, str]) -> list[Section]:
    """What could not be run, and why."""
    if not missing:
        return []
    table = Table(
        "Methods and seeds without a row",
        ["method", "reason"],
        [[name, reason] for name, reason in missing.items()],
        prose=True,
    )
    return [Section("missing", "What is missing, and why?", tables=[table])]
