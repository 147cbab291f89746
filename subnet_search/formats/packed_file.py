"""A packed ensemble as a file: its operations and weights, without the code that made it."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import Dim

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.files import write_bytes
from subnet_search.formats.optional import quiet
from subnet_search.packed import Form, PackedEnsemble, PackingReport

METADATA = "packed.json"
"""The extra file inside that holds what is no tensor."""


def save_packed(packed: PackedEnsemble, path: str | Path) -> int:
    """Writes a packed ensemble, whole or not at all.

    Args:
        packed: The ensemble, not compiled.
        path: Target, replaced in one step.

    Returns:
        The size of the file in bytes.

    Raises:
        SubnetSearchError: where it has been compiled: what a compiler makes is good for one machine only; where
            `torch.export` cannot follow the form.
    """
    if packed.form.compiled:
        raise SubnetSearchError(f"{path}: a compiled form cannot be written; pack without compile")
    like = next(packed.parameters())
    dtype = torch.bfloat16 if packed.form.precision == "bf16" else like.dtype  # the first one may be a norm's
    example = torch.zeros(2, *packed.card.input_shape, dtype=dtype, device=like.device)
    described = {
        "form": asdict(packed.form),
        "report": {**asdict(packed.report), "timings_ms": dict(packed.report.timings_ms)},
        "members": packed.members,
        "card": packed.card.to_dict(),
        "macs": packed.macs(),
        "identity": {name: value for name, value in packed.identity().items() if name != "form"},
    }
    network = copy.deepcopy(packed.network)
    for tensor in (*network.parameters(), *network.buffers()):
        # the layout is in the form; a view of a larger memory would be written with all of it
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
            torch.export.save(program, buffer, extra_files={METADATA: json.dumps(described)})
    except Exception as error:  # torch.export does not follow every operation that is mapped over the members
        raise SubnetSearchError(
            f"{path}: the packed form {str(packed.form)!r} cannot be written: torch.export cannot follow it ({type(error).__name__}: {first_line(error)[:160]}); pack the ensemble as thin networks: PackConfig(shapes=('sliced',))"
        ) from error
    write_bytes(path, buffer.getvalue())
    return len(buffer.getvalue())


def load_packed(path: str | Path) -> PackedEnsemble:
    """Reads what `save_packed` wrote; no code of the network is imported, and no pickle is executed.

    PyTorch's reader evaluates the formulas of sizes in such a file, so that it is no safer than PyTorch makes it: take
    one from people whose code you would run. For others there is `load_ensemble`, and `pack`.

    Args:
        path: The file.

    Returns:
        The packed ensemble, on the CPU, with the measurements of the machine that packed it.

    Raises:
        SubnetSearchError: where the file is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise SubnetSearchError(f"{path}: found nothing, expected the file of a packed ensemble")
    extra: dict[str, Any] = {METADATA: ""}
    try:
        with quiet(), _tensors_only():
            program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
        described = json.loads(extra[METADATA])
        form, module = Form(**described["form"]), program.module()
        network = fx.GraphModule(module, module.graph)  # the module of a program refuses to be put into eval mode
        if form.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # PyTorch's stubs lack it
        return PackedEnsemble(
            network,
            form,
            PackingReport(**described["report"]),
            described["members"],
            Card.from_dict(described["card"], str(path)),
            described["macs"],
            described["identity"],
        )
    except Exception as error:  # a damaged archive fails in any way
        raise SubnetSearchError(
            f"{path}: cannot be read as a packed ensemble ({type(error).__name__}: {first_line(error)[:160]}); it is damaged or something else, export it again"
        ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """While open, `torch.load` unpickles nothing but tensors, whatever it is told: `torch.export.load` tells it to."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
