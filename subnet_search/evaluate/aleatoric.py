"""Whether the network doubts the images that people doubt."""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch import Tensor

from subnet_search.ensemble.uncertainty import entropy
from subnet_search.errors import SubnetSearchError


def human_agreement(aleatoric: Tensor, human_counts: Tensor) -> float | None:
    """Spearman's rank correlation of expected entropy with the entropy of human labels (Peterson et al. 2019).

    Args:
        aleatoric: Expected entropy of the members, `[sample]`.
        human_counts: How many people gave each label, or shares of them, `[sample, class]`, at least 0.

    Returns:
        In [−1, 1], higher is better; ties get their mean rank. None where one of both is constant.

    Raises:
        SubnetSearchError: where the shapes do not fit, or a sample has no human label at all.
    """
    if human_counts.ndim != 2 or aleatoric.ndim != 1 or len(human_counts) != len(aleatoric):
        raise SubnetSearchError(
            f"human counts have shape {tuple(human_counts.shape)}, expected [{len(aleatoric)}, class]: one row for each test sample, in order"
        )
    counts = human_counts.cpu().double()
    totals = counts.sum(dim=1, keepdim=True)
    bad = int(((totals[:, 0] <= 0) | (counts < 0).any(dim=1) | ~torch.isfinite(counts).all(dim=1)).sum())
    if bad:
        raise SubnetSearchError(
            f"human counts: {bad} of {len(counts)} rows have no label or a negative one, expected counts of at least 0 with a positive sum"
        )
    doubt = entropy(counts / totals)
    own = aleatoric.cpu().double()
    if bool((own == own[0]).all()) or bool((doubt == doubt[0]).all()):
        return None
    return float(spearmanr(own.numpy(), doubt.numpy()).statistic)
