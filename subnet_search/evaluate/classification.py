"""Accuracy and the two proper scores of the averaged prediction."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from subnet_search.errors import SubnetSearchError

SMALLEST = torch.finfo(torch.float32).tiny
"""Probabilities are raised to this before a logarithm: one that underflowed to 0 costs 87 nats, not infinity."""


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of the samples whose most probable class is the label (the first one where several tie).

    Args:
        probabilities: `[sample, class]`.
        labels: int64 `[sample]` in 0..class − 1.

    Returns:
        In [0, 1], higher is better.

    Raises:
        SubnetSearchError: for wrong shapes, no samples or labels outside the classes; so do all figures here.
    """
    check(probabilities, labels)
    predicted = probabilities.argmax(dim=1)
    classes = max(probabilities.shape[1], 2)  # torchmetrics knows no classification with one class
    return float(multiclass_accuracy(predicted, labels, classes, average="micro", validate_args=False))


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of −log p[label] in nats (Good 1952), of the mean probabilities; arguments as in `accuracy`.

    Returns:
        At least 0, lower is better.
    """
    check(probabilities, labels)
    chosen = probabilities.double().gather(1, labels[:, None])
    return float(-chosen.clamp(min=SMALLEST).log().mean())


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Mean over the samples of Σ_class (p − onehot)², summed over the classes (Brier 1950).

    Some libraries divide by the number of classes, or halve it; here it is not divided. Arguments as in `accuracy`.

    Returns:
        In [0, 2], lower is better.
    """
    check(probabilities, labels)
    wanted = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return float((probabilities.double() - wanted).square().sum(dim=1).mean())


def check(probabilities: Tensor, labels: Tensor) -> None:
    """Refuses what no figure can be computed from.

    Raises:
        SubnetSearchError: where the shapes are not `[sample, class]` and `[sample]`, there are no samples, or a
            label is not in 0..class − 1.
    """
    if probabilities.ndim != 2 or labels.ndim != 1 or len(probabilities) != len(labels):
        raise SubnetSearchError(
            f"got probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)}, expected [sample, class] and [sample]"
        )
    if len(labels) == 0:
        raise SubnetSearchError("there are no samples to evaluate, expected at least one; check the data or the split")
    classes = probabilities.shape[1]
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        found = sorted(set(labels[outside].tolist()))
        raise SubnetSearchError(
            f"{int(outside.sum())} of {len(labels)} labels are outside 0..{classes - 1} (got {found[:5]}; -1 means "
            "unlabelled); evaluate on labelled samples, or give the set as an OOD set, which needs no labels"
        )
