"""Which of each member's rows this process computes, where several processes share the rows of a step.

Layers that look at all rows of a member at once, or draw something for each row, ask here. Everything else computes
each row by itself and need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class RowShare:
    """A range of the rows of each member.

    Attributes:
        start: First row of this process.
        stop: First row after it.
        rows: Rows of each member in the step, those of all processes.
    """

    start: int
    stop: int
    rows: int


_present: ContextVar[RowShare | None] = ContextVar("row_share", default=None)


@contextmanager
def sharing(share: RowShare) -> Iterator[None]:
    """Tells the layers which rows they get, while the block lasts."""
    token = _present.set(share)
    try:
        yield
    finally:
        _present.reset(token)


def drawn_rows(count: int, width: int, members: int, generator: Generator) -> Tensor:
    """Draws uniform numbers for member-major rows: those that one process alone would draw for them.

    Args:
        count: Rows of all members on this process.
        width: Numbers a row.
        members: Number of members.
        generator: Source of the randomness; advanced by all rows of the step.

    Returns:
        `[count, width]` in [0, 1), on the generator's device.
    """
    share = _present.get()
    if share is None:
        return torch.rand(count, width, generator=generator, device=generator.device)
    everything = torch.rand(members * share.rows, width, generator=generator, device=generator.device)
    return torch.unflatten(everything, 0, (members, -1))[:, share.start : share.stop].flatten(0, 1)
