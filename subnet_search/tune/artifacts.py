"""Masks and figures of trials as artifacts of the study, which optuna-dashboard shows and `pick` takes up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from subnet_search.files import write_bytes, write_json
from subnet_search.masks import MaskSet
from subnet_search.run_folder import RunFolder

ARTIFACTS = "artifacts"


class WholeFiles(FileSystemArtifactStore):
    """A store whose files appear whole or not at all, whoever is killed while writing.

    Args:
        folder: Where they are kept, under their identifiers.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes a file."""
        write_bytes(self._folder / artifact_id, content_body.read())


def store_of(out: Path) -> WholeFiles:
    """Returns the store of the study in a folder."""
    return WholeFiles(out / ARTIFACTS)


def keep_artifacts(
    trial: optuna.Trial, out: Path, folder: RunFolder, masks: MaskSet, metrics: Mapping[str, Any]
) -> dict[str, str]:
    """Keeps what a trial has come to.

    Args:
        trial: The trial, running.
        out: Folder of the study.
        folder: Folder of the trial, in which the files are made.
        masks: Its masks; `RunFolder.masks` reads them.
        metrics: Its figures on the validation images.

    Returns:
        `artifact`: identifier of the masks, as safetensors; `artifact_metrics`: that of the figures, as JSON.
    """
    store = store_of(out)
    folder.save_masks(masks)
    write_json(folder.metrics_file, dict(metrics))
    files = {"artifact": folder.path / "masks.safetensors", "artifact_metrics": folder.metrics_file}
    return {
        name: upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial)
        for name, path in files.items()
    }
