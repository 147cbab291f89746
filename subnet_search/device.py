"""Which arithmetic a device does well, and when it is done.

Devices, processes and data-parallel training are accelerate's. Its autocast is not used: it patches the forward
method of a module for good, and its process-wide state allows one precision only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
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


def wait(device: torch.device) -> None:
    """Waits for the kernels of an accelerator, of which otherwise only the launch would be timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
