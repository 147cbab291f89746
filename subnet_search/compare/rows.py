"""The rows of a comparison as they are kept, and what tells one row from another: method, seed, settings and inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subnet_search.compare.config import CompareConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.settings import to_dict


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a comparison, none where the file does not exist.

    Args:
        path: A file with one JSON object a line.

    Raises:
        SubnetSearchError: where a line is no JSON, such as one that was cut off when the power failed.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as problem:
            raise SubnetSearchError(f"{path}: line {number} is no JSON ({problem}); delete that line") from problem
    return rows


def finished_row(
    rows: Sequence[Mapping[str, Any]], decisive: Mapping[str, Any], method: str, seed: int
) -> Mapping[str, Any] | None:
    """Returns the row of a cell, None where there is none with these settings and inputs."""
    wanted = (method, seed, digest_of(decisive))
    return next((row for row in rows if (row["method"], row["seed"], settings_digest(row)) == wanted), None)


def settings_digest(row: Mapping[str, Any]) -> str:
    """Returns the digest of a row's settings under which its curves are kept (`settings` in their lines)."""
    return digest_of({name: value for name, value in row["settings"].items() if name != "origin"})


def decisive_settings(config: CompareConfig) -> dict[str, Any]:
    """Returns what decides the row of a method and seed, beside the network and the images."""
    return {name: value for name, value in to_dict(config).items() if name not in ("methods", "seeds", "out", "log")}


def cell_name(decisive: Mapping[str, Any], trained_on: Mapping[str, str], method: str, seed: int) -> str:
    """Returns the name of a folder for a training; an evaluation with other settings or images takes up the same."""
    images = {**decisive["images"], "test": None, "ood": None}
    return f"{method}-{seed}-{digest_of({**decisive, 'evaluate': None, 'images': images, 'inputs': trained_on})}"


def digest_of(settings: Mapping[str, Any]) -> str:
    """Returns a digest of what differs from the defaults, so that rows keep theirs when a later version adds a setting."""
    different = _without_defaults(settings, decisive_settings(CompareConfig()))
    return hashlib.sha256(json.dumps(different, sort_keys=True).encode()).hexdigest()[:12]


def _without_defaults(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        name: _without_defaults(value, defaults[name])
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
        else value
        for name, value in settings.items()
    }
    return {name: value for name, value in parts.items() if value != {} and (name, value) not in defaults.items()}
