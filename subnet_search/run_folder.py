"""The folder of a run: its settings, and what each finished stage has left there."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes, write_json
from subnet_search.masks import MaskSet
from subnet_search.relevance import Relevance
from subnet_search.settings import RunConfig, from_dict, to_dict

log = logging.getLogger("subnet_search")

ONLY_FIGURES = ("test", "ood", "evaluate")
"""Settings that only the evaluation reads, so that an evaluation may be repeated with others."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Every file is written whole or not at all, so a stage is either done or not begun.

    Attributes:
        path: The folder.
    """

    path: Path

    @staticmethod
    def open(config: RunConfig) -> RunFolder:
        """Makes the folder of a run, or takes up one that holds the same run.

        Raises:
            SubnetSearchError: where the folder holds something else, or a run with other settings.
        """
        folder = RunFolder(config.out)
        settings = to_dict(config)
        if folder.config_file.exists():
            before = to_dict(folder.config())
            differing = _differences(before, settings)
            if differing:
                raise SubnetSearchError(
                    f"{config.out} holds a run with other settings: {'; '.join(differing)}; use another --out, or delete the folder"
                )
        elif config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
            raise SubnetSearchError(f"{config.out} exists and holds no run of this tool; use another --out")
        write_json(folder.config_file, settings)
        return folder

    @property
    def config_file(self) -> Path:
        """Where the settings are kept."""
        return self.path / "config.json"

    @property
    def checkpoint(self) -> Path:
        """Where the fine-tuning keeps its state."""
        return self.path / "checkpoint.pt"

    @property
    def ensemble(self) -> Path:
        """Where the exported ensemble is."""
        return self.path / "ensemble"

    @property
    def metrics_file(self) -> Path:
        """Where the figures are."""
        return self.path / "metrics.json"

    def config(self) -> RunConfig:
        """Reads the settings of the run."""
        try:
            values = json.loads(self.config_file.read_text())
        except (OSError, ValueError) as problem:
            raise SubnetSearchError(
                f"{self.config_file} cannot be read ({problem}); begin the run with `subnet-search run --out {self.path}`"
            ) from problem
        config: RunConfig = from_dict(RunConfig, values, str(self.config_file))
        return config

    def save_relevance(self, relevance: Relevance) -> None:
        """Keeps the scores of all channels."""
        notes = {
            "criterion": relevance.criterion,
            "completeness": relevance.completeness,
            "completeness_image": relevance.completeness_image,
            "samples": relevance.samples,
            "seconds": relevance.seconds,
        }
        _write(self.path / "relevance.safetensors", dict(relevance.scores), notes)

    def relevance(self) -> Relevance | None:
        """Returns the scores, or None where they have not been computed."""
        found = _read(self.path / "relevance.safetensors")
        return None if found is None else Relevance(found[0], **found[1])

    def save_masks(self, masks: MaskSet) -> None:
        """Keeps the masks."""
        notes = {"algorithm": masks.algorithm, "seed": masks.seed, "notes": dict(masks.notes)}
        _write(self.path / "masks.safetensors", dict(masks.masks), notes)

    def masks(self) -> MaskSet | None:
        """Returns the masks, or None where the search has not been run."""
        found = _read(self.path / "masks.safetensors")
        return None if found is None else MaskSet(found[0], **found[1])


def _write(path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, {"notes": json.dumps(notes)}))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            notes: dict[str, Any] = json.loads(file.metadata()["notes"])
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as problem:
        raise SubnetSearchError(f"{path} is damaged ({problem}); delete it, and the stage is run again") from problem


def _differences(before: dict[str, Any], now: dict[str, Any], where: str = "") -> list[str]:
    """The settings that differ, as `name: before → now`, apart from those that only the evaluation reads."""
    found: list[str] = []
    for name, value in now.items():
        if name in ONLY_FIGURES or (not where and name == "out"):
            continue
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _differences(old, value, f"{where}{name}.")
        elif old != value:
            found.append(f"{where}{name}: {old} there, {value} asked for")
    return found
