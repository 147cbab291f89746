"""The folder of a run: its settings, and what each finished stage has left there."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnet_search.errors import SubnetSearchError
from subnet_search.evidence import Evidence
from subnet_search.files import write_json
from subnet_search.masks import MaskSet
from subnet_search.records import read_masks, read_record, write_masks, write_record
from subnet_search.relevance import Relevance
from subnet_search.search import MEASURING
from subnet_search.settings import RunConfig, from_dict, to_dict

log = logging.getLogger("subnet_search")

REPEATABLE = ("images.test", "images.ood", "evaluate", "export", "log")
"""Settings that only the last stages read, so that these may be repeated with others, or that change no result."""

CONFIG, INPUTS, LOG, METRICS = "config.json", "inputs.json", "log.txt", "metrics.json"
RELEVANCE, MASKS, CHECKPOINT, ENSEMBLE = "relevance.safetensors", "masks.safetensors", "checkpoint.pt", "ensemble"
ROUNDS = "rounds"
FORMATS, EVIDENCE, REPORT = "formats", "evidence.safetensors", "report.html"
RESULTS = (RELEVANCE, ROUNDS, MASKS, CHECKPOINT, METRICS, ENSEMBLE)

FIXED_BY = {
    "relevance": (RELEVANCE, ROUNDS, MASKS),
    "search": (ROUNDS, MASKS),
    "ensemble": (ROUNDS, CHECKPOINT, METRICS, ENSEMBLE),
    "ensemble.trunk": (ROUNDS, MASKS, CHECKPOINT, METRICS, ENSEMBLE),  # what is in common pays for what is not
    "finetune": (ROUNDS, CHECKPOINT, METRICS, ENSEMBLE),
}
"""Stage, or a setting of it → the results that it has gone into; those of other names have gone into all."""

MEASURED_WITH = ("finetune.augment", "finetune.precision")
"""Settings of the training that a measured search takes too."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Every file is written whole or not at all, so a stage is either done or not begun.

    Attributes:
        path: The folder.
    """

    path: Path

    @staticmethod
    def check(config: RunConfig) -> RunFolder:
        """Returns the folder of a run; nothing is written.

        Settings of stages that have left nothing yet may be others than those that are kept there.

        Raises:
            SubnetSearchError: where the folder holds something else, or a run with other settings.
        """
        folder = RunFolder(config.out)
        if folder.exists():
            differing = folder._differences(to_dict(folder.config()), to_dict(config))
            if differing:
                raise SubnetSearchError(
                    f"{config.out} holds a run with other settings: {'; '.join(differing)}; use another --out, or delete the folder"
                )
        elif config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
            raise SubnetSearchError(f"{config.out} exists and holds no run of this tool; use another --out")
        return folder

    @staticmethod
    def open(config: RunConfig, inputs: Mapping[str, str]) -> RunFolder:
        """Makes the folder of a run, or takes up one that holds the same run, and keeps the settings there.

        Args:
            config: All settings.
            inputs: What the run works on, as `inputs.training_digests` tells it; names alone do not show that a file has changed.

        Raises:
            SubnetSearchError: as `check`, where results in the folder come from other inputs, or it cannot be written.
        """
        folder = RunFolder.check(config)
        before = _read_json(folder.path / INPUTS) if folder._any(RESULTS) else inputs
        changed = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
        if changed:
            raise SubnetSearchError(
                f"{config.out} holds results for another {' and other '.join(changed)}, under the same settings; use another --out, or delete the folder"
            )
        try:
            write_json(folder.config_file, to_dict(config))
            write_json(folder.path / INPUTS, dict(inputs))
        except OSError as problem:
            raise SubnetSearchError(f"{config.out} cannot be written ({problem}); use another --out") from problem
        return folder

    def exists(self) -> bool:
        """Tells whether there is a run in the folder."""
        return self.config_file.exists()

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Adds what the package logs to `log.txt` while the block lasts, and what ended it before its time.

        Whoever has set up logging otherwise gets what they would have got without this file, and no more.
        """
        handler = logging.FileHandler(self.path / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        onwards = _Onwards(log.getEffectiveLevel(), None if log.hasHandlers() else logging.lastResort)
        level, propagate = log.level, log.propagate
        log.addHandler(handler)
        if propagate:
            log.addHandler(onwards)
        log.propagate = False
        log.setLevel(logging.INFO)
        try:
            yield
        except BaseException as problem:  # Ctrl-C too
            log.info("stopped by %s: %s", type(problem).__name__, problem)
            raise
        finally:
            log.setLevel(level)
            log.propagate = propagate
            log.removeHandler(onwards)
            log.removeHandler(handler)
            handler.close()

    @property
    def config_file(self) -> Path:
        """Where the settings are kept."""
        return self.path / CONFIG

    @property
    def rounds(self) -> Path:
        """Where a search that trains keeps the masks and checkpoints of its phases."""
        return self.path / ROUNDS

    @property
    def checkpoint(self) -> Path:
        """Where the fine-tuning keeps its state."""
        return self.path / CHECKPOINT

    @property
    def ensemble(self) -> Path:
        """Where the exported ensemble is."""
        return self.path / ENSEMBLE

    @property
    def formats(self) -> Path:
        """Where the ensemble is in the forms that other programs run or read."""
        return self.path / FORMATS

    @property
    def metrics_file(self) -> Path:
        """Where the figures are."""
        return self.path / METRICS

    @property
    def report(self) -> Path:
        """Where the report is; its figures and their data are beside it, in a folder `report`."""
        return self.path / REPORT

    def config(self) -> RunConfig:
        """Reads the settings of the run."""
        return from_dict(RunConfig, _read_json(self.config_file), str(self.config_file))

    def save_relevance(self, relevance: Relevance) -> None:
        """Keeps the scores of all channels."""
        notes = {
            "criterion": relevance.criterion,
            "completeness": relevance.completeness,
            "completeness_image": relevance.completeness_image,
            "samples": relevance.samples,
            "seconds": relevance.seconds,
            "groups": relevance.groups,
        }
        write_record(self.path / RELEVANCE, relevance.scores, notes)

    def relevance(self) -> Relevance | None:
        """Returns the scores, or None where they have not been computed."""
        return read_record(
            self.path / RELEVANCE,
            lambda scores, notes: Relevance(scores, **{**notes, "groups": tuple(notes.get("groups", ()))}),
        )

    def save_masks(self, masks: MaskSet) -> None:
        """Keeps the masks."""
        write_masks(self.path / MASKS, masks)

    def masks(self) -> MaskSet | None:
        """Returns the masks, or None where the search has not been run."""
        return read_masks(self.path / MASKS)

    def metrics(
        self, config: RunConfig | None = None, inputs: Mapping[str, str] | None = None
    ) -> dict[str, Any] | None:
        """Returns the figures, or None where there are none (for these settings and inputs, which go together)."""
        if not self.metrics_file.exists():
            return None
        metrics = _read_json(self.metrics_file, f"delete this file alone, or {self._evaluated}; no training is lost")
        if config is None or inputs is None:
            return metrics
        other = {"out": None, "export": None, "log": None}  # which do not change what was measured
        settings = {**to_dict(config), **other, "inputs": dict(inputs)}
        same = all({"inputs": {}, **row.get("settings", {}), **other} == settings for row in metrics.values())
        return metrics if same else None

    def save_evidence(self, evidence: Evidence) -> None:
        """Keeps what the figures of the report are drawn from."""
        write_record(self.path / EVIDENCE, evidence.tensors(), evidence.notes())

    def evidence(self) -> Evidence | None:
        """Returns what the figures of the report are drawn from; None where nothing was kept, as by older versions."""
        return read_record(self.path / EVIDENCE, Evidence.of, self._evaluated)

    @property
    def _evaluated(self) -> str:
        """What makes damaged figures, and what they are drawn from, again."""
        return f"run subnet-search evaluate --out {self.path}, which writes it anew"

    def _any(self, names: tuple[str, ...]) -> bool:
        return any((self.path / name).exists() for name in names)

    def _gone_into(self, setting: str) -> tuple[str, ...]:
        """The results that a setting decides, by its name with dots."""
        stage = FIXED_BY.get(setting) or FIXED_BY.get(setting.partition(".")[0], RESULTS)
        return (MASKS, *stage) if setting in MEASURED_WITH and self.config().search.algorithm in MEASURING else stage

    def _differences(self, before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
        """The settings that differ and have gone into a result, as `name: value there, value asked for`."""
        found: list[str] = []
        for name, value in now.items():
            full = where + name
            if full in REPEATABLE or full == "out":
                continue
            old = before.get(name)
            if isinstance(value, dict) and isinstance(old, dict):
                found += self._differences(old, value, f"{full}.")
            elif old != value and self._any(self._gone_into(full)):
                found.append(f"{full}: {_plain(old)} there, {_plain(value)} asked for")
        return found


class _Onwards(logging.Handler):
    """Hands records of a level on to the handlers of the root, as propagation does whatever the level of the root.

    That of ExecuTorch, which its import installs, would print all of `log.txt` on the console.

    Args:
        level: The level.
        alone: Takes them where the root has no handlers: Python's own, which prints warnings where nobody has set up
            logging, and does not see that the file is no such handler.
    """

    def __init__(self, level: int, alone: logging.Handler | None) -> None:
        super().__init__(level)
        self.alone = [alone] if alone else []

    def emit(self, record: logging.LogRecord) -> None:
        for handler in logging.getLogger().handlers or self.alone:
            if record.levelno >= handler.level:
                handler.handle(record)


def _read_json(path: Path, advice: str = "use another --out, or delete the folder") -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a mapping, got {type(content).__name__}")
    except (OSError, ValueError) as problem:
        raise SubnetSearchError(f"{path} cannot be read ({problem}); {advice}") from problem
    return content


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
