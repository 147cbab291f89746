"""A training run's state on disk, after every epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subnet_search.ensemble import Predictor
from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes
from subnet_search.finetune.config import FinetuneConfig


def fingerprint(ensemble: Predictor, config: FinetuneConfig, images: int) -> str:
    """Returns a digest of the network's identity, the settings and the size of the data; not of weights and images."""
    described = {
        "predictor": dict(ensemble.identity()),
        "finetune": dataclasses.asdict(config),
        "images": images,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint, the old one staying whole until the new one is complete."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path, expected: str, ensemble: Predictor) -> dict[str, Any]:
    """Reads a checkpoint without executing pickles.

    Args:
        path: The file.
        expected: The `fingerprint` of the run.
        ensemble: The network that is to go on; not changed here.

    Returns:
        What `save` was given.

    Raises:
        SubnetSearchError: where the file is damaged or belongs to another network, other masks, settings or number of
            images.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch reads tensors without looking at their checksums
            if (bad := archive.testzip()) is not None:
                raise zipfile.BadZipFile(bad)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as problem:  # a damaged file makes the reader fail in every way, with advice that nobody should follow
        raise SubnetSearchError(
            f"checkpoint {path} cannot be read as one ({type(problem).__name__}), it is damaged; delete it to begin the fine-tuning anew"
        ) from problem
    wanted = _shapes(ensemble.state_dict())
    if (
        not isinstance(state, dict)
        or state.get("fingerprint") != expected
        or _shapes(state.get("ensemble", {})) != wanted
    ):
        raise SubnetSearchError(
            f"checkpoint {path} belongs to a run with another network, other masks, settings or number of images; use another folder, or delete it to begin anew"
        )
    return state


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
