"""How long an ensemble takes in each form, against one pass of the dense network: measured in turns, in one run.

    python -m benchmarks.latency
    python -m benchmarks.latency --networks resnet50 --masks half --threads 1 --precision fp32
    python -m benchmarks.latency --packing

What is measured is what `subnet-search bench` measures: the median and the quartiles of the turns, and the ratio to the
dense network in the same turns. `packed` is the faster of `sliced` and `grouped`. Weights are random, as they do not
change the time. Run it on a machine that does nothing else. The rows of a batch size and precision go to
`results/latency.jsonl` as soon as they are measured, and what has rows is not measured again. `--packing` measures time
and peak memory of packing ResNet-50 with 8 members instead.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from torch import nn

from benchmarks import rows
from benchmarks.markdown import markdown_table
from benchmarks.resnet50 import ResNet50
from subnet_search.backbones import Card
from subnet_search.backbones.resnet import resnet20
from subnet_search.bench import FORMS, BenchConfig, BenchResult, bench
from subnet_search.bench.forms import BASELINES, FormName, runtime_of
from subnet_search.bench.torch_forms import Dtype
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.packed import pack
from subnet_search.provenance import current_commit, device_name, library_versions
from subnet_search.search import BudgetConfig, SearchConfig, search_masks
from subnet_search.settings import RunConfig
from subnet_search.stages import allocate, common_groups, settled

Masks = Literal[
    "half",
    "quarter",
    "run 1.0",
    "run 2.0",
    "trunk 1.0",
    "thin 1.0",
    "budget 1.0",
    "budget 2.0",
    "budget 1.0 of 4",
    "budget 1.0 of 8",
]


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        networks: `resnet20` (32 × 32 images) and `resnet50`.
        masks: `half` of all groups, disjoint `quarter`s of all groups, what a `run` takes by itself at a budget (the
            inner channels first, behind a deep trunk), the same with a `trunk` of 70 % or without one at a `budget`, and
            with a trunk of 70 % of which 70 % of the inner channels are kept (`thin`); `of 4` and `of 8` with widths
            that are multiples of that. Balanced and random each time.
        batch: Numbers of images in a batch.
        threads: Numbers of threads of the CPU.
        precision: `fp32` and `bf16`; files are in fp32.
        members: Number of members K.
        image: Side of the images of `resnet50`, whose dense cost is 4.1 GMAC at 224 and 1.05 GMAC at 112.
        seconds: Measuring time of each batch and precision; every form takes at least three turns.
        forms: Which forms of `subnet-search bench`; those that are compiled are asked for by name.
        device: `cpu` or `cuda`.
        packing: Measures packing instead.
        again: Measures cells that have rows already, too; of several rows the last counts.
    """

    networks: tuple[str, ...] = ("resnet20", "resnet50")
    masks: tuple[Masks, ...] = (
        "half",
        "quarter",
        "run 1.0",
        "trunk 1.0",
        "thin 1.0",
        "budget 1.0",
        "budget 1.0 of 4",
        "budget 1.0 of 8",
    )
    batch: tuple[int, ...] = (1, 64)
    threads: tuple[int, ...] = (1, 2)
    precision: tuple[Dtype, ...] = ("fp32", "bf16")
    members: int = 4
    image: int = 112
    seconds: float = 30.0
    forms: tuple[FormName, ...] = FORMS
    device: str = "cpu"
    packing: bool = False
    again: bool = False


def network(name: str, image: int) -> tuple[nn.Module, Card]:
    """Returns a network with random weights and its card."""
    torch.manual_seed(0)
    if name == "resnet20":
        return resnet20().eval(), Card(name, (3, 32, 32), tuple(map(str, range(10))))
    return ResNet50().eval(), Card(name, (3, image, image), tuple(map(str, range(1000))))


def settings(kind: Masks, graph: GroupGraph, members: int) -> RunConfig:
    """Returns the settings of a run that takes masks of a kind; those that keep a quarter are disjoint with four members."""
    kept = {"half": 0.5, "quarter": 0.25}.get(kind)
    ensemble = EnsembleConfig()
    if kept is not None:
        budget = BudgetConfig(None, keep=kept, spread="uniform")
    else:
        by, share, *rest = kind.split()
        ensemble = {"run": EnsembleConfig(head=None, trunk=None), "budget": ensemble}.get(by, EnsembleConfig(trunk=0.7))
        keep = {"run": None, "thin": 0.7}.get(by, 1.0)
        budget = BudgetConfig(float(share), multiple_of=int(rest[-1]) if rest else 1, trunk_keep=keep)
    asked = RunConfig(members=members, budget=budget, search=SearchConfig("random"), ensemble=ensemble)
    return settled(asked, graph)


def ensemble_of(name: str, kind: Masks, members: int, image: int) -> tuple[SubnetEnsemble, nn.Module]:
    """Returns an ensemble and the network that it was made from."""
    model, card = network(name, image)
    graph = find_groups(model, torch.randn(2, *card.input_shape, generator=torch.Generator().manual_seed(1)))
    config = settings(kind, graph, members)
    quotas, _ = allocate(graph, config)
    common = common_groups(graph, quotas, config)
    masks = search_masks(None, graph.widths, quotas, config.search, common=common)
    return SubnetEnsemble(model, graph, masks, card, config.ensemble).eval(), model


