"""How well a score tells positives from negatives, without choosing a threshold by hand.

In all of these a higher score means *more positive*, and samples with equal scores enter together, so that the
order of the samples never matters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from subnet_search.errors import SubnetSearchError


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting one half.

    Args:
        scores: Finite, `[sample]`, any range.
        positive: bool `[sample]`.

    Returns:
        In [0, 1]; None where there are no positives or no negatives.
    """
    if not _both_kinds(scores, positive):
        return None
    return float(binary_auroc(_ranks(scores), positive.long(), validate_args=False))


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the precision-recall curve as average precision: Σ (recall_i − recall_{i−1}) · precision_i.

    The sum runs over the distinct scores from the highest down, without interpolation. The value of a useless
    score is the share of positives, so compare only at the same share.

    Args:
        scores: Finite, `[sample]`, any range.
        positive: bool `[sample]`.

    Returns:
        In (0, 1]; None where there are no positives or no negatives.
    """
    if not _both_kinds(scores, positive):
        return None
    return float(binary_average_precision(_ranks(scores), positive.long(), validate_args=False))


def fpr_at_tpr(scores: Tensor, positive: Tensor, percent: int = 95) -> float | None:
    """Share of the negatives that are flagged when at least `percent` % of the positives are.

    The threshold τ is the highest score of a positive at which |{positives ≥ τ}| ≥ percent % of all positives;
    flagged is every score ≥ τ, the negatives that equal τ included. Nothing is interpolated.

    Args:
        scores: Finite, `[sample]`, any range.
        positive: bool `[sample]`.
        percent: True-positive rate to reach, 1 to 100.

    Returns:
        In [0, 1], lower is better; None where there are no positives or no negatives.
    """
    if not 1 <= percent <= 100:
        raise SubnetSearchError(f"percent is {percent}, expected 1 to 100")
    if not _both_kinds(scores, positive):
        return None
    descending = scores[positive].sort(descending=True).values
    needed = -(-percent * len(descending) // 100)  # ceiling in integers: 0.95 has no exact float
    return float((scores[~positive] >= descending[needed - 1]).double().mean())


def _both_kinds(scores: Tensor, positive: Tensor) -> bool:
    """Checks the arguments; returns whether there are both positives and negatives."""
    if scores.ndim != 1 or scores.shape != positive.shape or positive.dtype != torch.bool:
        raise SubnetSearchError(
            f"got scores {tuple(scores.shape)} and positives {positive.dtype} {tuple(positive.shape)}, expected [sample] and bool [sample]"
        )
    if not bool(torch.isfinite(scores).all()):
        raise SubnetSearchError(f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    return bool(positive.any()) and not bool(positive.all())


def _ranks(scores: Tensor) -> Tensor:
    """Dense ranks in [0, 1]: outside that range torchmetrics applies a sigmoid, which merges distinct scores."""
    values, ranks = torch.unique(scores, sorted=True, return_inverse=True)
    scaled: Tensor = ranks.double() / max(len(values) - 1, 1)
    return scaled
