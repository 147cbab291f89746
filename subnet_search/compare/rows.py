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
    """Returns the rows of a comparison, or their curves; none where the file does not exist.

    Args:
        path: A file with one JSON object a line.

    Raises:
        SubnetSearchError: where the file cannot be read, or a line is no row, such as one that was cut off when the
            power failed.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as problem:
        raise SubnetSearchError(f"{path} cannot be read ({problem}); expected a file of rows") from problem
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except ValueError as problem:  # no UTF-8 is one too
            raise SubnetSearchError(f"{path}: line {number} is no JSON ({problem}); delete that line") from problem
        if not isinstance(row, dict) or not {"method", "seed", "settings"} <= row.keys():
            raise SubnetSearchError(
                f"{path}: line {number} is no row, expected an object with method, seed and settings; delete that line"
            )
        rows.append(row)
    return rows


def finished_row(
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    decisive: Mapping[str, Any],
    method: str,
    seed: int,
) -> Mapping[str, Any] | None:
    """Returns the row of a cell, None where there is none with these settings and inputs, or its curves are lost.

    Where curves were lost and the cell has been evaluated again, there are two rows: the later one has the curves.
    """
    digest = digest_of(decisive)
    if (method, seed) not in curves_by_cell(curves, digest):
        return None
    wanted = (method, seed, digest)
    return next((row for row in reversed(rows) if (row["method"], row["seed"], settings_digest(row)) == wanted), None)


def curves_by_cell(curves: Sequence[Mapping[str, Any]], digest: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Returns the curves with a digest of the settings by method and seed; of several of a cell, the last.

    A comparison that ends between the two lines of a cell leaves curves without a row, and makes both again.
    """
    return {(line["method"], line["seed"]): line for line in curves if line["settings"] == digest}


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
