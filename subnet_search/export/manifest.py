"""What is written beside the weights of an exported ensemble: everything that is needed to rebuild and to judge it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.export.graph_json import graph_from_json, graph_to_json
from subnet_search.groups import GroupGraph
from subnet_search.masks import MaskSet
from subnet_search.provenance import library_versions

FORMAT = 3
"""Version of the folder's form; a change that older code would read wrongly counts it up."""

MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
"""Names of the files in the folder."""

MemoryFormat = Literal["contiguous", "channels_last"]


@dataclass(frozen=True, eq=False)
class Manifest:
    """The description of an exported ensemble.

    Attributes:
        card: Which network it was made from, and its input and classes.
        config: What its members share.
        graph: Its channel groups.
        masks: Which channels each member keeps, with algorithm, seed and notes of the search.
        macs: Multiply-accumulates of all members together for one sample.
        weights_sha256: SHA-256 of `model.safetensors`, in hexadecimal.
        memory_format: How the weights of convolutions lie in memory; another one gives other rounding.
        budget: MACs of the ensemble / MACs of the dense network, as asked for; None where it is not known.
        metrics: Figures measured on it.
        settings: Settings of the run that made it.
        versions: Library → version with which it was written.
    """

    card: Card
    config: EnsembleConfig
    graph: GroupGraph
    masks: MaskSet
    macs: int
    weights_sha256: str
    memory_format: MemoryFormat = "contiguous"
    budget: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=library_versions)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """Returns the content of `manifest.json`, with a digest of itself.

    Raises:
        SubnetSearchError: where metrics, settings or the masks' notes hold what JSON cannot.
    """
    masks, dense = manifest.masks, manifest.graph.dense_macs
    content: dict[str, Any] = {
        "format": FORMAT,
        "card": manifest.card.to_dict(),
        "ensemble": {**asdict(manifest.config), "members": masks.members},
        "masks": {
            "sha256": masks.digest(),
            "algorithm": masks.algorithm,
            "seed": masks.seed,
            "notes": dict(masks.notes),
            "widths": dict(masks.widths),
            "bits": {name: _pack(mask) for name, mask in masks.masks.items()},
            "depth": {name: kept.tolist() for name, kept in masks.depth.items()},
        },
        "weights": {"file": WEIGHTS, "sha256": manifest.weights_sha256, "memory_format": manifest.memory_format},
        "budget": manifest.budget,
        "macs": {"ensemble": manifest.macs, "dense": dense, "ratio": manifest.macs / dense if dense else None},
        "metrics": dict(manifest.metrics),
        "settings": dict(manifest.settings),
        "versions": dict(manifest.versions),
        "groups": graph_to_json(manifest.graph),
    }
    for part, value in content.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SubnetSearchError(
                f"export: the part {part!r} of the manifest cannot be written as JSON ({error}), expected finite numbers, strings, lists and mappings; give None for a figure that is absent"
            ) from error
    plain: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists, as they will be when read back
    return {**plain, "sha256": _digest(plain)}


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks `manifest.json` of an exported ensemble; nothing is imported or executed.

    Args:
        folder: The folder that `export_ensemble` wrote.

    Returns:
        The manifest, its masks checked against their digest.

    Raises:
        SubnetSearchError: where the folder or the file is missing, it is no JSON, has another format version, or was
            changed after it had been written.
    """
    path = Path(folder) / MANIFEST
    content = _read(path)
    version = content.get("format")
    if version != FORMAT:
        writer = _writer(content)
        raise SubnetSearchError(
            f"{path}: has format version {version!r} (written by subnet-search {writer}), expected {FORMAT}; load it with the version that wrote it and "
            "export it again with this one, or install that version"
        )
    rest = {key: value for key, value in content.items() if key != "sha256"}
    if content.get("sha256") != _digest(rest):
        raise SubnetSearchError(
            f"{path}: its own SHA-256 is not the one written in it, so the file is damaged or was edited; fetch it or export the ensemble again"
        )
    try:
        return _from_json(rest)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SubnetSearchError(
            f"{path}: is no manifest of format version {FORMAT} ({type(error).__name__}: {error}); export the ensemble again"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        found = "a file" if path.parent.exists() else "nothing"
        raise SubnetSearchError(f"{path.parent}: found {found}, expected the folder of an exported ensemble")
    if not path.is_file():
        raise SubnetSearchError(
            f"{path.parent}: has no {MANIFEST}, expected the folder of an exported ensemble ({MANIFEST} and {WEIGHTS})"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SubnetSearchError(
            f"{path}: is truncated or no JSON ({error}); fetch it or export the ensemble again"
        ) from error
    if not isinstance(content, dict):
        raise SubnetSearchError(
            f"{path}: holds a {type(content).__name__}, expected the manifest of an exported ensemble"
        )
    return content


def _from_json(content: Mapping[str, Any]) -> Manifest:
    graph = graph_from_json(content["groups"])
    described = content["masks"]
    members = content["ensemble"]["members"]
    masks = MaskSet(
        {name: _unpack(rows, members, graph.widths[name]) for name, rows in described["bits"].items()},
        described["algorithm"],
        described["seed"],
        described["notes"],
        {name: torch.tensor(kept, dtype=torch.bool) for name, kept in described["depth"].items()},
    )
    if masks.digest() != described["sha256"]:
        raise ValueError("the masks are not those of the digest that is written beside them")
    return Manifest(
        card=Card.from_dict(content["card"]),
        config=EnsembleConfig(**{f.name: content["ensemble"][f.name] for f in fields(EnsembleConfig)}),
        graph=graph,
        masks=masks,
        macs=content["macs"]["ensemble"],
        weights_sha256=content["weights"]["sha256"],
        memory_format=content["weights"]["memory_format"],
        budget=content["budget"],
        metrics=content["metrics"],
        settings=content["settings"],
        versions=content["versions"],
    )


def _pack(mask: Tensor) -> list[str]:
    """One hexadecimal string a member; channel 0 is the highest bit of the first digit."""
    return [np.packbits(row).tobytes().hex() for row in mask.numpy()]


def _unpack(rows: list[str], members: int, width: int) -> Tensor:
    """Returns bool `[member, channel]`."""
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(row), np.uint8), count=width) for row in rows]
    return torch.from_numpy(np.stack(bits).astype(np.bool_).reshape(members, width))


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _writer(content: Mapping[str, Any]) -> str:
    versions = content.get("versions")
    return str(versions.get("subnet-search", "unknown")) if isinstance(versions, Mapping) else "unknown"
