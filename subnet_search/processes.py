"""Several processes that do one job together: started by accelerate, each runs the same program.

The main process alone computes what is not training, writes files and prints; the others are told what has come out.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list, get_int_from_env

from subnet_search.errors import SubnetSearchError

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for the main one, which may search and evaluate for hours."""

PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU")
"""Kinds of accelerate's processes that each hold the whole network."""


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# masks and scores hand out read-only mappings, which pickle does not know
copyreg.pickle(MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))


def open_accelerator() -> Accelerator:
    """Returns accelerate's own choice of device and processes.

    Raises:
        SubnetSearchError: where accelerate is configured to share a network out to the processes, or takes each process
            for the only one.
    """
    _, processes = started()
    # accelerate takes part in a job on CPUs only where it is told that there is nothing else
    on_cpus = processes > 1 and not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=on_cpus, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    check_processes(accelerator)
    if accelerator.num_processes != processes:
        raise SubnetSearchError(
            f"the launcher started {processes} processes, accelerate knows of {accelerator.num_processes}; start them by `accelerate launch --multi_gpu` or torchrun, on CPUs with ACCELERATE_USE_CPU=true"
        )
    return accelerator


def check_processes(accelerator: Accelerator) -> None:
    """Raises where processes are of a kind that does not each hold the whole network."""
    kind = DistributedType(accelerator.distributed_type).value
    if kind not in PLAIN:
        raise SubnetSearchError(
            f"processes of the kind {kind} are not supported, expected plain data-parallel ones; choose multi-GPU or multi-CPU in `accelerate config`, without DeepSpeed, FSDP or tensor parallelism"
        )


def from_main(accelerator: Accelerator, compute: Callable[[], T]) -> T:
    """Computes something on the main process and hands it to all.

    Every process has to get here. With one process it is a plain call.

    Args:
        accelerator: The processes.
        compute: Called on the main process only; what it returns is pickled.

    Returns:
        What it has returned, on every process.

    Raises:
        SubnetSearchError: where `compute` raises it, on every process.
    """
    if accelerator.num_processes == 1:
        return compute()
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = compute()
        except SubnetSearchError as problem:  # the others must not wait for what will not come
            found[1] = problem
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    result: T = found[0]
    return result


def started() -> tuple[int, int]:
    """Returns the number of this process and how many there are, as the launcher says: (0, 1) without one."""
    number = get_int_from_env(["RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"], 0)
    return number, get_int_from_env(["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"], 1)
