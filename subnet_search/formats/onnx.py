"""One ONNX file that classifies images and says how far it can be trusted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes
from subnet_search.formats.agreement import BATCHES, TOLERANCE, Written, check_answers
from subnet_search.formats.deployable import INPUT, OUTPUTS, Deployable, InputKind
from subnet_search.formats.description import describe
from subnet_search.formats.optional import quiet, require
from subnet_search.formats.pt2 import trace

LARGEST = 2**31 - 2**24
"""Bytes of weights that still fit into one file: protobuf ends at 2 GiB, and the graph needs some of it."""


def export_onnx(
    network: nn.Module,
    card: Card,
    path: str | Path,
    *,
    input_kind: InputKind = "uint8",
    refuse: Mapping[str, float] | None = None,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Written:
    """Writes an ONNX file with a batch of any size, after onnxruntime has been seen to answer as PyTorch does.

    A packed form makes the smallest and fastest file. The outputs are those of `OUTPUTS`, in float32; the metadata of
    the model are those of `describe`.

    Args:
        network: Prepared input → logits `[member, batch, class]`; it stays as it was.
        card: What the network expects and means.
        path: Target, replaced in one step. Weights of more than 2 GiB go into a second file, `path` with `.data`
            behind it.
        input_kind: What the file takes in: `uint8` (0..255), `float` (in [0, 1]) or `normalised`.
        refuse: Output → limit beyond which an image is to be refused (`evaluate.limits`), to be written into the file.
        images: Raw images to check the file with; None takes random ones.
        tolerance: Largest difference from PyTorch that is let pass, as in `check_answers`.

    Returns:
        What was written, and how much it differs.

    Raises:
        SubnetSearchError: where onnx, onnxscript or onnxruntime are missing (extra `onnx`), the network cannot be
            written down, or the file's answers differ from PyTorch's.
    """
    runtime = require("onnxruntime", "onnx")
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    path = Path(path)
    deployable = Deployable(network, card, input_kind)
    program = _translate(deployable)
    program.model.metadata_props.update(describe(network, deployable, refuse=refuse))
    weights = sum(tensor.nbytes for tensor in deployable.state_dict().values())
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        program.save(made, external_data=weights > LARGEST)
        run = _runner(runtime, made)
        difference = check_answers(
            network, deployable, run, path=path, batches=BATCHES, images=images, tolerance=tolerance
        )
        return Written(path, move_files(Path(folder), path), difference, BATCHES)


def move_files(folder: Path, path: Path) -> int:
    """Puts the files of a folder, the one of the target's name and what it refers to, in the target's folder.

    Args:
        folder: Where they are.
        path: Target, replaced in one step, after the files that it refers to.

    Returns:
        Bytes of all files.
    """
    files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    for file in files:
        write_bytes(path.parent / file.name, file.read_bytes())
    return sum(file.stat().st_size for file in files)


def _translate(deployable: Deployable) -> Any:
    exported = trace(deployable)
    try:
        with quiet():
            # the shapes are those of the program; here they only give the axis its name
            return torch.onnx.export(
                exported,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: "batch"},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises of every kind
        raise SubnetSearchError(
            f"the network cannot be written as ONNX ({type(error).__name__}: {error}); pack the ensemble first, or see which operation has no counterpart"
        ) from error


def _runner(runtime: Any, path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    """Returns what runs the file: images → outputs."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(output) for output in session.run(list(OUTPUTS), {INPUT: images.numpy()})]

    return run
