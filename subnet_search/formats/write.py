"""Writes an ensemble in the forms that other programs run or read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data import batches, evenly
from subnet_search.device import Precision
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes, write_json
from subnet_search.formats.agreement import Written
from subnet_search.formats.deployable import OUTPUTS, InputKind
from subnet_search.formats.fastest import export_fastest
from subnet_search.formats.mask_file import save_masks
from subnet_search.formats.masksembles import to_masksembles
from subnet_search.formats.member_file import save_member
from subnet_search.formats.onnx import export_onnx
from subnet_search.formats.packed_file import save_packed
from subnet_search.formats.pt2 import export_pt2
from subnet_search.formats.pte import export_pte
from subnet_search.formats.runtimes import OnnxNetwork, PteNetwork
from subnet_search.packed import PackConfig, PackedEnsemble, pack

Format = Literal["packed", "onnx", "pt2", "pte", "masksembles", "member"]
FORMATS: tuple[Format, ...] = get_args(Format)
DESCRIBED = ("onnx", "pt2", "pte")
"""Forms that tell what their outputs are."""
REPORT = "report.json"
"""What is there in which form, and what was measured, in the folder of the files."""


@dataclass(frozen=True)
class FormatsConfig:
    """In which forms the ensemble is exported, beside the folder that this package loads.

    Attributes:
        formats: `packed` (the fastest form on this machine, for PyTorch), `onnx` (the fastest in onnxruntime), `pt2`
            (torch.export), `pte` (ExecuTorch with XNNPACK, the fastest there for one image), `masksembles` (weights for
            the official layers, and the masks as `.npz`), `member` (each member as a plain pruned network).
        input_kind: What the files take in: `uint8` (0..255), `float` (in [0, 1]) or `normalised` images.
        int8: Whether the `.pte` computes in eight-bit integers, calibrated on training images; what that costs is
            measured on the validation images.
        pack_batch: Images in the batch for which the fastest form is looked for.

    Raises:
        SubnetSearchError: where one of them is something else.
    """

    formats: tuple[Format, ...] = ()
    input_kind: InputKind = "uint8"
    int8: bool = False
    pack_batch: int = 1

    def __post_init__(self) -> None:
        if not set(self.formats) <= set(FORMATS):
            raise SubnetSearchError(f"formats are {self.formats}, expected some of {', '.join(FORMATS)}")
        if self.input_kind not in get_args(InputKind):
            raise SubnetSearchError(f"input_kind is {self.input_kind!r}, expected one of {get_args(InputKind)}")
        if self.pack_batch < 1:
            raise SubnetSearchError(f"pack_batch is {self.pack_batch}, expected at least 1")


def write_formats(
    ensemble: SubnetEnsemble,
    folder: str | Path,
    config: FormatsConfig,
    images: Dataset[Any],
    labelled: Dataset[Any] | None = None,
    progress: Progress | None = None,
    refuse: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Writes the files one after the other, each whole or not at all, after it was checked against the ensemble.

    What was written is kept in `report.json` in the folder, after each format. Files that are there, of this ensemble and
    with these settings, are not made again, so that an interrupted call goes on where it was. A form that cannot be
    written keeps no other one from being written.

    Args:
        ensemble: The ensemble; it is not changed.
        folder: Where the files go; those of the same names are replaced.
        config: Which files.
        images: Raw training images: the files are checked on some of them, and eight-bit integers calibrated.
        labelled: Labelled images on which the cost of eight-bit integers is measured.
        progress: Bar to report to.
        refuse: Output → limit beyond which an image is to be refused (`evaluate.limits`), for the descriptions in the files.

    Returns:
        Format → plain JSON values: the names of the files, their bytes, and what was measured; of all formats in the
        folder.

    Raises:
        SubnetSearchError: in the end, with all forms that could not be written and why: where a package is missing (the
            message names the extra), or a file would not answer as the ensemble does. All others are there.
    """
    folder = Path(folder)
    ensemble = ensemble.select(range(ensemble.members)).cpu().eval()
    sample, _ = next(iter(batches(images, 64, evenly(images, 64))))
    example = ensemble.card.prepare(sample[torch.arange(config.pack_batch) % len(sample)])
    checked: dict[str, Any] = {"input_kind": config.input_kind, "images": sample, "refuse": refuse}
    quantised: dict[str, Any] = {"calibration": images, "labelled": labelled} if config.int8 else {}

    @cache
    def packed(precision: Precision) -> PackedEnsemble:
        return pack(ensemble, example, PackConfig(precision=precision))

    def fastest(
        export: Callable[..., Written], load: Callable[..., nn.Module], name: str, batch: int, **more: Any
    ) -> dict[str, Any]:
        def write(packed: PackedEnsemble, path: Path) -> Written:
            return export(packed, ensemble.card, path, **checked, **more)

        found = export_fastest(ensemble, sample, folder / name, write, load, batch=batch, input_kind=config.input_kind)
        return {
            **_report(found.written),
            "form": found.form,
            "timings_ms": found.timings_ms,
            "unavailable": found.unavailable,
        }

    writers: Mapping[Format, Callable[[], dict[str, Any]]] = {
        "packed": lambda: _packed(packed("auto"), folder),
        "onnx": lambda: fastest(export_onnx, OnnxNetwork, "ensemble.onnx", config.pack_batch),
        "pt2": lambda: _report(export_pt2(packed("fp32"), ensemble.card, folder / "ensemble.pt2", **checked)),
        "pte": lambda: fastest(export_pte, PteNetwork, "ensemble.pte", 1, **quantised),
        "masksembles": lambda: _official(ensemble, folder),
        "member": lambda: _members(ensemble, folder),
    }
    report = _read_report(folder)
    source = {**asdict(config), "formats": None, "ensemble": _digest(ensemble)}
    told = {"outputs": list(OUTPUTS), "refuse": dict(refuse or {})}
    failed: dict[str, SubnetSearchError] = {}
    task = progress.add_task("exporting", total=len(config.formats)) if progress else None
    for name in config.formats:
        if progress and task is not None:
            progress.update(task, description=f"exporting {name}")
        done = report.get(name, {})
        made_of = {**source, **told} if name in DESCRIBED else source
        if done.get("made_of") != made_of or not all((folder / file).exists() for file in done["files"]):
            try:
                report[name] = {**writers[name](), "made_of": made_of}
                write_json(folder / REPORT, report)
            except SubnetSearchError as problem:
                failed[name] = problem
        if progress and task is not None:
            progress.advance(task)
    if failed:
        raise _unwritten(failed, folder, len(failed) < len(set(config.formats)))
    return report


