"""Which of several forms is the fastest here: measured in turns, as other work may share the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from subnet_search.device import wait

ROUNDS = 30
HOPELESS = 2.0
"""How far behind a form has to be in the first turn to be measured no more."""


@torch.no_grad()
def interleaved_ms(
    networks: Mapping[str, nn.Module],
    inputs: Tensor,
    seconds: float,
    hopeless: float = HOPELESS,
    least: int = 1,
    most: int = ROUNDS,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Measures the wall time of a forward pass of several networks in turns.

    Args:
        networks: Name → network in eval mode, on the device of the input.
        inputs: Prepared input `[batch, ...]`.
        seconds: No further turn is begun after this time.
        hopeless: Networks that took this many times as long as the fastest in the first turn take no other.
        least: Number of turns at least, after one pass to warm up.
        most: Number of turns at most.
        pause: Seconds before each pass, in which the threads of the one before fall asleep: those of other runtimes go
            on turning for a while, on the cores that the next one needs.

    Returns:
        Name → milliseconds a batch, one number for each turn; a single one for networks that are far behind.
    """
    for network in networks.values():
        _pass(network, inputs, pause)
    times = {name: [_pass(network, inputs, pause)] for name, network in networks.items()}
    fastest = min(first for (first,) in times.values())
    near = [name for name, (first,) in times.items() if first <= hopeless * fastest]
    end = time.perf_counter() + seconds
    for turn in range(1, most):
        if turn >= least and time.perf_counter() > end:
            break
        for name in near:
            times[name].append(_pass(networks[name], inputs, pause))
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns the median of each list, the fastest first."""
    found = {name: statistics.median(values) for name, values in times.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lower and the upper quartile, between which half of the values lie; of one value, that value twice."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def _pass(network: nn.Module, inputs: Tensor, pause: float) -> float:
    wait(inputs.device)
    if pause:
        time.sleep(pause)
    start = time.perf_counter()
    network(inputs)
    wait(inputs.device)
    return 1000.0 * (time.perf_counter() - start)
