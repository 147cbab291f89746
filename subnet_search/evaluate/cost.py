"""What a network costs where it runs: parameters and latency. Multiply-accumulates come from its groups."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from subnet_search.device import Precision, autocast, wait
from subnet_search.ensemble.modes import eval_mode
from subnet_search.errors import SubnetSearchError


def unique_parameters(network: nn.Module) -> int:
    """Counts the parameters that have to be stored: what several layers or members share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def latency_ms(
    network: nn.Module, inputs: Tensor, repeats: int = 10, warmup: int = 3, precision: Precision = "fp32"
) -> float:
    """Measures the median wall time of a forward pass, on the present device with its present number of threads.

    It varies by tens of per cent with what else the machine does: compare only what was measured in one run.

    Args:
        network: Takes `inputs`; run in eval mode.
        inputs: Prepared input `[batch, ...]` on the network's device; the result is for the whole batch.
        repeats: Measured passes, at least 1.
        warmup: Passes before that.
        precision: Of the forward pass.

    Returns:
        Milliseconds a batch, without preparing the images or moving them to the device.

    Raises:
        SubnetSearchError: where `repeats` is less than 1.
    """
    if repeats < 1:
        raise SubnetSearchError(f"latency: repeats is {repeats}, expected at least 1")
    times = []
    with eval_mode(network), autocast(inputs.device, precision):
        for _ in range(warmup):
            network(inputs)
        for _ in range(repeats):
            wait(inputs.device)
            start = time.perf_counter()
            network(inputs)
            wait(inputs.device)
            times.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(times)
