"""ExecuTorch programs: for phones and boards, with XNNPACK for what it can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils.data import Dataset

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.evaluate import limits, predict_dataset
from subnet_search.files import write_bytes
from subnet_search.formats.agreement import TOLERANCE, Written, check_answers
from subnet_search.formats.deployable import Deployable, InputKind
from subnet_search.formats.description import describe
from subnet_search.formats.optional import quiet, require
from subnet_search.formats.pt2 import trace
from subnet_search.formats.quantise import QuantisationCost, measure_cost, quantise

TOLERANCE_INT8 = 0.1
"""The same as `TOLERANCE` between a quantised file and its simulation in PyTorch: a number that XNNPACK rounds to the
next integer shifts all that follow, which moved probabilities by up to 0.02 and by 0.0005 on average."""


@dataclass(frozen=True)
class WrittenPte(Written):
    """An ExecuTorch program that was written.

    Attributes:
        delegates: Number of parts that XNNPACK runs.
        outside: Operator → how often it runs outside XNNPACK, in ExecuTorch's portable kernels.
        int8: What the quantisation costs; None where the file is in float32 or no labelled set was given.
    """

    delegates: int
    outside: Mapping[str, int]
    int8: QuantisationCost | None = None


def export_pte(
    network: nn.Module,
    card: Card,
    path: str | Path,
    *,
    batch: int = 1,
    input_kind: InputKind = "uint8",
    refuse: Mapping[str, float] | None = None,
    calibration: Dataset[Any] | None = None,
    labelled: Dataset[Any] | None = None,
    images: Tensor | None = None,
    tolerance: float | None = None,
) -> WrittenPte:
    """Writes a `.pte` for one batch size, after ExecuTorch's runtime has been seen to answer as PyTorch does.

    The program's method `forward` gives the tensors of `OUTPUTS`, in that order; its other methods take nothing and
    give the texts of `describe`. Lowering takes about half a second for each layer, of each member in the sliced form.

    Args:
        network: Prepared input → logits `[member, batch, class]`; it stays as it was.
        card: What the network expects and means.
        path: Target, replaced in one step.
        batch: Images a call.
        input_kind: What the file takes in: `uint8` (0..255), `float` (in [0, 1]) or `normalised`.
        refuse: Output → limit beyond which an image is to be refused (`evaluate.limits`), to be written into the file. A
            quantised file has its own limits of these, found on the labelled set, and none without it.
        calibration: Images for the quantisation to eight-bit integers; None writes float32.
        labelled: Labelled set on which the cost of the quantisation is measured; None measures none.
        images: Raw images to check the file with; None takes random ones.
        tolerance: Largest difference from PyTorch that is let pass, as in `check_answers`: for a quantised file from its simulation.
            None takes `TOLERANCE` or `TOLERANCE_INT8`.

    Returns:
        What was written, how much it differs, and which operators XNNPACK leaves to others.

    Raises:
        SubnetSearchError: where executorch is missing (extra `edge`), the network cannot be written down or quantised, or
            the file does not run or its answers differ from PyTorch's.
    """
    runtime = require("executorch.runtime", "edge")
    path = Path(path)
    if batch < 1:
        raise SubnetSearchError(f"{path}: got a batch of {batch} images, expected at least 1")
    if labelled is not None and calibration is None:
        raise SubnetSearchError(f"{path}: a labelled set measures the cost of int8, which needs calibration images too")
    exported = Deployable(network, card, input_kind)
    meant = network
    if calibration is not None:
        exported = quantise(exported, calibration, batch=batch)
        meant = exported.network
        refuse = _limits(meant, card, labelled, refuse)
    content, delegates, outside = _lower(trace(exported, batch), describe(network, exported, batch, refuse))
    run = _runner(
        runtime, content, path, "report it with the network" if calibration is None else "export it without int8"
    )
    allowed = tolerance if tolerance is not None else TOLERANCE if calibration is None else TOLERANCE_INT8
    difference = check_answers(meant, exported, run, path=path, batches=(batch,), images=images, tolerance=allowed)
    cost = None if labelled is None else measure_cost(network, exported, run, labelled, batch)
    write_bytes(path, content)
    return WrittenPte(path, len(content), difference, (batch,), delegates, outside, cost)


def _limits(
    network: nn.Module, card: Card, images: Dataset[Any] | None, refuse: Mapping[str, float] | None
) -> dict[str, float]:
    """The limits of a quantised network for the same scores: its own, as rounding moves them; none without images."""
    if images is None or not refuse:
        return {}
    found = limits(predict_dataset(network, images, card, stage="labelled set"))
    return {name: limit for name in refuse if (limit := found[name]) is not None}


def _lower(program: ExportedProgram, description: Mapping[str, str]) -> tuple[bytes, int, dict[str, int]]:
    """Returns the file, the number of parts that XNNPACK runs, and what it does not run."""
    exir = require("executorch.exir", "edge")
    xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", "edge")
    try:
        with quiet():
            edge = exir.to_edge_transform_and_lower(
                program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods=dict(description)
            )
            calls = Counter(
                _name(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"
            )
            content = bytes(edge.to_executorch().buffer)
    except Exception as error:  # the compiler raises of every kind
        raise SubnetSearchError(
            f"the network cannot be written for ExecuTorch ({type(error).__name__}: {first_line(error)}); pack the ensemble first, or see which operation has no counterpart"
        ) from error
    delegates = calls.pop("executorch_call_delegate", 0)
    calls.pop("getitem", None)  # takes one of several results
    return content, delegates, dict(calls.most_common())


def _name(target: Any) -> str:
    """Short name of an operator, such as `aten.mean.dim`."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(getattr(target, "__name__", target))
    overload = f".{schema.overload_name}" if schema.overload_name else ""
    return str(schema.name).replace("::", ".") + overload


def _runner(runtime: Any, content: bytes, path: Path, advice: str) -> Callable[[Tensor], Sequence[Tensor]]:
    """Returns what runs the file: images → outputs."""
    try:
        with quiet():
            program = runtime.Runtime.get().load_program(content)
            method = program.load_method("forward")
    except Exception as error:  # XNNPACK builds its network here, and may know no kernel for a part of it
        raise SubnetSearchError(
            f"{path}: ExecuTorch's runtime cannot load the file ({type(error).__name__}: {first_line(error)}); nothing was written. Please {advice}"
        ) from error

    def run(images: Tensor) -> Sequence[Tensor]:
        return [output.clone() for output in method.execute([images.contiguous()])]

    return run
