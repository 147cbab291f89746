"""Figures of a run that show whether the members are independent, and what each is worth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from subnet_search.evaluate import Answers
from subnet_search.masks import MaskSet
from subnet_search.plots.member_accuracy import member_accuracy
from subnet_search.plots.pair_matrices import Matrix, pair_matrices
from subnet_search.report.page import Drawing
from subnet_search.report.wording import percent


def member_drawings(masks: MaskSet, dense: Answers | None, ensemble: Answers | None) -> list[Drawing]:
    """Draws overlap and error correlation of every two members, and the accuracy of each.

    Args:
        masks: The masks.
        dense: What the dense network said on the test images, None where that is not known.
        ensemble: What the ensemble said.
    """
    overlap = masks.iou().numpy()
    matrices = [Matrix("shared channels (IoU)", overlap)]
    errors = None
    if ensemble is not None:
        errors = error_correlation(ensemble)
        matrices.append(Matrix("error correlation", errors))
    drawings = [_pairs(matrices, overlap, errors)]
    if dense is not None and ensemble is not None:
        drawings.append(_accuracies(dense, ensemble))
    return drawings


def error_correlation(answers: Answers) -> NDArray[np.float64]:
    """Returns Pearson's correlation of the members' errors, `[member, member]`; NaN where one is never or always wrong."""
    errors = answers.member_errors.double()
    found = torch.full((len(errors), len(errors)), torch.nan, dtype=torch.float64)
    mixed = (errors != errors[:, :1]).any(dim=1).nonzero().flatten()
    if len(mixed) > 1:
        found[mixed[:, None], mixed] = torch.corrcoef(errors[mixed])
    return np.asarray(found.numpy())


def _pairs(matrices: list[Matrix], overlap: NDArray[np.float64], errors: NDArray[np.float64] | None) -> Drawing:
    pairs = list(combinations(range(len(overlap)), 2))
    alt = f"Mean overlap of two members {np.mean([overlap[pair] for pair in pairs]):.2f}."
    words = "Every two members, the stronger the colour, the more alike: how much of their channels they share"
    words += (
        "."
        if errors is None
        else (
            ", and whether they are wrong on the same images (0: independent, 1: always together). Averaging helps where "
            "members err apart."
        )
    )
    if errors is not None:
        known = [float(errors[pair]) for pair in pairs if not np.isnan(errors[pair])]
        if known:
            alt += f" Mean error correlation {np.mean(known):.2f}, from {min(known):.2f} to {max(known):.2f}."
        if len(known) < len(pairs):
            words += " A dash: one of the two is never wrong, so that there is no correlation."
    return Drawing(
        name="pairs",
        title="Overlap and error correlation",
        words=words,
        alt=alt,
        figure=pair_matrices(matrices),
        data=[
            {
                "member_a": a + 1,
                "member_b": b + 1,
                "iou": float(overlap[a, b]),
                "error_correlation": "" if errors is None or np.isnan(errors[a, b]) else float(errors[a, b]),
            }
            for a, b in pairs
        ],
    )


def _accuracies(dense: Answers, ensemble: Answers) -> Drawing:
    members = [1.0 - float(errors.double().mean()) for errors in ensemble.member_errors]
    together, alone = (1.0 - float(answers.errors.double().mean()) for answers in (ensemble, dense))
    names = ["ensemble", "dense", *(f"member {k + 1}" for k in range(len(members)))]
    accuracies = [together, alone, *members]
    return Drawing(
        name="member-accuracy",
        title="Accuracy of each member alone",
        words=(
            "What averaging is worth is the step from the members to the ensemble. Bars: intervals of 95 %, by the number "
            "of images; dashed: the dense network."
        ),
        alt="Accuracies: " + ", ".join(f"{n} {percent(a, 2)}" for n, a in zip(names, accuracies, strict=True)) + ".",
        figure=member_accuracy(together, alone, members, len(ensemble.labels)),
        data=[{"network": n, "accuracy": a} for n, a in zip(names, accuracies, strict=True)],
    )
