"""How long an ensemble takes in each form, against one pass of the dense network: measured in turns, in one run.

    python -m benchmarks.latency
    python -m benchmarks.latency --networks resnet50 --kept 0.5 --threads 1 --dtypes fp32
    python -m benchmarks.latency --packing

Weights are random, as they do not change the time; every group of channels is thinned. The forms of a row:

- `dense`: the network as it is, in the faster layout of memory; `dense_packed`: the same with its norms folded, by the
  code that packs ensembles, so that one can tell what folding alone gains.
- `official`: one pass of the dense network over K copies of the batch, with the layers of the masksembles package behind
  the sites. `masked`: ours as it is trained.
- `sliced`, `grouped`: the fastest variant of each, and `packed`: what `pack` chooses among all.

Rows go to `results/latency.jsonl`: median and quartiles of the turns, and the ratio to `dense` of the same turns.
`--packing` measures time and peak memory of packing ResNet-50 with 8 members instead.
"""

from __future__ import annotations

import copy
import resource
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from masksembles.torch import Masksembles1D, Masksembles2D
from torch import Tensor, nn

from benchmarks import rows
from benchmarks.resnet50 import ResNet50
from subnet_search.backbones import Card
from subnet_search.backbones.resnet import resnet20
from subnet_search.ensemble import MemberMask, MemberNorm, SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet, full_masks
from subnet_search.packed import PackConfig, pack
from subnet_search.packed.timing import interleaved_ms
from subnet_search.provenance import current_commit, device_name, library_versions

Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Grid:
    """The cells.

    Attributes:
        networks: `resnet20` (32 × 32 images) and `resnet50`.
        kept: Shares of the channels that each member keeps in every group.
        batches: Batch sizes.
        threads: Numbers of threads of the CPU.
        dtypes: `fp32` and `bf16`, the latter with weights and activations in bfloat16.
        members: Number of members K.
        image: Side of the images of `resnet50`, whose dense cost is 4.1 GMAC at 224 and 1.05 GMAC at 112.
        seconds: Measuring time of a cell; every form takes at least three turns.
        device: `cpu` or `cuda`.
        compile: Lets `torch.compile` try the packed form.
        divide: Divides the widths of `resnet50`; for quick checks only, whose rows go nowhere.
        packing: Measures packing instead.
    """

    networks: tuple[str, ...] = ("resnet20", "resnet50")
    kept: tuple[float, ...] = (0.5, 0.25)
    batches: tuple[int, ...] = (1, 64)
    threads: tuple[int, ...] = (1, 2)
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16")
    members: int = 4
    image: int = 112
    seconds: float = 60.0
    device: str = "cpu"
    compile: bool = False
    divide: int = 1
    packing: bool = False


class Official(nn.Module):
    """The dense network with the layers of the masksembles package: K copies of the batch in one pass."""

    def __init__(self, network: nn.Module, ensemble: SubnetEnsemble) -> None:
        super().__init__()
        self.members, self.network = ensemble.members, copy.deepcopy(network)
        for name, module in ensemble.network.named_modules():
            if isinstance(module, MemberNorm | MemberMask) and not module.mask.all():
                site = self.network.get_submodule(name)
                kind = Masksembles1D if isinstance(site, nn.Linear | nn.BatchNorm1d) else Masksembles2D
                layer = kind(16, self.members, 2.0)  # any masks: they are replaced by ours
                layer.channels, layer.masks = module.mask.shape[1], module.mask.float()
                self.network.set_submodule(name, nn.Sequential(site, layer))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits `[member, batch, class]`."""
        logits: Tensor = self.network(x.repeat(self.members, 1, 1, 1))
        return logits.unflatten(0, (self.members, -1))


class Converting(nn.Module):
    """A network that gets its input in another type and layout of memory."""

    def __init__(self, network: nn.Module, dtype: Dtype, channels_last: bool) -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = copy.deepcopy(network).eval()
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(self.dtype)
                if tensor.ndim == 4:
                    tensor.data = tensor.data.contiguous(memory_format=self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the network returns."""
        out: Tensor = self.network(x.to(self.dtype, memory_format=self.layout))
        return out


def network(name: str, grid: Grid) -> tuple[nn.Module, Card]:
    """Returns a network with random weights and its card."""
    torch.manual_seed(0)
    if name == "resnet20":
        return resnet20().eval(), Card(name, (3, 32, 32), tuple(map(str, range(10))))
    made = ResNet50(divide=grid.divide).eval()
    return made, Card(name, (3, grid.image, grid.image), tuple(map(str, range(1000))))


