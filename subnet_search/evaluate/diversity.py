"""How different the members are: an ensemble of copies is as good as one of them, and costs more."""

from __future__ import annotations

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.classification import SMALLEST, check


def member_accuracy(member_probabilities: Tensor, labels: Tensor) -> float | None:
    """Mean over the members of the accuracy that each has alone.

    Args:
        member_probabilities: `[member, sample, class]`.
        labels: int64 `[sample]`.

    Returns:
        In [0, 1]; None with one member, as all figures here.

    Raises:
        SubnetSearchError: for wrong shapes, no samples or labels outside the classes; so do all figures here.
    """
    if _single(member_probabilities, labels):
        return None
    return float((member_probabilities.argmax(dim=2) == labels).double().mean())


def disagreement(member_probabilities: Tensor, labels: Tensor) -> float | None:
    """Mean over the pairs of members of the share of samples on which their predicted classes differ.

    Skalak (1996); arguments as in `member_accuracy`; the labels are only checked.

    Returns:
        In [0, 1]; None with one member.
    """
    if _single(member_probabilities, labels):
        return None
    predicted = member_probabilities.argmax(dim=2)
    differ = (predicted[:, None, :] != predicted[None, :, :]).double().mean(dim=2)
    members = len(predicted)
    return float(differ.sum() / (members * (members - 1)))


def error_correlation(member_probabilities: Tensor, labels: Tensor) -> float | None:
    """Mean over the pairs of members of Pearson's correlation of their 0/1 error indicators.

    Kuncheva and Whitaker (2003), the correlation coefficient ρ of two classifiers. Arguments as in `member_accuracy`.

    Returns:
        In [−1, 1], lower is more diverse; None with one member, and where a member is never or always wrong: its
        indicator is constant, so its correlations do not exist, and a mean over the other pairs is another figure.
    """
    if _single(member_probabilities, labels):
        return None
    errors = (member_probabilities.argmax(dim=2) != labels).double()
    if bool((errors == errors[:, :1]).all(dim=1).any()):
        return None
    correlation = torch.corrcoef(errors)
    members = len(errors)
    return float((correlation.sum() - correlation.trace()) / (members * (members - 1)))


def pairwise_kl(member_probabilities: Tensor, labels: Tensor) -> float | None:
    """Mean over the ordered pairs of members and the samples of KL(p_k ‖ p_l), in nats.

    Arguments as in `member_accuracy`; the labels are only checked.

    Returns:
        At least 0; None with one member.
    """
    if _single(member_probabilities, labels):
        return None
    members, samples, _ = member_probabilities.shape
    p = member_probabilities.double()
    log_p = p.clamp(min=SMALLEST).log()
    # Σ_k Σ_l p_k (log p_k − log p_l) without the K² intermediate; the terms k = l are zero.
    own = members * (p * log_p).sum()
    crossed = (p.sum(dim=0) * log_p.sum(dim=0)).sum()
    return max(0.0, float((own - crossed) / (members * (members - 1) * samples)))


def _single(member_probabilities: Tensor, labels: Tensor) -> bool:
    """Checks the arguments; returns whether there is only one member."""
    if member_probabilities.ndim != 3 or len(member_probabilities) == 0:
        raise SubnetSearchError(
            f"member probabilities have shape {tuple(member_probabilities.shape)}, expected [member, sample, class]"
        )
    check(member_probabilities[0], labels)
    return len(member_probabilities) == 1
