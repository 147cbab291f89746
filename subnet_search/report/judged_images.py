"""On which images the figures of a report are: test images, or, where none were given, the held-out ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEST, HELD_OUT = "test images", "held-out images"


def judged_images(row: Mapping[str, Any]) -> str:
    """Names the images that the figures of a result row are computed on; a row that does not tell is taken for tested."""
    inputs = row["settings"].get("inputs", {"test set": ""})
    return TEST if "test set" in inputs else HELD_OUT


def caution(images: str) -> str:
    """Says what must be known of figures on such images, with a space before it; nothing of test images."""
    if images == TEST:
        return ""
    return (
        " No test images were given: all figures are on the held-out images, and a network that has seen them in its "
        "own training looks better than it is. Give test images that it has not seen (--test)."
    )