def masks(graph: GroupGraph, members: int, kept: float) -> MaskSet:
    """Returns masks in which each channel is kept as often as any other: disjoint where members * kept is 1."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, width in graph.widths.items():
        order, quota = torch.randperm(width, generator=generator), max(1, round(width * kept))
        starts = [k * width // members if kept * members <= 1 else k * quota for k in range(members)]
        found[name] = torch.zeros(members, width, dtype=torch.bool)
        for k, start in enumerate(starts):
            found[name][k, order[torch.arange(start, start + quota) % width]] = True
    return MaskSet(found, "balanced")


def forms(
    model: nn.Module, ensemble: SubnetEnsemble, example: Tensor, dtype: Dtype, grid: Grid
) -> dict[str, nn.Module]:
    """Returns every form of an ensemble, ready to be measured."""
    config = PackConfig(precision=dtype)
    whole = SubnetEnsemble(model, ensemble.graph, full_masks(ensemble.graph.widths, 1), ensemble.card).eval()
    found: dict[str, nn.Module] = {}
    for last, layout in ((False, "contiguous"), (True, "channels_last")):
        found[f"dense {layout}"] = Converting(model, dtype, last)
        found[f"official {layout}"] = Converting(Official(model, ensemble), dtype, last)
        found[f"masked {layout}"] = Converting(ensemble, dtype, last)
    found["dense_packed"] = pack(whole, example, replace(config, shapes=("sliced",)))
    found["sliced"] = pack(ensemble, example, replace(config, shapes=("sliced",)))
    found["grouped"] = pack(ensemble, example, replace(config, shapes=("grouped",)))
    found["packed"] = pack(ensemble, example, replace(config, compile=grid.compile))
    return found


def measure(name: str, kept: float, batch: int, threads: int, dtype: Dtype, grid: Grid) -> list[dict[str, Any]]:
    """Returns the rows of one cell."""
    torch.set_num_threads(threads)
    model, card = network(name, grid)
    generator = torch.Generator().manual_seed(1)
    example = torch.randn(batch, *card.input_shape, generator=generator)
    graph = find_groups(model, example[:2])
    ensemble = SubnetEnsemble(model, graph, masks(graph, grid.members, kept), card).eval().to(grid.device)
    model, example = model.to(grid.device), example.to(grid.device)
    candidates = forms(model, ensemble, example, dtype, grid)
    times = interleaved_ms(candidates, example, grid.seconds, hopeless=float("inf"), least=3)
    for form in ("dense", "official", "masked"):  # the better layout of memory of each, as `pack` chooses it too
        pair = {layout: times.pop(f"{form} {layout}") for layout in ("contiguous", "channels_last")}
        times = {form: min(pair.values(), key=statistics.median)} | times
    found = []
    for form, values in times.items():
        ratios = [value / dense for value, dense in zip(values, times["dense"], strict=True)]
        alone = form.startswith("dense")
        found.append(
            {
                "network": name,
                "form": form,
                "kept": 1.0 if alone else kept,
                "members": 1 if alone else grid.members,
                "batch": batch,
                "threads": threads,
                "dtype": dtype,
                "median_ms": statistics.median(values),
                "quartiles_ms": statistics.quantiles(values, n=4)[::2],
                "turns": len(values),
                "ratio_to_dense": statistics.median(ratios),
                "macs_ratio": 1.0 if alone else work(form, ensemble),
                "variant": str(candidates[form].form) if form in candidates else None,
                "image": card.input_shape[-1],
                **origin(grid),
            }
        )
    return found


def work(form: str, ensemble: SubnetEnsemble) -> float:
    """Returns the multiply-accumulates of a form / those of the dense network."""
    return float(ensemble.members) if form in ("official", "masked") else ensemble.macs() / ensemble.graph.dense_macs


def measure_packing(grid: Grid) -> dict[str, Any]:
    """Returns a row with time and peak memory of packing ResNet-50, half width, 8 members, in a process of its own."""
    members, kept = 8, 0.5
    torch.set_num_threads(grid.threads[0])
    model, card = network("resnet50", grid)
    example = torch.randn(1, *card.input_shape, generator=torch.Generator().manual_seed(1))
    graph = find_groups(model, example)
    ensemble = SubnetEnsemble(model, graph, masks(graph, members, kept), card).eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    packed = pack(ensemble, example)
    return {
        "network": "resnet50",
        "form": "packing",
        "kept": kept,
        "members": members,
        "batch": 1,
        "threads": grid.threads[0],
        "dtype": "fp32",
        "seconds": time.perf_counter() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of the process, on Linux
        "peak_mb_before": before / 1024,
        "difference": packed.report.difference,
        "variant": str(packed.form),
        "image": card.input_shape[-1],
        **origin(grid),
    }


def origin(grid: Grid) -> dict[str, Any]:
    """Returns where a row comes from."""
    return {"device": device_name(grid.device), "versions": library_versions(), "commit": current_commit()}


def main(grid: Grid) -> None:
    """Measures the cells and appends their rows."""
    if grid.packing:
        keep(measure_packing(grid), grid)
        return
    for name in grid.networks:
        for kept in grid.kept:
            for dtype in grid.dtypes:
                for threads in grid.threads:
                    for batch in grid.batches:
                        for row in measure(name, kept, batch, threads, dtype, grid):
                            keep(row, grid)


def keep(row: dict[str, Any], grid: Grid) -> None:
    """Prints a row, and appends it unless its network was made smaller for a check."""
    if grid.divide == 1:
        rows.append("latency", row)
    print({key: value for key, value in row.items() if key not in ("versions", "commit", "device")}, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Grid, description=__doc__))
