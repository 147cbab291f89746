"""Makes an ensemble physically small, in the form that is the fastest where it is to run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, fx, nn

from subnet_search.device import Precision, resolve
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.groups import macs, trunk_macs
from subnet_search.packed.folding import work_in_place
from subnet_search.packed.grouped import group_members
from subnet_search.packed.member import slice_member
from subnet_search.packed.merging import merge_groups
from subnet_search.packed.packed_ensemble import Form, PackedEnsemble, PackingReport, Shape
from subnet_search.packed.program import Program, operator
from subnet_search.packed.shortcuts import shortcuts_as_convolutions
from subnet_search.packed.sliced import join_members, shared_stem
from subnet_search.packed.timing import interleaved_ms, medians
from subnet_search.packed.trace_members import trace_members

TOLERANCE = 1e-4
"""Largest relative difference of the logits from the masked network's, in fp32."""
ROUNDING = 0.1
"""The same in bf16, which keeps 8 bits of each number: too coarse to tell a wrong form, so fp32 has to pass before it."""
PADDING = 1.5
"""The grouped form is not offered where padding to the widest member multiplies the multiply-accumulates by more."""


@dataclass(frozen=True)
class PackConfig:
    """Among which forms the fastest is looked for.

    Attributes:
        shapes: Some of `sliced`, `grouped` and `merged`.
        precision: `fp32`; `bf16`; or `auto`, which tries both where the device computes bf16 natively.
        compile: Whether `torch.compile` is tried on the fastest form; it needs a compiler and takes up to minutes.
        seconds: Time for measuring, beside two passes of each form.

    Raises:
        SubnetSearchError: where one of them is something else.
    """

    shapes: tuple[Shape, ...] = ("sliced", "grouped", "merged")
    precision: Precision = "fp32"
    compile: bool = False
    seconds: float = 3.0

    def __post_init__(self) -> None:
        if not self.shapes or not set(self.shapes) <= set(get_args(Shape)):
            raise SubnetSearchError(f"pack.shapes is {self.shapes}, expected some of {get_args(Shape)}")
        if self.precision not in get_args(Precision):
            raise SubnetSearchError(f"pack.precision is {self.precision!r}, expected one of {get_args(Precision)}")
        if not self.seconds >= 0:
            raise SubnetSearchError(f"pack.seconds is {self.seconds}, expected at least 0")


@torch.no_grad()
def pack(ensemble: SubnetEnsemble, example: Tensor, config: PackConfig | None = None) -> PackedEnsemble:
    """Builds the forms of an ensemble, checks each against the masked network, and keeps the fastest.

    Args:
        ensemble: The ensemble, on the device where it is to run; it is not changed.
        example: Prepared input `[batch, ...]`; its batch size is the one that is timed. Any other works as well.
        config: Among which forms to choose.

    Returns:
        The packed ensemble, on the ensemble's device, with weights of its own.

    Raises:
        SubnetSearchError: where no form computes what the masked network computes, within `TOLERANCE`; in bf16 one
            that does in fp32, within `ROUNDING`.
    """
    config = config or PackConfig()
    like = next(ensemble.parameters())
    example = _checked(ensemble, example).to(like.device, like.dtype)
    reference = ensemble.select(range(ensemble.members)).eval()
    probes = [example[:2], _noise(example)]
    with _full_precision():
        expected = [reference(probe) for probe in probes]
    unavailable: dict[str, str] = {}
    candidates: dict[str, PackedEnsemble] = {}
    for form, program in _programs(reference, example, config.shapes, unavailable).items():
        for variants in _variants(form, example, config.precision):
            for variant, asked in variants.items():
                candidate = _packed(reference, work_in_place(program).module(), variant)
                if not _admit(candidate, probes, expected, candidates if asked else {}, unavailable):
                    break
    times = _timed(candidates, example, config.seconds, unavailable)
    if config.compile:
        fastest = candidates[next(iter(times))]
        compiled = torch.compile(fastest.network)
        assert isinstance(compiled, nn.Module)
        candidate = _packed(reference, compiled, replace(fastest.form, compiled=True))
        if _admit(candidate, probes, expected, candidates, unavailable):
            times = _timed(candidates, example, config.seconds, unavailable)  # again, as all have to be in one run
    chosen = candidates[next(iter(times))]
    chosen.report = PackingReport(times, len(example), chosen.report.difference, unavailable)
    return chosen


