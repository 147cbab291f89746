"""Which arithmetic a device does well, what it draws at random, and when it is done.

Devices, processes and data-parallel training are accelerate's. Its autocast is not used: it patches the forward
method of a module for good, and its process-wide state allows one precision only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve(device: torch.device, precision: Precision) -> Literal["fp32", "bf16"]:
    """Returns the precision that `auto` stands for: bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # older than PyTorch's question for it
            return "fp32"
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
        return "bf16" if native else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Returns the context in which forward passes run at that precision; weights stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(device, precision) == "bf16")


@contextmanager
def drawing(device: torch.device, seed: int) -> Iterator[None]:
    """While open, a network's own dropout, and all else that draws from the global random state, draws from a seed.

    The state is afterwards what it was before, but on MPS, which keeps none to go back to.

    Args:
        device: Where the network runs.
        seed: What the draws depend on, at least 0.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed other accelerators too, for good
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def wait(device: torch.device) -> None:
    """Waits for the kernels of an accelerator, of which otherwise only the launch would be timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
