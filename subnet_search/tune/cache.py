"""What trials would compute again, on disk: one folder for each set of settings and inputs, named by their digest.

Any number of processes may use a cache at once. Files appear whole or not at all, and two that compute the same thing
write the same thing, so whichever is last is right.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_json
from subnet_search.masks import MaskSet
from subnet_search.relevance import Relevance
from subnet_search.run_folder import RunFolder

T = TypeVar("T")
Figures = dict[str, Any]

FIGURES = "figures.json"


@dataclass(frozen=True)
class Cache:
    """Results under the digest of all that decides them.

    Attributes:
        folder: Where they are kept.
        inputs: What all of them depend on, such as the digests of network and images.
    """

    folder: Path
    inputs: Mapping[str, Any]

    def relevance(self, key: Mapping[str, Any], compute: Callable[[], Relevance]) -> Relevance:
        """Returns scores of channels.

        Args:
            key: The settings that decide them, as JSON values.
            compute: Computes them; called only where they are not there.
        """
        entry = RunFolder(self._entry("relevance", key))
        return _remembered(entry.relevance, compute, entry.save_relevance)

    def figures(self, key: Mapping[str, Any], compute: Callable[[], Figures]) -> Figures:
        """Returns figures, and whatever else JSON can hold; arguments as in `relevance`."""
        path = self._entry("figures", key) / FIGURES
        return _remembered(lambda: _read(path), compute, lambda found: write_json(path, found))

    def measured(
        self, key: Mapping[str, Any], compute: Callable[[], tuple[MaskSet, Figures]]
    ) -> tuple[MaskSet, Figures]:
        """Returns the masks of a trained ensemble and its figures; arguments as in `relevance`."""
        folder = self._entry("measured", key)

        def read() -> tuple[MaskSet, Figures] | None:
            masks, figures = RunFolder(folder).masks(), _read(folder / FIGURES)
            return None if masks is None or figures is None else (masks, figures)

        def write(found: tuple[MaskSet, Figures]) -> None:
            RunFolder(folder).save_masks(found[0])
            write_json(folder / FIGURES, found[1])

        return _remembered(read, compute, write)

    def _entry(self, kind: str, key: Mapping[str, Any]) -> Path:
        """The folder of a result."""
        depends = {"kind": kind, "version": _version(), "inputs": dict(self.inputs), **key}
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True, allow_nan=False).encode()).hexdigest()
        return self.folder / digest[:2] / digest


def _remembered(read: Callable[[], T | None], compute: Callable[[], T], write: Callable[[T], None]) -> T:
    """Computes what cannot be read; a damaged file, as a failing disk leaves it, is replaced."""
    try:
        found = read()
    except SubnetSearchError:
        found = None
    if found is None:
        found = compute()
        write(found)
    return found


def _read(path: Path) -> Figures | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise SubnetSearchError(f"{path} is damaged ({problem}); delete it") from problem
    return found if isinstance(found, dict) else None


def _version() -> str | None:
    try:
        return importlib.metadata.version("subnet-search")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is imported without being installed
        return None
