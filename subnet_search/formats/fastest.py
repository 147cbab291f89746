"""The file that runs fastest: only its runtime can tell how it likes the members to be put together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.agreement import Written
from subnet_search.formats.deployable import Deployable, InputKind
from subnet_search.formats.onnx import move_files
from subnet_search.packed import PackConfig, PackedEnsemble, pack
from subnet_search.packed.packed_ensemble import Shape
from subnet_search.packed.timing import interleaved_ms, medians

SECONDS = 2.0
"""For measuring all files of an ensemble."""


@dataclass(frozen=True)
class Fastest:
    """A file that was chosen among several.

    Attributes:
        written: What its writer says of it.
        form: How the members are put together in it (`Form.shape`).
        timings_ms: The same of every file → median milliseconds a batch in its runtime, the fastest first.
        unavailable: The same of what could not be written → why.
    """

    written: Written
    form: str
    timings_ms: dict[str, float]
    unavailable: dict[str, str]


def export_fastest(
    ensemble: SubnetEnsemble,
    images: Tensor,
    path: str | Path,
    write: Callable[[PackedEnsemble, Path], Written],
    load: Callable[[Path, int], nn.Module],
    *,
    batch: int = 1,
    input_kind: InputKind = "uint8",
) -> Fastest:
    """Writes the ensemble in every way in which its members can be put together, and keeps the file that runs fastest here.

    Args:
        ensemble: The ensemble, on the CPU; it is not changed.
        images: Raw images `[image, ...]` to time the files with.
        path: Target, replaced in one step, after the files that it refers to.
        write: Writes a packed ensemble to a path, in a folder of its own, and checks it.
        load: Makes a file, with a number of threads, something that runs.
        batch: Number of images in the batch that is timed.
        input_kind: What the file takes in.

    Returns:
        What was written.

    Raises:
        SubnetSearchError: where no file can be written, and why.
    """
    path = Path(path)
    chosen = images[torch.arange(batch) % len(images)]
    written: dict[str, Written] = {}
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for shape in get_args(Shape):
            file = Path(folder) / shape / path.name
            try:
                packed = pack(ensemble, ensemble.card.prepare(chosen), PackConfig((shape,), seconds=0.0))
                written[shape] = write(packed, file)
            except SubnetSearchError as error:
                faults[shape] = str(error).replace(str(file), str(path))
        if not written:
            raise SubnetSearchError("; ".join(dict.fromkeys(faults.values())))
        running = {shape: load(file.path, torch.get_num_threads()) for shape, file in written.items()}
        given = Deployable(ensemble, ensemble.card, input_kind).of_raw(chosen)
        times = medians(interleaved_ms(running, given, SECONDS))
        best = next(iter(times))
        move_files(written[best].path.parent, path)
    return Fastest(replace(written[best], path=path), best, times, faults)
