"""Builds an ensemble in the forms whose cost is measured."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from subnet_search.bench.torch_forms import LAYOUTS, Converting, Dtype, official_network
from subnet_search.bench.variant import Variant, Work, count_work
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.agreement import TOLERANCE
from subnet_search.formats.onnx import export_onnx
from subnet_search.formats.pte import export_pte
from subnet_search.formats.runtimes import OnnxNetwork, PteNetwork
from subnet_search.packed import PackConfig, pack
from subnet_search.packed.packed_ensemble import PackedEnsemble, Shape

FormName = Literal[
    "dense",
    "official",
    "masked",
    "sliced",
    "grouped",
    "onnx_dense",
    "onnx",
    "pte_dense",
    "pte",
    "compiled_dense",
    "compiled",
]
Written = Shape | Literal["dense"]
"""What a file holds."""
Runtime = Literal["pytorch", "onnxruntime", "executorch", "inductor"]
BASELINES: dict[Runtime, FormName] = {
    "pytorch": "dense",
    "onnxruntime": "onnx_dense",
    "executorch": "pte_dense",
    "inductor": "compiled_dense",
}
"""Runtime → the form that is the dense network in it."""
SHAPES: dict[FormName, tuple[Shape, ...]] = {
    "sliced": ("sliced",),
    "grouped": ("grouped", "merged"),
    "compiled": ("sliced", "grouped", "merged"),
}
"""Form → how the members may be put together in it."""
PACK_SECONDS = 2.0
"""For choosing among the layouts of memory of one packed form."""


def runtime_of(form: FormName) -> Runtime:
    """Returns what runs a form."""
    runtimes: dict[str, Runtime] = {"onnx": "onnxruntime", "pte": "executorch", "compiled": "inductor"}
    return runtimes.get(form.partition("_")[0], "pytorch")


class Forms:
    """Makes the forms of one ensemble; files are made once and kept in a folder.

    Args:
        ensemble: The ensemble, on the CPU, in fp32; it stays as it was.
        network: The dense network, with any weights; it stays as it was.
        device: Where PyTorch runs.
        folder: Where files are written; it has to outlive the forms.
        seconds: For choosing among the variants of one packed form.
    """

    def __init__(
        self,
        ensemble: SubnetEnsemble,
        network: nn.Module,
        device: torch.device,
        folder: Path,
        seconds: float = PACK_SECONDS,
    ) -> None:
        self._ensemble, self._network = ensemble, network
        self._device, self._folder, self._seconds = device, folder, seconds
        self._numbers = itertools.count()
        self._written: dict[tuple[str, str, int], tuple[str, Work, Path]] = {}

    def build(self, form: FormName, example: Tensor, dtype: Dtype) -> list[Variant]:
        """Builds the variants of a form.

        Args:
            form: Which.
            example: Prepared input `[batch, ...]` on the CPU.
            dtype: Its precision.

        Raises:
            SubnetSearchError: where the form cannot be built, and why.
        """
        runtime = runtime_of(form)
        if runtime in ("onnxruntime", "executorch"):
            if dtype != "fp32":
                raise SubnetSearchError(f"its file is in fp32, not in {dtype}")
            if self._device.type != "cpu":
                raise SubnetSearchError(f"its file is run on the CPU, not on {self._device}")
            return self._files_of(form, example, "onnx" if runtime == "onnxruntime" else "pte")
        if form in SHAPES:
            packed = self._packed(SHAPES[form], example.to(self._device), dtype)
            return [_compiled(packed) if form == "compiled" else packed]
        if form == "compiled_dense":
            return [_compiled(variant) for variant in self.build("dense", example, dtype)]
        makers: dict[str, Callable[[], nn.Module]] = {
            "dense": lambda: self._network,
            "official": lambda: official_network(self._network, self._ensemble),
            "masked": lambda: self._ensemble,
        }
        made = makers[form]()
        layouts = LAYOUTS if example.ndim == 4 else ("contiguous",)
        work = count_work(made, example)
        return [Variant(layout, Converting(made, dtype, layout).to(self._device), work) for layout in layouts]

    def _packed(self, shapes: tuple[Shape, ...], example: Tensor, dtype: Dtype) -> Variant:
        """The fastest of the packed forms of these shapes."""
        ensemble = copy.deepcopy(self._ensemble).to(self._device)
        packed = pack(ensemble, example, PackConfig(shapes=shapes, precision=dtype, seconds=self._seconds))
        return Variant(str(packed.form), packed, count_work(packed, example))

    def _files_of(self, form: FormName, example: Tensor, kind: Literal["onnx", "pte"]) -> list[Variant]:
        """The dense network, or the ensemble in every shape: which of them is fastest, the runtime alone can tell."""
        shapes: tuple[Written, ...] = ("dense",) if form in BASELINES.values() else get_args(Shape)
        load = OnnxNetwork if kind == "onnx" else PteNetwork
        found, faults = [], []
        for shape in shapes:
            try:
                label, work, path = self._file(kind, shape, example)
                network = load(path, torch.get_num_threads())
            except SubnetSearchError as error:
                faults.append(str(error))
                continue
            found.append(Variant(label, network, work, _size(path)))
        if not found:
            raise SubnetSearchError("; ".join(dict.fromkeys(faults)))
        return found

    def _file(self, kind: Literal["onnx", "pte"], shape: Written, example: Tensor) -> tuple[str, Work, Path]:
        """What is written down, its work, and the file; a new one only for a new shape, or batch of a `.pte`."""
        key = (kind, shape, len(example) if kind == "pte" else 0)
        if key not in self._written:
            path = self._folder / f"{next(self._numbers)}.{kind}"
            network, label = self._to_be_written(shape, example)
            # only the ensemble's answers have to be right: of the dense network, any weights are timed
            allowed = float("inf") if shape == "dense" else TOLERANCE
            card = self._ensemble.card
            if kind == "onnx":
                export_onnx(network, card, path, input_kind="normalised", tolerance=allowed)
            else:
                export_pte(network, card, path, batch=len(example), input_kind="normalised", tolerance=allowed)
            self._written[key] = (label, count_work(network, example), path)
        return self._written[key]

    def _to_be_written(self, shape: Written, example: Tensor) -> tuple[nn.Module, str]:
        if shape == "dense":
            return self._network, "dense"
        packed: PackedEnsemble = pack(self._ensemble, example, PackConfig(shapes=(shape,), seconds=0.0))
        stem = ", shared stem" if packed.form.shared_stem else ""
        return packed, packed.form.shape + stem  # memory lies in files as their runtime wants it


def _compiled(variant: Variant) -> Variant:
    """The same, compiled when it first runs; its work is what was counted before, as the compiler fuses but leaves out nothing."""
    compiled = torch.compile(variant.network, dynamic=False)  # sizes known beforehand make faster code
    assert isinstance(compiled, nn.Module)
    return Variant(variant.label, compiled, variant.work)


def _size(path: Path) -> int:
    """Bytes of a file, with those of the weights beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
