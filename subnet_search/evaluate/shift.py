"""Accuracy and calibration as the images get worse: an honest network doubts more where it errs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.progress import Progress
from torch.utils.data import Dataset, Subset

from subnet_search.data.batches import evenly
from subnet_search.data.corrupt import KINDS, SEVERITIES, corrupt, quantised
from subnet_search.ensemble.uncertainty import decompose
from subnet_search.evaluate.calibration import expected_calibration_error
from subnet_search.evaluate.classification import accuracy, negative_log_likelihood
from subnet_search.evaluate.keys import shift_key
from subnet_search.evaluate.outputs import Outputs


def shift_figures(
    test: Dataset[Any], samples: int, predict: Callable[[Dataset[Any], str], Outputs], progress: Progress | None = None
) -> dict[str, float]:
    """Computes accuracy, NLL and ECE under every corruption at every severity (Ovadia et al. 2019).

    The clean images are read once, and only one corrupted set is in memory at a time.

    Args:
        test: Labelled test set of pictures.
        samples: How many of its images, spread evenly over it, are corrupted; all where there are fewer.
        predict: Runs the network over a dataset; its second argument is the name of the set, for messages.
        progress: Bar to report to.

    Returns:
        The keys `shift/KIND/SEVERITY/{Acc,NLL,ECE}`, 75 in all.

    Raises:
        SubnetSearchError: where the images are no pictures, a label is outside the classes, and as `predict`.
    """
    clean = quantised(Subset(test, evenly(test, samples).tolist()))
    cells = [(kind, severity) for kind in KINDS for severity in SEVERITIES]
    task = progress.add_task("evaluating: shift", total=len(cells)) if progress else None
    found: dict[str, float] = {}
    for kind, severity in cells:
        outputs = predict(corrupt(clean, kind, severity), f"{kind}, severity {severity}")
        probabilities = decompose(outputs.member_probabilities).probabilities
        found[shift_key(kind, severity, "Acc")] = accuracy(probabilities, outputs.labels)
        found[shift_key(kind, severity, "NLL")] = negative_log_likelihood(probabilities, outputs.labels)
        found[shift_key(kind, severity, "ECE")] = expected_calibration_error(probabilities, outputs.labels)
        if progress and task is not None:
            progress.advance(task)
    if progress and task is not None:
        progress.remove_task(task)
    return found
