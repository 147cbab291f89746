"""Result rows on disk: one JSON object a line, appended when a cell is finished, never changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subnet_search.files import append_line

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> list[dict[str, Any]]:
    """Returns all rows of `results/NAME.jsonl`, none where it does not exist."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def without_paths(content: Any, *folders: Path) -> Any:
    """Returns JSON values without the folders of this machine, longer ones first where one holds another."""
    text = json.dumps(content)
    for folder in sorted(folders, key=lambda folder: -len(str(folder))):
        text = text.replace(f"{folder}/", "")
    return json.loads(text)


def append(name: str, row: dict[str, Any]) -> None:
    """Adds a row to `results/NAME.jsonl`; it reaches the disk before the function returns."""
    append_line(RESULTS / f"{name}.jsonl", json.dumps(row, allow_nan=False))
