"""What the ensemble is trained to make small."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from subnet_search.finetune.config import FinetuneConfig


def loss_of(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    config: FinetuneConfig,
    probed: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Computes the mean loss of the members.

    Args:
        logits: `[member, row, class]`.
        labels: int64 `[member, row]`.
        teacher: Logits of the dense network `[member, row, class]`, or None without distillation.
        config: Weights of the terms.
        probed: Logits `[member, row, class]` and targets `[row, class]` of other images (`FinetuneConfig.probes`);
            None takes those of the step.

    Returns:
        Scalar: (1 − distill)·((1 − joint)·mean cross-entropy of the members + joint·cross-entropy of their mean)
        + distill·T²·KL(teacher ‖ member) (Hinton et al. 2015, section 2)
        + decorrelate·mean pairwise correlation of residuals, on other images where there are any
        + learn_probes·mean cross-entropy of the members on those.
    """
    flat = logits.float().flatten(0, 1)
    loss = F.cross_entropy(flat, labels.flatten())
    if config.joint > 0:
        loss = loss - config.joint * (loss - ensemble_cross_entropy(logits.float(), labels))
    loss = loss * (1.0 - config.distill)
    if teacher is not None:
        warm = config.temperature
        divergence = F.kl_div(
            F.log_softmax(flat / warm, dim=-1),
            F.log_softmax(teacher.float().flatten(0, 1) / warm, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        loss = loss + config.distill * warm**2 * divergence
    if config.decorrelate > 0:
        answers, targets = probed or (logits, F.one_hot(labels[0], logits.shape[-1]))
        loss = loss + config.decorrelate * residual_correlation(answers.float(), targets)
    if config.learn_probes > 0 and probed is not None:
        answers, targets = probed
        missed = F.cross_entropy(answers.float().flatten(0, 1), targets.repeat(len(answers), 1))
        loss = loss + config.learn_probes * missed
    return loss


def ensemble_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the cross-entropy of the members' mean probabilities, which is the ensemble's loss.

    It is the mean loss of the members less their diversity (by Jensen's inequality never negative), so that a share of
    it in the loss is a reward for diversity. All of it lets members be bad on their own (Webb et al. 2021, "To Ensemble
    or Not Ensemble: When Does End-To-End Training Fail?", section 3; Buschjäger et al. 2020, "Generalized Negative
    Correlation Learning for Deep Ensembling").

    Args:
        logits: `[member, row, class]`, all members on the same images.
        labels: int64 `[member, row]`, the same for all members.

    Returns:
        Scalar, in nats.
    """
    mixed = logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
    return F.nll_loss(mixed, labels[0])


def residual_correlation(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the mean over pairs of members of the correlation of their residuals p − target.

    Args:
        logits: `[member, row, class]`, all members on the same images.
        targets: What there is to answer, as probabilities `[row, class]`.

    Returns:
        Scalar in [-1, 1]; 0 for one member.
    """
    members = logits.shape[0]
    if members < 2:
        return logits.new_zeros(())
    residual = logits.softmax(dim=-1) - targets.to(logits.dtype)
    flat = residual.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    unit = F.normalize(centred, dim=1)
    correlation = unit @ unit.T
    upper = torch.triu(torch.ones_like(correlation, dtype=torch.bool), diagonal=1)
    return correlation[upper].mean()
