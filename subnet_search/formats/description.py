"""What a file tells about itself, so that it can be used without the one who made it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import nn

from subnet_search.ensemble import Predictor
from subnet_search.evaluate.refusal import LEAST
from subnet_search.formats.deployable import INPUT, OUTPUTS, Deployable
from subnet_search.provenance import library_versions

_MEANING = {
    "uint8": ("uint8", "raw pixels 0 to 255; they are normalised inside"),
    "float": ("float32", "raw pixels in [0, 1]; they are normalised inside"),
    "normalised": ("float32", "(pixels in [0, 1] - mean) / std, with the mean and std of 'normalisation'"),
}


def describe(
    network: nn.Module,
    deployable: Deployable,
    batch: int | str = "batch",
    refuse: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """Returns the description that is written into a file.

    Args:
        network: The network that was exported.
        deployable: How it was exported.
        batch: Batch size of the file, or a name where it takes any.
        refuse: Output → limit beyond which an image is to be refused (`evaluate.limits`).

    Returns:
        Name → text; `classes`, `normalisation`, `input`, `outputs`, `refuse` and `versions` are JSON. Without
        `masks_sha256` where the network has no masks, and without `refuse` where no limits are known.
    """
    card = deployable.card
    dtype, meaning = _MEANING[deployable.input_kind]
    with torch.no_grad():
        members = len(deployable(deployable.example(1))[1])
    shape = [batch, *card.input_shape]
    found = {
        "name": card.name,
        "members": str(members),
        "classes": _json(list(card.classes)),
        "normalisation": _json({"mean": list(card.mean), "std": list(card.std)}),
        "input": _json({"name": INPUT, "dtype": dtype, "shape": shape, "meaning": meaning}),
        "outputs": _json(dict(OUTPUTS)),
        "versions": _json(library_versions() | _exporters()),
    }
    masks = network.identity().get("masks") if isinstance(network, Predictor) else None
    if refuse:
        sides = {name: {"below" if name in LEAST else "above": limit} for name, limit in refuse.items()}
        found["refuse"] = _json(sides)
    return found | ({"masks_sha256": str(masks)} if masks else {})


def _exporters() -> dict[str, str]:
    """Versions of the packages that translate and check, those of them that are installed."""
    found = {}
    for name in ("onnx", "onnxscript", "onnxruntime", "executorch", "torchao"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _json(value: object) -> str:
    return json.dumps(value)
