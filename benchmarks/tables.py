"""The tables of the benchmarks' pages and the figures in folders of `results`, made from the rows; a test checks the tables.

python -m benchmarks.tables
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import lab, latency, rows, singe, trade_off, train_resnet, tune, tune_speed
from benchmarks.compare import FROM_BACKBONE, FROM_SCRATCH
from benchmarks.main_job import measured, ood_table
from benchmarks.markdown import markdown_table
from subnet_search.compare import settings_digest
from subnet_search.files import write_text
from subnet_search.plots import draw_comparison
from subnet_search.tables import mean_of, spread

PAGES = (Path(__file__).parent / "README.md", Path(__file__).parent / "search" / "README.md")

FIGURES = (
    ("Acc %", "cls/Acc", 100, 2),
    ("NLL", "cls/NLL", 1, 3),
    ("ECE", "cal/ECE", 1, 3),
    ("NLL ts", "cls/NLL_TS", 1, 3),
    ("AURC", "sc/AURC", 1, 4),
    ("member %", "ens/MemberAcc", 100, 2),
    ("err. corr.", "ens/ErrCorr", 1, 2),
    ("IoU", "ens/IoU", 1, 2),
    ("C100", "ood/cifar100/AUROC/entropy", 1, 3),
    ("SVHN", "ood/svhn/AUROC/entropy", 1, 3),
    ("Tiny", "ood/tinyimagenet/AUROC/entropy", 1, 3),
    ("MACs", "cplx/MACsRatio", 1, 2),
)


COMPARED = (
    ("Acc %", "cls/Acc", 100, 2),
    ("NLL", "cls/NLL", 1, 3),
    ("ECE", "cal/ECE", 1, 3),
    ("NLL ts", "cls/NLL_TS", 1, 3),
    ("AURC", "sc/AURC", 1, 4),
    ("err. corr.", "ens/ErrCorr", 1, 2),
    ("C100", "ood/cifar100/AUROC/entropy", 1, 3),
    ("Tiny", "ood/tinyimagenet/AUROC/entropy", 1, 3),
    ("SVHN", "ood/svhn/AUROC/entropy", 1, 3),
    ("MNIST", "ood/mnist-test/AUROC/entropy", 1, 3),
    ("shift Acc %", "shift/*/*/Acc", 100, 1),
    ("shift NLL", "shift/*/*/NLL", 1, 2),
    ("human", "aleatoric/Spearman", 1, 3),
    ("MACs", "cplx/MACsRatio", 1, 2),
    ("k params", "cplx/Params", 0.001, 0),
)


def main_job() -> str:
    """The search beside its controls: mean ± standard deviation over seeds, n in the last column."""
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in measured():
        cells[(row["backbone"], row["budget"] or 0.0, row["epochs"] or 0, row["method"])].append(row["metrics"])
    titles = ["network", "budget", "epochs", "masks", *(title for title, *_ in FIGURES), "n"]
    lines: list[list[str]] = []
    for (backbone, budget, epochs, method), metrics in sorted(cells.items(), key=lambda item: item[0]):
        if method == "dense":
            metrics = metrics[:1]  # the same network for every seed
        figures = [spread([m[key] for m in metrics], digits, scale) for _, key, scale, digits in FIGURES]
        asked = ["–", "–"] if method == "dense" else [str(budget), str(epochs)]
        lines.append([backbone, *asked, method, *figures, str(len(metrics))])
    return markdown_table(titles, lines)


def relevance() -> str:
    """The criteria without training, in the order in which they are chosen from."""
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows.read("relevance"):
        config = row["settings"]["relevance"]
        path = config["path"] if config["criterion"] in ("ig", "singe") else "–"
        loss = "labels" if config["labels"] else "dense network"
        power = f"{config['power']:g}" if config["criterion"] == "ig" else "–"
        cells[(config["criterion"], path, power, loss)].append(row)
    titles = [
        "criterion",
        "path",
        "p",
        "loss",
        "chosen on %",
        "test %",
        "NLL",
        "seconds",
        "completeness",
        "per image",
        "n",
    ]
    lines: list[list[str]] = []
    ordered = sorted(cells.items(), key=lambda item: statistics.mean(row["validation"]["Acc"] for row in item[1]))
    for key, found in ordered:
        figures = [
            spread([row["validation"]["Acc"] for row in found], 1, 100),
            spread([row["test"]["Acc"] for row in found], 1, 100),
            spread([row["test"]["NLL"] for row in found], 2, 1),
            spread([row["seconds"] for row in found], 1, 1),
            spread([row["completeness"] for row in found], 4, 1),
            spread([row["completeness_image"] for row in found], 3, 1),
        ]
        lines.append([*key, *figures, str(len(found))])
    return markdown_table(titles, lines)


def throughput() -> str:
    """Fine-tuning and relevance against bare loops over the same work."""
    titles = ["what", "ours", "bare loop", "unit", "ours / bare", "device"]
    lines: list[list[str]] = []
    for row in rows.read("throughput"):
        figures = [f"{row['ours']:.1f}", f"{row['bare']:.1f}", row["unit"], f"{row['ours'] / row['bare']:.2f}"]
        lines.append([row["what"], *figures, row["device"]])
    return markdown_table(titles, lines)


def compare() -> str:
    """Every system, those that start from the backbone first; and below the table what is missing from it."""
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows.read("compare"):
        start = row["settings"]["origin"]
        cells[(row["backbone"], start, row["epochs"] or 0, row["budget"] or 0.0, row["method"])].append(row)
    titles = ["network", "start", "epochs", "method", *(title for title, *_ in COMPARED), "ms", "samples", "n"]
    lines: list[list[str]] = []
    best = sorted(
        cells.items(), key=lambda item: (item[0][:3], statistics.mean(r["metrics"]["cls/NLL"] for r in item[1]))
    )
    for (backbone, start, epochs, _, method), found in best:
        figures = [
            spread([mean_of(r["metrics"], key) for r in found], digits, scale) for _, key, scale, digits in COMPARED
        ]
        seen = "–" if found[0]["samples_seen"] is None else f"{found[0]['samples_seen'] / 1000:.0f} k"
        # a mean would be that of what else the machine did
        ms = statistics.median(r["metrics"]["cplx/LatencyMs"] for r in found)
        lines.append([backbone, start, str(epochs or "–"), method, *figures, f"{ms:.0f}", seen, str(len(found))])
    seeds = {method: len(found) for (*_, method), found in cells.items()}
    short = [
        f"{method} ({seeds.get(method, 0)})"
        for method in (*FROM_BACKBONE, *FROM_SCRATCH)
        if seeds.get(method, 0) < _wanted(method)
    ]
    return "\n".join(
        [markdown_table(titles, lines), "", f"Missing, with the seeds there are of 3: {', '.join(short) or 'nothing'}."]
    )


def choice() -> str:
    """What settings of single systems come to on the validation images."""
    titles = ["method", "dropout", "depth_drop", "input repetition", "epochs", "Acc %", "NLL", "ECE", "n"]
    lines: list[list[str]] = []
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows.read("compare_choice"):
        own = row["settings"]["baselines"]
        cells[(row["method"], own["dropout"], own["depth_drop"], own["input_repetition"], row["epochs"])].append(row)
    for key, found in sorted(cells.items()):
        figures = [
            spread([row["metrics"][name] for row in found], digits, scale)
            for name, digits, scale in (("cls/Acc", 2, 100), ("cls/NLL", 3, 1), ("cal/ECE", 3, 1))
        ]
        lines.append([*map(str, key), *figures, str(len(found))])
    return markdown_table(titles, lines)


def _wanted(method: str) -> int:
    return 1 if method == "msp" else 3


TABLES = {
    "latency": latency.table,
    "packing": latency.packing_table,
    "compare": compare,
    "choice": choice,
    "singe": singe.table,
    "singe_published": singe.published,
    "main_job": main_job,
    "ood": ood_table,
    "train_resnet": train_resnet.table,
    "relevance": relevance,
    "throughput": throughput,
    "lab": lab.table,
    "tune": tune.table,
    "tune_confirm": tune.confirm_table,
    "tune_speed": tune_speed.table,
}


def rendered(text: str) -> str:
    """Returns the README with every table between its markers made anew."""
    for name, table in TABLES.items():
        # the markers are matched with it: what is empty between them would be found twice, the second time up to another end
        between = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        made = table().replace("\\", r"\\")
        text = between.sub(rf"\g<1>{made}\n\g<2>", text)
    return text


def draw() -> None:
    """Draws what the rows of `compare`, `tune` and `lab` show, each into the folder of its name in `results`."""
    found = rows.read("compare")
    longest = max((row["epochs"] or 0 for row in found), default=0)
    chosen = [row for row in found if row["epochs"] in (None, longest)]
    if chosen:
        digests = {settings_digest(row) for row in chosen}
        curves = [line for line in rows.read("compare_curves") if line["settings"] in digests]
        draw_comparison(chosen, curves, rows.RESULTS / "compare")
    tune.draw()
    trade_off.draw()


if __name__ == "__main__":
    for page in PAGES:
        write_text(page, rendered(page.read_text()))
    draw()
