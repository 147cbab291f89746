"""Writes an ensemble to a folder from which it is rebuilt bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from subnet_search.backbones.checkpoint import check_finite
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.export.manifest import MANIFEST, WEIGHTS, Manifest, MemoryFormat, read_manifest, to_json
from subnet_search.files import new_folder, write_bytes, write_json


def export_ensemble(
    ensemble: SubnetEnsemble,
    folder: str | Path,
    *,
    budget: float | None = None,
    metrics: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `model.safetensors` (weights, statistics and masks) and `manifest.json`; the ensemble stays as it is.

    The folder appears whole or not at all. Masks are the model: they are in the weights file as buffers, and in the
    manifest as bits with their SHA-256, and `load_ensemble` wants both to be the same.

    Args:
        ensemble: The network; on any device, in any mode.
        folder: Target; it must not exist, or be an empty folder. Missing parent folders are made.
        budget: MACs of the ensemble / MACs of the dense network that were asked for, for the record.
        metrics: Figures measured on it, plain JSON values; None for a figure that is absent.
        settings: Settings of the run that made it, plain JSON values.

    Returns:
        The folder.

    Raises:
        SubnetSearchError: where something is at the target already, weights are NaN or infinite, or metrics, settings
            or the masks' notes hold what JSON cannot.
    """
    # copies, because safetensors refuses tensors that share memory, such as tied weights
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in ensemble.state_dict().items()}
    check_finite(state, "export")
    folder = Path(folder)
    with new_folder(folder) as temporary:
        weights = save(state, metadata={"format": "pt"})
        manifest = Manifest(
            card=ensemble.card,
            config=ensemble.config,
            graph=ensemble.graph,
            masks=ensemble.masks,
            macs=ensemble.macs(),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            memory_format=_memory_format(ensemble),
            budget=budget,
            metrics=metrics or {},
            settings=settings or {},
        )
        write_json(temporary / MANIFEST, to_json(manifest))
        write_bytes(temporary / WEIGHTS, weights)
    return folder


def update_figures(folder: Path, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Puts newly measured figures, and the settings they were measured with, into the manifest of an ensemble.

    Args:
        folder: Folder of an exported ensemble; its weights stay as they are.
        metrics: As in `export_ensemble`.
        settings: As in `export_ensemble`.

    Raises:
        SubnetSearchError: where there is no manifest, it is damaged, or metrics or settings hold what JSON cannot.
    """
    manifest = replace(read_manifest(folder), metrics=metrics, settings=settings)
    write_json(folder / MANIFEST, to_json(manifest))


def _memory_format(network: nn.Module) -> MemoryFormat:
    """Tells how convolutions lie in memory: the order of their sums, and so the last bits, depends on it."""
    last = any(
        # strides decide, as a 1 × 1 kernel or one of a single input channel is contiguous in both ways
        p.ndim == 4
        and (
            (p.stride(3) > 1 and p.is_contiguous(memory_format=torch.channels_last))
            or (p.stride(1) == 1 and p.shape[2] * p.shape[3] > 1)
        )
        for p in network.parameters()
    )
    return "channels_last" if last else "contiguous"
