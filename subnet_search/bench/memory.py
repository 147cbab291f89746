"""How much memory a network takes at its peak, weights included."""

from __future__ import annotations

import copy
import ctypes
import ctypes.util
import gc
from pathlib import Path

import torch
from torch import Tensor, nn

from subnet_search.device import wait

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@torch.no_grad()
def peak_memory(network: nn.Module, inputs: Tensor) -> int | None:
    """Measures what a copy of a network and its first pass add to the memory in use.

    On CUDA that is what PyTorch allocates. For the CPU PyTorch keeps no such account, and other runtimes allocate on
    their own: there it is what the process grows by in resident memory, as Linux counts it, with pages that were freed
    before handed back first: gaps that the allocator leaves count too. It is exact to about a megabyte, and wrong where
    another thread allocates meanwhile.

    Args:
        network: The network, which has run once already, so that no library is loaded now.
        inputs: Prepared input `[batch, ...]`, on the device where it runs.

    Returns:
        Bytes, or None where neither can be asked.
    """
    gc.collect()
    if inputs.device.type == "cuda":
        wait(inputs.device)
        before = torch.cuda.memory_allocated(inputs.device)
        copied = copy.deepcopy(network)
        torch.cuda.reset_peak_memory_stats(inputs.device)
        copied(inputs)
        wait(inputs.device)
        return torch.cuda.max_memory_allocated(inputs.device) - before
    if inputs.device.type != "cpu" or not _trim():
        return None
    before = _resident("VmRSS")
    copied = copy.deepcopy(network)
    if not _forget_peak():
        return None
    copied(inputs)
    return max(0, _resident("VmHWM") - before)


def _trim() -> bool:
    """Hands freed pages back to the system, which would otherwise be used again unseen; false where it is not Linux."""
    name = ctypes.util.find_library("c")
    try:
        ctypes.CDLL(name).malloc_trim(0)
    except (OSError, AttributeError):  # no C library of GNU
        return False
    return _STATUS.exists() and _CLEAR.exists()


def _forget_peak() -> bool:
    """Lets the count of the largest resident memory begin again."""
    try:
        _CLEAR.write_text("5")
    except OSError:  # not allowed in every container
        return False
    return True


def _resident(key: str) -> int:
    """Bytes that the system reports under a name, `VmRSS` now or `VmHWM` at most."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