def measure(name: str, kind: Masks, threads: int, grid: Grid, progress: Progress) -> None:
    """Measures what has no rows yet, and appends the rows of each batch and precision as soon as they are measured."""
    missing = {
        dtype: [b for b in grid.batch if grid.again or not _done(name, kind, threads, b, dtype, grid)]
        for dtype in grid.precision
    }
    if not any(missing.values()):
        return
    progress.console.print(f"{name}, {kind}, {threads} threads")
    ensemble, model = ensemble_of(name, kind, grid.members, grid.image)
    for dtype, batch in missing.items():
        if batch:
            written = 0

            def keep(result: BenchResult) -> None:
                nonlocal written
                new = result.rows[written:]
                written = len(result.rows)
                for row in [*new, *_packed(new)]:
                    rows.append("latency", {**row, "masks": kind, "image": ensemble.card.input_shape[-1]})

            config = BenchConfig(tuple(batch), (dtype,), threads, grid.device, grid.forms, grid.seconds)
            result = bench(ensemble, model, config, progress, keep)
            for line in result.missing:
                progress.console.print(f"{line['form']}, batch {line['batch']}, {dtype}: {line['reason']}")


def _packed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The faster of `sliced` and `grouped` in one batch and precision (`pack` tries further ones); none where none was measured."""
    pair = [row for row in found if row["form"] in ("sliced", "grouped")]
    best = min(pair, key=lambda row: row["median_ms"], default=None)
    return [{**best, "form": "packed"}] if best else []  # its variant names the form


def measure_packing(grid: Grid) -> dict[str, Any]:
    """Returns a row with time and peak memory of packing ResNet-50, half width, 8 members; run it in a fresh process."""
    torch.set_num_threads(grid.threads[-1])
    ensemble, _ = ensemble_of("resnet50", "half", 8, grid.image)
    example = torch.randn(1, *ensemble.card.input_shape, generator=torch.Generator().manual_seed(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    packed = pack(ensemble, example)
    return {
        "network": "resnet50",
        "form": "packing",
        "masks": "half",
        "kept": 0.5,
        "members": 8,
        "batch": 1,
        "threads": grid.threads[-1],
        "dtype": "fp32",
        "seconds": time.perf_counter() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of the process, on Linux
        "peak_mb_before": before / 1024,
        "difference": packed.report.difference,
        "variant": str(packed.form),
        "image": ensemble.card.input_shape[-1],
        "device": device_name(torch.device(grid.device)),
        "versions": library_versions(),
        "commit": current_commit(),
    }


def table() -> str:
    """Ratios to the dense network in the same runtime (and, in brackets, to that in PyTorch), and milliseconds."""
    forms = ("official", "masked", "sliced", "grouped", "packed", "compiled", "onnx", "pte")
    cells: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows.read("latency"):
        if row["form"] != "packing":
            key = (
                row["network"],
                row["masks"],
                row["dtype"],
                row["threads"],
                row["batch"],
                row["device"].partition(",")[0],
            )
            cells[key][row["form"]] = row
    titles = ("network", "masks", "dtype", "threads", "batch", "dense ms", *forms, "device")
    lines: list[list[str]] = []
    for cell, found in sorted(cells.items()):
        *about, device = map(str, cell)
        dense = f"{found['dense']['median_ms']:.3g}" if "dense" in found else "–"
        lines.append([*about, dense, *(_ratio(found.get(form)) for form in forms), device])
    return markdown_table(titles, lines)


def packing_table() -> str:
    """Time and memory of packing."""
    titles = ("network", "members", "image", "seconds", "peak GB", "difference", "form")
    lines: list[list[str]] = []
    for row in rows.read("latency"):
        if row["form"] == "packing":
            figures = (f"{row['seconds']:.1f}", f"{row['peak_mb'] / 1024:.2f}", f"{row['difference']:.1e}")
            lines.append([row["network"], str(row["members"]), str(row["image"]), *figures, row["variant"]])
    return markdown_table(titles, lines)


def _ratio(row: Mapping[str, Any] | None) -> str:
    if row is None or row["ratio_to_dense"] is None:
        return "–"
    same = f"{row['ratio_to_dense']:.2f}"
    return same if row["runtime"] == "pytorch" else f"{same} ({row['ratio_to_pytorch']:.2f})"


def _done(name: str, kind: Masks, threads: int, batch: int, dtype: Dtype, grid: Grid) -> bool:
    """Whether the cell was measured on this kind of device: the dense networks have rows where a form may have none."""
    here = device_name(torch.device(grid.device)).partition(",")[0]
    possible = {form for form in grid.forms if dtype == "fp32" or runtime_of(form) in ("pytorch", "inductor")}
    alone = possible & {BASELINES["pytorch"], BASELINES["inductor"]}
    found = {
        row["form"]
        for row in rows.read("latency")
        if (row["network"], row["masks"], row["threads"], row["batch"], row["dtype"])
        == (name, kind, threads, batch, dtype)
        and row["device"].partition(",")[0] == here
    }
    return (alone or possible) <= found


def main(grid: Grid) -> None:
    """Measures the cells that have no rows yet."""
    if grid.packing:
        row = measure_packing(grid)
        rows.append("latency", row)
        print({key: value for key, value in row.items() if key not in ("versions", "commit", "device")})
        return
    with Progress(console=Console()) as progress:
        for name, kind, threads in product(grid.networks, grid.masks, grid.threads):
            measure(name, kind, threads, grid, progress)


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
