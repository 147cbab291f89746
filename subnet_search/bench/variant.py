"""One way to run a form, and the work that it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Work:
    """What is computed and held, as counted on the network that runs.

    Attributes:
        macs: Multiply-accumulates for one image, those of padding included.
        parameters: Number of parameters.
    """

    macs: int
    parameters: int


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to run a form; of several, the fastest counts.

    Attributes:
        label: What sets it apart, such as `channels-last` or `grouped, shared stem`.
        network: Prepared input `[batch, ...]` → any output, ready to be timed. Its deep copy runs on its own.
        work: What it computes.
        file_bytes: Size of the file that is run; None where there is none.
    """

    label: str
    network: nn.Module
    work: Work
    file_bytes: int | None = None


@torch.no_grad()
def count_work(network: nn.Module, inputs: Tensor) -> Work:
    """Counts the work of a PyTorch network by running it on the first of the prepared inputs `[batch, ...]`."""
    with FlopCounterMode(display=False) as counter:
        network(inputs[:1])
    return Work(counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters()))
