"""Predictions of an exported ensemble as a file that other programs read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch.utils.data import Dataset

from subnet_search.data import ArrayDataset, batches
from subnet_search.ensemble import SubnetEnsemble, Uncertainty, thinned
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import refused
from subnet_search.evaluate.outputs import check_broken
from subnet_search.files import check_out, write_text

Record = dict[str, int | float | str]
UNCERTAINTIES = ("max_probability", "total", "aleatoric", "epistemic", "variation_ratio", "energy")


def write_predictions(
    ensemble: SubnetEnsemble,
    dataset: Dataset[tuple[torch.Tensor, int]],
    path: Path,
    batch_size: int = 256,
    progress: Progress | None = None,
    refuse: Mapping[str, float] | None = None,
) -> int:
    """Classifies images and writes one record for each, in their order, with the `file` of those that come from files.

    Args:
        ensemble: The network.
        dataset: Raw images.
        path: Target; `.csv` or `.json`, in small or capital letters, decides the form. A file there is replaced.
        batch_size: Images of one forward pass.
        progress: Bar to report to.
        refuse: Score → limit (`evaluate.limits`); images that are beyond one of them are `refused`, 1 or 0.

    Returns:
        Number of images.

    Raises:
        SubnetSearchError: where the suffix is another, `batch_size` is less than 1, the file cannot be written, or what
            the network says is NaN or infinite; nothing is written then.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise SubnetSearchError(f"predictions go to a .csv or .json file, got {path}; choose such a name for --out")
    if batch_size < 1:
        raise SubnetSearchError(f"batch_size is {batch_size}, expected at least 1")
    check_out(path)
    records: list[Record] = []
    files = dataset.files if isinstance(dataset, ArrayDataset) else ()
    total = len(dataset)  # type: ignore[arg-type] # map-style, as all of the package's data
    task = progress.add_task("predicting", total=total) if progress else None
    broken = 0
    judged = thinned(ensemble)  # the same answers in a fraction of the time
    for images, _ in batches(dataset, batch_size):
        answer = judged.predict(images)
        broken += _broken(answer)
        beyonds = [refused(answer, score, limit) for score, limit in (refuse or {}).items()]
        for row in range(len(images)):
            probabilities = answer.probabilities[row].tolist()
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            record: Record = {"index": len(records)}
            if files:
                record["file"] = files[len(records)]
            record["class"] = ensemble.card.classes[best]
            record |= {name: float(getattr(answer, name)[row]) for name in UNCERTAINTIES}
            if refuse:
                record["refused"] = int(any(beyond[row] for beyond in beyonds))
            record |= {f"p_{c}": p for c, p in zip(ensemble.card.classes, probabilities, strict=True)}
            records.append(record)
        if progress and task is not None:
            progress.advance(task, len(images))
    check_broken(broken, len(records), "predictions")
    try:
        write_text(path, _json(records) if suffix == ".json" else _csv(records))
    except OSError as problem:
        raise SubnetSearchError(f"{path} cannot be written ({problem}); choose another --out") from problem
    return len(records)


def _broken(answer: Uncertainty) -> int:
    """Number of images whose answer holds a NaN or an infinity; −inf for a class is its probability of 0."""
    finite = answer.probabilities.isfinite().all(dim=1)
    if answer.energy is not None:
        finite &= answer.energy.isfinite()
    return int((~finite).sum())


def _json(records: Sequence[Record]) -> str:
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(records: Sequence[Record]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
