"""PyTorch's own exported program: runs without this package and without the code that made the network."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.files import write_bytes
from subnet_search.formats.agreement import BATCHES, TOLERANCE, Written, check_answers
from subnet_search.formats.deployable import Deployable, InputKind
from subnet_search.formats.description import describe
from subnet_search.formats.optional import quiet

METADATA = "metadata.json"
"""The extra file inside the `.pt2` that holds what `describe` returns."""


def export_pt2(
    network: nn.Module,
    card: Card,
    path: str | Path,
    *,
    input_kind: InputKind = "uint8",
    refuse: Mapping[str, float] | None = None,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Written:
    """Writes a `.pt2` with a batch of any size, after it has been loaded again and seen to answer as PyTorch does.

    `torch.export.load(path).module()(images)` gives the tensors of `OUTPUTS`, in that order.

    Args:
        network: Prepared input → logits `[member, batch, class]`; it stays as it was.
        card: What the network expects and means.
        path: Target, replaced in one step.
        input_kind: What the file takes in: `uint8` (0..255), `float` (in [0, 1]) or `normalised`.
        refuse: Output → limit beyond which an image is to be refused (`evaluate.limits`), to be written into the file.
        images: Raw images to check the file with; None takes random ones.
        tolerance: Largest difference from PyTorch that is let pass, as in `check_answers`.

    Returns:
        What was written, and how much it differs.

    Raises:
        SubnetSearchError: where `torch.export` cannot follow the network's code, or the file's answers differ.
    """
    path = Path(path)
    deployable = Deployable(network, card, input_kind)
    buffer = io.BytesIO()
    with quiet():
        described = {METADATA: json.dumps(describe(network, deployable, refuse=refuse))}
        torch.export.save(trace(deployable), buffer, extra_files=described)
        reloaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    @torch.no_grad()
    def run(images: Tensor) -> Sequence[Tensor]:
        return reloaded(images)  # type: ignore[no-any-return]

    difference = check_answers(network, deployable, run, path=path, batches=BATCHES, images=images, tolerance=tolerance)
    write_bytes(path, buffer.getvalue())
    return Written(path, len(buffer.getvalue()), difference, BATCHES)


def trace(deployable: Deployable, batch: int | None = None) -> ExportedProgram:
    """Writes down what a network computes.

    Args:
        deployable: The network.
        batch: Batch size of the program; None for any.

    Returns:
        The program.

    Raises:
        SubnetSearchError: where `torch.export` cannot follow the network's code.
    """
    shapes = None if batch else ({0: Dim("batch", min=1)},)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                deployable, (deployable.example(batch or 2),), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # whatever a user's forward makes of symbolic shapes
        raise SubnetSearchError(
            f"the network cannot be exported: torch.export cannot follow its code ({type(error).__name__}: {first_line(error)}); expected a forward pass that takes any batch size and does not branch on values"
        ) from error
