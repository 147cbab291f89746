"""Whether the rows that a layer writes are those of the samples, one sample after the other.

The layers of an ensemble take rows to be member-major: of `[member * batch, ...]` the first `batch` rows are the first
member's. That holds inside a network where the batch is the first axis, or where something is folded into it sample by
sample (`x.reshape(b * t, ...)`), and not where the batch is another axis (sequence first) or where several inputs are
joined along it (`torch.cat([a, b], 0)`). A forward pass tells: what a layer writes for a batch has to be what it writes
for the first half of it, and behind that what it writes for the second half.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Written = dict[str, list[tuple[tuple[int, ...], Tensor]]]
"""For each layer its calls: the shape of a row, and a number for each row, a random projection of it."""


def misplaced_rows(network: nn.Module, layers: Collection[str], x: Tensor, tolerance: float) -> frozenset[str]:
    """Finds the layers whose rows are not those of the samples, one sample after the other.

    Args:
        network: In eval mode.
        layers: Dotted names of those to look at; one that is never called has no such rows.
        x: Input `[batch, ...]`, an even number of samples, all different.
        tolerance: Largest relative difference of what counts as equal.

    Returns:
        Their names; none where the same input does not give the same twice, as nothing can be told then.
    """
    found = dict(network.named_modules())
    chosen = {name: found[name] for name in layers}
    # halves of two samples and more: of one, `squeeze` would take the batch axis away
    whole, first, second = (_written(network, chosen, part) for part in (x, *x.chunk(2)))
    wrong = frozenset(name for name in chosen if not _follow(whole[name], first[name], second[name], tolerance))
    if wrong:
        again = _written(network, chosen, x)
        if not all(_equal(whole[name], again[name], tolerance) for name in wrong):
            return frozenset()
    return wrong


def _written(network: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> Written:
    """What the layers write for an input."""
    written: Written = {name: [] for name in layers}
    hooks = [layer.register_forward_hook(_note(written[name])) for name, layer in layers.items()]
    try:
        with torch.no_grad(), _without_batch_statistics(network):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return written


def _note(calls: list[tuple[tuple[int, ...], Tensor]]) -> Any:
    """A forward hook that keeps a number for each row: all rows of all layers would take too much memory."""

    def note(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
        row = tuple(out.shape[1:])
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(row, generator=generator, dtype=out.dtype).flatten()
        calls.append((row, out.reshape(len(out), len(weights)) @ weights))

    return note


@contextmanager
def _without_batch_statistics(network: nn.Module) -> Iterator[None]:
    """While open, norms without statistics of their own pass rows on: through them samples would see each other.

    Members have those of their own rows all the same (`MemberNorm`).
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is None]
    hooks = [norm.register_forward_hook(lambda _module, inputs, _out: inputs[0], prepend=True) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _follow(whole: Any, first: Any, second: Any, tolerance: float) -> bool:
    """Whether the calls of a layer have, for the whole batch, the rows of the first half and then as many of the second."""
    if len(first) != len(second):
        return False
    joined = []
    for (row, numbers), (other, others) in zip(first, second, strict=True):
        if row != other or len(numbers) != len(others):
            return False
        joined.append((row, torch.cat([numbers, others])))
    return _equal(whole, joined, tolerance)


def _equal(calls: Any, others: Any, tolerance: float) -> bool:
    """Whether the calls of a layer have the same rows."""
    if [(row, len(numbers)) for row, numbers in calls] != [(row, len(numbers)) for row, numbers in others]:
        return False
    return all(
        float((numbers - expected).abs().max()) <= tolerance * float(expected.abs().max().clamp(min=1e-12))
        for (_, numbers), (_, expected) in zip(calls, others, strict=True)
        if len(numbers)
    )
