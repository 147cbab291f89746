"""What a stage keeps in the folder of a run: tensors with notes beside them, in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes
from subnet_search.masks import MaskSet

T = TypeVar("T")


def write_record(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Writes tensors and notes (plain JSON values), whole or not at all."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, {"notes": json.dumps(notes)}))


def read_record(
    path: Path,
    make: Callable[[dict[str, Tensor], dict[str, Any]], T],
    advice: str = "delete it, and the stage is run again",
) -> T | None:
    """Makes something of the tensors and notes that `write_record` wrote; None where there is no file.

    Raises:
        SubnetSearchError: where the file is damaged or another one, with the advice what to do then.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            notes: dict[str, Any] = json.loads(file.metadata()["notes"])
            return make({name: file.get_tensor(name) for name in file.keys()}, notes)  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as problem:
        what = f"no {problem} in it" if isinstance(problem, KeyError) else problem
        raise SubnetSearchError(f"{path} is damaged ({what}); {advice}") from problem


def write_masks(path: Path, masks: MaskSet) -> None:
    """Keeps masks with all that is known of them."""
    depth = {name: kept.tolist() for name, kept in masks.depth.items()}
    notes = {"algorithm": masks.algorithm, "seed": masks.seed, "notes": dict(masks.notes), "depth": depth}
    write_record(path, masks.masks, notes)


def read_masks(path: Path) -> MaskSet | None:
    """Reads what `write_masks` wrote; None where there is no file.

    Raises:
        SubnetSearchError: where the file is damaged.
    """
    return read_record(path, _masks)


def _masks(masks: dict[str, Tensor], notes: dict[str, Any]) -> MaskSet:
    depth = {name: torch.tensor(kept, dtype=torch.bool) for name, kept in notes["depth"].items()}
    return MaskSet(masks, notes["algorithm"], notes["seed"], notes["notes"], depth)


def kept_masks(path: Path | None, choose: Callable[[], MaskSet]) -> MaskSet:
    """Takes up masks that were chosen before, or chooses and keeps them; a path of None keeps nothing.

    Raises:
        SubnetSearchError: where the file is damaged.
    """
    found = None if path is None else read_masks(path)
    if found is None:
        found = choose()
        if path is not None:
            write_masks(path, found)
    return found