def _programs(
    ensemble: SubnetEnsemble, example: Tensor, shapes: Sequence[Shape], unavailable: dict[str, str]
) -> dict[Form, Program]:
    """The forms that can be built, not yet checked."""
    masks, ranks, members = ensemble.masks, layer_ranks(ensemble), range(ensemble.members)

    def trace(kept: Mapping[str, Tensor]) -> list[Program]:
        own = [{name: mask[k] for name, mask in kept.items()} for k in members]
        return trace_members([slice_member(ensemble, k, own[k], ranks) for k in members], example)

    found: dict[Form, Program] = {}
    padded = {name: _padded(mask) for name, mask in masks.masks.items()}
    equal = all(torch.equal(padded[name], mask) for name, mask in masks.masks.items())
    programs = trace(masks.masks) if equal or "sliced" in shapes else []
    if "sliced" in shapes:
        found[Form("sliced")] = join_members(programs)
        if stem := shared_stem(programs):
            found[Form("sliced", shared_stem=True)] = join_members(programs, stem)
    if "grouped" in shapes or "merged" in shapes:
        widths = {name: int(mask.sum(dim=1).max()) for name, mask in masks.masks.items()}
        idle = [name for name, kept in masks.depth.items() if not kept.any()]
        padding = ensemble.members * macs(ensemble.graph, widths, idle)
        shared = (ensemble.members - 1) * trunk_macs(ensemble.graph, ensemble.config.trunk_share, widths)
        work, needed = padding - shared, ensemble.macs()
        if work > PADDING * needed:
            unavailable["grouped"] = f"padding to the widest member multiplies the work by {work / needed:.1f}"
            return found
        programs = programs if equal else trace(padded)
        try:
            grouped = {Form("grouped"): group_members(programs)}
            if stem := shared_stem(programs):
                grouped[Form("grouped", shared_stem=True)] = group_members(programs, stem)
        except SubnetSearchError as error:
            unavailable["grouped"] = str(error)
            return found
        if "grouped" in shapes:
            found |= grouped
        if "merged" in shapes:
            merged = {
                replace(form, shape="merged"): merge_groups(shortcuts_as_convolutions(program))
                for form, program in grouped.items()
            }
            found |= {form: program for form, program in merged.items() if program is not None}
            if None in merged.values():
                unavailable["merged"] = "no group of a convolution is narrow"
    return found


def _padded(mask: Tensor) -> Tensor:
    """The mask with further channels for narrow members, so that all are as wide as the widest."""
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # the kept channels first, then the lowest others
    wide = torch.zeros_like(mask)
    return wide.scatter(1, order[:, : int(mask.sum(dim=1).max())], True)


def _variants(form: Form, example: Tensor, precision: Precision) -> Iterator[dict[Form, bool]]:
    """The form in every layout of memory: its precisions, fp32 first, and whether each is asked for or a proof alone."""
    asked = {resolve(example.device, precision), *(("fp32",) if precision == "auto" else ())}
    for channels_last in (False, True) if example.ndim == 4 else (False,):
        layout = replace(form, channels_last=channels_last)
        yield {replace(layout, precision=one): one in asked for one in sorted({"fp32", *asked}, reverse=True)}


def _packed(ensemble: SubnetEnsemble, module: nn.Module, form: Form) -> PackedEnsemble:
    """The form as a predictor, in its precision and layout of memory, not yet measured."""
    if not form.compiled:
        if form.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack it
        if form.precision == "bf16":
            _to_bf16(module)
    report = PackingReport({}, 0, float("nan"), {})
    return PackedEnsemble(module, form, report, ensemble.members, ensemble.card, ensemble.macs(), ensemble.identity())


def _to_bf16(module: nn.Module) -> None:
    """Converts all parameters but those of norms, which stay precise."""
    assert isinstance(module, fx.GraphModule)
    exact = {
        operand.target
        for node in module.graph.nodes
        if operator(node) == "batch_norm"
        for operand in node.all_input_nodes
        if operand.op == "get_attr"
    }
    for name, parameter in module.named_parameters():
        if name not in exact:
            parameter.data = parameter.data.bfloat16()


def _admit(
    candidate: PackedEnsemble,
    probes: Sequence[Tensor],
    expected: Sequence[Tensor],
    candidates: dict[str, PackedEnsemble],
    unavailable: dict[str, str],
) -> bool:
    """Adds a form that computes what it should, else notes why it is not offered."""
    name = str(candidate.form)
    try:
        with _full_precision(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = [candidate(probe) for probe in probes]
    except Exception as error:  # a program that was put together wrongly fails in any way
        unavailable[name] = f"it does not run: {type(error).__name__}: {first_line(error)}"
        return False
    difference = max(map(_difference, got, expected))
    if not difference <= (TOLERANCE if candidate.form.precision == "fp32" else ROUNDING):  # NaN is no less than either
        unavailable[name] = f"its logits differ from the masked network's by {difference:.2g}, relative to the largest"
        return False
    candidate.report = replace(candidate.report, difference=difference)
    candidates[name] = candidate
    return True


def _difference(got: Tensor, expected: Tensor) -> float:
    """The largest difference of the logits `[member, batch, class]`, relative to each member's largest logit."""
    if got.shape != expected.shape:
        return float("inf")
    sizes = expected.abs().amax(dim=(1, 2)).clamp(min=1e-12)
    found = ((got - expected).abs().amax(dim=(1, 2)) / sizes).max()
    return float(found)


def _timed(
    candidates: Mapping[str, PackedEnsemble], example: Tensor, seconds: float, unavailable: Mapping[str, str]
) -> dict[str, float]:
    if not candidates:
        listed = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise SubnetSearchError(
            f"the ensemble cannot be packed: no form computes what the masked network does ({listed}); use the ensemble as it is"
        )
    return medians(interleaved_ms(candidates, example, seconds))


def _checked(ensemble: SubnetEnsemble, example: Tensor) -> Tensor:
    shape = ensemble.graph.example_shape
    if not example.is_floating_point() or tuple(example.shape[1:]) != shape or not len(example):
        raise SubnetSearchError(
            f"pack: the example is {example.dtype} of shape {tuple(example.shape)}, expected prepared floating-point input [batch, {', '.join(map(str, shape))}]"
        )
    return example


def _noise(example: Tensor) -> Tensor:
    """Random images: another batch size, and values that no picture has."""
    count = 2 if len(example) == 1 else 1
    return torch.randn(count, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(example)


@contextmanager
def _full_precision() -> Iterator[None]:
    """While open, CUDA does not round fp32 operands to TF32: the forms are compared, not their rounding."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # PyTorch's stubs lack it
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
