"""Result rows on disk: one JSON object a line, appended when a cell is finished, never changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> list[dict[str, Any]]:
    """Returns all rows of `results/NAME.jsonl`, none where it does not exist."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def append(name: str, row: dict[str, Any]) -> None:
    """Adds a row to `results/NAME.jsonl`; it reaches the disk before the function returns."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
