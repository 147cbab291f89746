"""One result row: figures together with everything that is needed to make them again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import FIXED_KEYS, NEVER_NULL, is_key
from subnet_search.provenance import current_commit, library_versions

_KINDS: Mapping[str, tuple[type, ...]] = {
    "method": (str,),
    "backbone": (str,),
    "data": (str,),
    "seed": (int,),
    "members": (int,),
    "budget": (int, float),
    "epochs": (int, float),
    "samples_seen": (int,),
    "settings": (dict,),
    "metrics": (dict,),
    "versions": (dict,),
    "commit": (str,),
    "device": (str,),
    "seconds": (int, float),
}
ROW_KEYS = tuple(_KINDS)
NULLABLE = ("budget", "epochs", "samples_seen", "commit")
"""A dense network has no budget, a downloaded one no known training, an installed package no commit."""


def result_row(
    *,
    method: str,
    backbone: str,
    data: str,
    seed: int,
    members: int,
    budget: float | None,
    epochs: float | None,
    samples_seen: int | None,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """Builds and checks a row; versions and commit are looked up.

    Args:
        method: Name of the search algorithm or baseline; `dense` for the network as it came.
        backbone: Name of the backbone.
        data: Name of the data.
        seed: Seed of the run.
        members: Number of members K.
        budget: MACs of the ensemble over MACs of the dense network, as asked for.
        epochs: Epochs of fine-tuning.
        samples_seen: Training images, counted once for each member that saw them.
        settings: All settings; dataclasses and paths among the values are translated.
        metrics: What `evaluate` returned.
        device: The device in words, see `provenance.device_name`.
        seconds: Wall time of the run.

    Returns:
        Plain JSON values under `ROW_KEYS`, in this order.

    Raises:
        SubnetSearchError: as `check_row`, and where a setting is no JSON value.
    """
    try:
        plain = json.loads(json.dumps(dict(settings), default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SubnetSearchError(
            f"settings of the row cannot be written as JSON: {error}; use plain finite values"
        ) from error
    row = {
        "method": method,
        "backbone": backbone,
        "data": data,
        "seed": seed,
        "members": members,
        "budget": budget,
        "epochs": epochs,
        "samples_seen": samples_seen,
        "settings": plain,
        "metrics": dict(metrics),
        "versions": library_versions(),
        "commit": current_commit(),
        "device": device,
        "seconds": seconds,
    }
    check_row(row)
    return row


def check_row(row: Mapping[str, Any]) -> None:
    """Refuses a row that a table could misread.

    Args:
        row: A row, made here or read from a file.

    Raises:
        SubnetSearchError: where keys are missing, unknown, of the wrong kind or null without permission; where a
            metric is unknown, missing, not finite, or null although every network has it; where there are no members,
            or one member and yet diversity.
    """
    missing, unknown = sorted(set(ROW_KEYS) - set(row)), sorted(set(row) - set(ROW_KEYS))
    if missing or unknown:
        raise SubnetSearchError(
            f"result row: missing keys {missing}, unknown keys {unknown}; expected {list(ROW_KEYS)}"
        )
    for key, kinds in _KINDS.items():
        value = row[key]
        if value is None and key in NULLABLE:
            continue
        if (
            not isinstance(value, kinds)
            or isinstance(value, bool)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            expected = " or ".join(kind.__name__ for kind in kinds) + (" or null" if key in NULLABLE else "")
            raise SubnetSearchError(f"result row: {key} is {value!r}, expected {expected}, finite")
    if row["members"] < 1:
        raise SubnetSearchError(f"result row: members is {row['members']}, expected at least 1")
    _check_metrics(row["metrics"], row["members"])


def row_line(row: Mapping[str, Any]) -> str:
    """Returns a checked row as one line of JSON, without the line break."""
    check_row(row)
    return json.dumps(dict(row), ensure_ascii=False, allow_nan=False)


def _check_metrics(metrics: Mapping[str, Any], members: int) -> None:
    missing = [key for key in FIXED_KEYS if key not in metrics]
    unknown = [key for key in metrics if not is_key(key)]
    if missing or unknown:
        raise SubnetSearchError(
            f"result row: missing metrics {missing}, unknown metrics {unknown}; absent figures are null"
        )
    for key, value in metrics.items():
        if value is None:
            if key in NEVER_NULL:
                raise SubnetSearchError(f"result row: metric {key} is null, expected a number: every network has it")
        elif not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise SubnetSearchError(f"result row: metric {key} is {value!r}, expected a finite number or null")
        elif members == 1 and key.startswith("ens/"):
            raise SubnetSearchError(f"result row: metric {key} is {value} with one member, expected null")


def _plain(value: object) -> object:
    """Translates what JSON does not know but configurations hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} is no JSON value")
