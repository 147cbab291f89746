"""Measures what an ensemble costs in each of its forms, all in turns and so under the same load."""

from __future__ import annotations

import copy
import importlib.metadata
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from rich.progress import Progress
from torch import Tensor, nn

from subnet_search.bench.forms import BASELINES, FormName, Forms, runtime_of
from subnet_search.bench.memory import peak_memory
from subnet_search.bench.torch_forms import Dtype
from subnet_search.bench.variant import Variant
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.files import write_json
from subnet_search.masks import MaskSet
from subnet_search.packed.timing import interleaved_ms, quartiles
from subnet_search.provenance import current_commit, device_name, library_versions

ALL_FORMS: tuple[FormName, ...] = get_args(FormName)
FORMS = tuple(form for form in ALL_FORMS if runtime_of(form) != "inductor")
LEAST, MOST = 3, 200
"""Turns of each form, at least and at most."""
PAUSE = 0.005
"""Seconds before each pass where several runtimes have threads of their own."""
RUNTIMES = ("onnxruntime", "executorch", "masksembles")
"""Packages whose versions are told beside those of `library_versions`."""


@dataclass(frozen=True)
class BenchConfig:
    """What is measured.

    Attributes:
        batch: Numbers of images in a batch.
        precision: `fp32` and `bf16`, the latter with weights and activations in bfloat16. Files are in fp32.
        threads: Threads of the CPU, in every runtime; None takes as many as PyTorch does.
        device: Where PyTorch runs, such as `cpu` or `cuda`; files are run on the CPU only.
        forms: Some of `dense`; `official` (K repeated passes, with the layers of the package masksembles); `masked`
            (as it is trained); `sliced` and `grouped` (packed, the latter as it is or `merged`); `onnx` and `pte` (packed,
            in onnxruntime and ExecuTorch); `compiled` (packed, by `torch.compile`, which needs a C++ compiler and takes
            its time); with the dense network in the same runtime as `onnx_dense`, `pte_dense` and `compiled_dense`.
            Default: all that is not compiled.
        seconds: Measuring time of each batch and precision; every form takes at least three turns.

    Raises:
        SubnetSearchError: where one of them is something else.
    """

    batch: tuple[int, ...] = (1, 64)
    precision: tuple[Dtype, ...] = ("fp32",)
    threads: int | None = None
    device: str = "cpu"
    forms: tuple[FormName, ...] = FORMS
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if not self.batch or min(self.batch) < 1:
            raise SubnetSearchError(f"batch is {self.batch}, expected positive numbers of images")
        if self.threads is not None and self.threads < 1:
            raise SubnetSearchError(f"threads is {self.threads}, expected at least 1")
        if not self.seconds >= 0:
            raise SubnetSearchError(f"seconds is {self.seconds}, expected at least 0")
        for label, values, known in (("forms", self.forms, ALL_FORMS), ("precision", self.precision, get_args(Dtype))):
            if not values or not set(values) <= set(known):
                raise SubnetSearchError(f"{label} is {values}, expected some of {', '.join(known)}")


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        rows: One for each batch, precision and form: plain JSON values. `ratio_to_dense` is to the dense network in
            the same runtime, `ratio_to_pytorch` to the one in PyTorch, both medians over the turns; null where that one
            was not measured. `macs` counts what is computed for one image, padding included. `peak_bytes` is the
            memory of weights and one pass (see `peak_memory`), null for ExecuTorch and compiled code.
        missing: What has no row: `form`, `batch`, `dtype` and `reason`.
    """

    rows: list[dict[str, Any]]
    missing: list[dict[str, Any]]


def bench(
    ensemble: SubnetEnsemble,
    network: nn.Module,
    config: BenchConfig | None = None,
    progress: Progress | None = None,
    measured: Callable[[BenchResult], None] | None = None,
) -> BenchResult:
    """Measures latency, throughput, work and memory of every form. A form that cannot be built is told, with the reason.

    Args:
        ensemble: The ensemble; it stays as it is.
        network: A network of the architecture that it was made from, with any weights: latency does not depend on them.
        config: What to measure.
        progress: Bar to report to.
        measured: Called after each batch and precision with all that there is so far, to keep it.

    Returns:
        Rows and reasons.

    Raises:
        SubnetSearchError: where the device is not there.
    """
    config = config or BenchConfig()
    device = _device(config.device)
    ensemble = copy.deepcopy(ensemble).cpu().float().eval()
    network = copy.deepcopy(network).cpu().float().eval()
    threads = torch.get_num_threads()
    cells = [(batch, dtype) for dtype in dict.fromkeys(config.precision) for batch in dict.fromkeys(config.batch)]
    names = tuple(dict.fromkeys(config.forms))
    task = progress.add_task("measuring", total=len(cells) * (len(names) + 1)) if progress else None
    result = BenchResult([], [])

    def advance(words: str) -> None:
        if progress and task is not None:
            progress.update(task, advance=1, description=words)

    torch.set_num_threads(config.threads or threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            forms = Forms(ensemble, network, device, Path(folder), min(2.0, config.seconds))
            for batch, dtype in cells:
                if any(runtime_of(form) == "inductor" for form in names):
                    torch.compiler.reset()  # after a number of compilations of the same code, it compiles no more
                images = torch.rand(batch, *ensemble.card.input_shape, generator=torch.Generator().manual_seed(0))
                example = ensemble.card.prepare(images)
                built: dict[FormName, list[Variant]] = {}
                for form in names:
                    try:
                        built[form] = forms.build(form, example, dtype)
                        for variant in built[form]:
                            _try(variant, example.to(device))
                    except Exception as error:  # of whatever kind: the other forms are still worth knowing
                        built.pop(form, None)
                        reason = str(error) if isinstance(error, SubnetSearchError) else _reason(error)
                        result.missing.append({"form": form, "batch": batch, "dtype": dtype, "reason": reason})
                    advance(f"built {form}, batch {batch}, {dtype}")
                if built:
                    about = {"batch": batch, "threads": torch.get_num_threads(), "dtype": dtype, **_origin(device)}
                    result.rows.extend(_measure(built, example.to(device), ensemble, about, config.seconds))
                advance(f"measured batch {batch}, {dtype}")
                if measured:
                    measured(result)
    finally:
        torch.set_num_threads(threads)
    return result


def write_bench(result: BenchResult, path: str | Path) -> None:
    """Writes a result as JSON: an object with the keys `rows` and `missing`.

    Args:
        result: What was measured.
        path: Target, replaced in one step.

    Raises:
        SubnetSearchError: where the file cannot be written.
    """
    try:
        write_json(path, {"rows": result.rows, "missing": result.missing})
    except OSError as error:
        raise SubnetSearchError(f"{path} cannot be written ({error}); choose another --out") from error


def _measure(
    built: Mapping[FormName, list[Variant]],
    example: Tensor,
    ensemble: SubnetEnsemble,
    about: Mapping[str, Any],
    seconds: float,
) -> list[dict[str, Any]]:
    """One row for each form: its fastest variant."""
    everything = {f"{form}: {v.label}": v.network for form, variants in built.items() for v in variants}
    mixed = len({runtime_of(form) for form in built}) > 1
    pause = PAUSE if mixed and torch.get_num_threads() > 1 else 0.0
    times = interleaved_ms(everything, example, seconds, float("inf"), LEAST, MOST, pause)
    chosen = {
        form: min(variants, key=lambda v, form=form: statistics.median(times[f"{form}: {v.label}"]))  # type: ignore[misc]  # mypy cannot infer a default
        for form, variants in built.items()
    }
    turns = {form: times[f"{form}: {variant.label}"] for form, variant in chosen.items()}
    rows = []
    for form, variant in chosen.items():
        runtime, alone = runtime_of(form), form in BASELINES.values()
        median = statistics.median(turns[form])
        rows.append(
            {
                "network": ensemble.card.name,
                "form": form,
                "variant": variant.label,
                "runtime": runtime,
                "kept": 1.0 if alone else _kept(ensemble.masks),
                "members": 1 if alone else ensemble.members,
                "median_ms": median,
                "quartiles_ms": list(quartiles(turns[form])),
                "turns": len(turns[form]),
                "images_per_s": 1000.0 * len(example) / median,
                "ratio_to_dense": _ratio(turns[form], turns.get(BASELINES[runtime])),
                "ratio_to_pytorch": _ratio(turns[form], turns.get("dense")),
                "macs": variant.work.macs,
                "macs_ratio": variant.work.macs / ensemble.graph.dense_macs,
                "parameters": variant.work.parameters,
                "file_bytes": variant.file_bytes,
                # programs of ExecuTorch share one working memory in a process: what one of them needs cannot be told;
                # nor can what compiled code needs, which would be compiled anew to be looked at
                "peak_bytes": None if runtime in ("executorch", "inductor") else peak_memory(variant.network, example),
                **about,
            }
        )
    return rows


def _ratio(turns: list[float], baseline: list[float] | None) -> float | None:
    """Median of the ratios within each turn, in which both were under the same load."""
    return None if baseline is None else statistics.median(a / b for a, b in zip(turns, baseline, strict=True))


def _kept(masks: MaskSet) -> float:
    """Share of the channels of all groups that a member keeps, on average."""
    kept = [int(mask.sum()) for mask in masks.masks.values()]
    return sum(kept) / sum(mask.numel() for mask in masks.masks.values())


@torch.no_grad()
def _try(variant: Variant, example: Tensor) -> None:
    variant.network(example)


def _reason(error: Exception) -> str:
    return f"it does not run: {type(error).__name__}: {first_line(error)}"


def _origin(device: torch.device) -> dict[str, Any]:
    versions = library_versions()
    for name in RUNTIMES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": device_name(device), "versions": versions, "commit": current_commit()}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # PyTorch raises all of them for what is absent
        raise SubnetSearchError(
            f"device {name!r} cannot be used ({first_line(error)}); expected one that is there, such as cpu or cuda"
        ) from error
    return device