def _unwritten(failed: Mapping[str, SubnetSearchError], folder: Path, others: bool) -> SubnetSearchError:
    """One error of those of single formats."""
    reasons = "".join(f"\n{name}: {problem}" for name, problem in failed.items())
    kept = f", the others are in {folder}" if others else ""
    return SubnetSearchError(f"formats that could not be written: {', '.join(failed)}{kept}{reasons}")


def _read_report(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / REPORT
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise SubnetSearchError(f"{path} is no JSON ({error}); delete it, and the formats are written again") from error
    return found


def _digest(ensemble: SubnetEnsemble) -> str:
    """SHA-256 of weights, statistics and masks."""
    state = {name: value.detach().contiguous().clone() for name, value in ensemble.state_dict().items()}
    return hashlib.sha256(save(state)).hexdigest()


def _packed(packed: PackedEnsemble, folder: Path) -> dict[str, Any]:
    size = save_packed(packed, folder / "packed.pt2")
    return {"files": ["packed.pt2"], "bytes": size, "form": str(packed.form), **asdict(packed.report)}


def _official(ensemble: SubnetEnsemble, folder: Path) -> dict[str, Any]:
    state: dict[str, Tensor] = to_masksembles(ensemble).state_dict()
    content = save({name: value.detach().contiguous().clone() for name, value in state.items()})
    write_bytes(folder / "masksembles.safetensors", content)
    save_masks(ensemble.masks, folder / "masks.npz")
    files = ["masksembles.safetensors", "masks.npz"]
    return {"files": files, "bytes": sum((folder / name).stat().st_size for name in files)}


def _members(ensemble: SubnetEnsemble, folder: Path) -> dict[str, Any]:
    files = [f"member-{k}.safetensors" for k in range(ensemble.members)]
    return {"files": files, "bytes": sum(save_member(ensemble, k, folder / name) for k, name in enumerate(files))}


def _report(written: Written) -> dict[str, Any]:
    """What a writer says, as plain values."""
    found = asdict(written)
    return {"files": [found.pop("path").name], **found}
