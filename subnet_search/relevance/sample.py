"""The images on which relevance is measured, and the loss whose change is attributed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.data import batches
from subnet_search.data.batches import length
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.relevance.config import RelevanceConfig


def member_batches(
    ensemble: SubnetEnsemble, dataset: Dataset[tuple[Tensor, int]], config: RelevanceConfig, images: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields prepared images and labels for all members.

    Args:
        ensemble: Gives the number of members, the card and the device.
        dataset: Training images.
        config: Number of samples, seed, whether members get their own images.
        images: Images of each member in a batch.

    Yields:
        `[member * image, *input_shape]` and int64 `[member * image]`, member-major.

    Raises:
        SubnetSearchError: where labels that are to be used are outside the classes.
    """
    size, classes = length(dataset), ensemble.graph.classes
    wanted = min(config.samples, size)
    own = []
    for member in range(ensemble.members):
        generator = torch.Generator().manual_seed(config.seed + (104_729 * (member + 1) if config.bootstrap else 0))
        own.append(torch.randperm(size, generator=generator)[:wanted])
    order = torch.stack(own)
    device = next(ensemble.parameters()).device
    for start in range(0, wanted, images):
        chosen = order[:, start : start + images]
        rows, labels = next(iter(batches(dataset, chosen.numel(), chosen.flatten())))
        lowest, highest = (int(label) for label in labels.aminmax())
        if config.labels and not 0 <= lowest <= highest < classes:
            raise SubnetSearchError(
                f"relevance: labels run from {lowest} to {highest}, expected 0 to {classes - 1}; correct them, or set relevance.labels=false to score without labels"
            )
        yield ensemble.card.prepare(rows.to(device)), labels.to(device)


def losses(logits: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:
    """Computes the loss of each row.

    Args:
        logits: `[row, class]`.
        labels: int64 `[row]`.
        reference: The dense network's logits `[row, class]`, or None to use the labels.

    Returns:
        float32 `[row]`: the cross-entropy with the labels, or KL(dense ‖ member) without labels.
    """
    if reference is None:
        return F.cross_entropy(logits.float(), labels, reduction="none")
    log_reference = reference.float().log_softmax(dim=-1)
    return F.kl_div(logits.float().log_softmax(dim=-1), log_reference, reduction="none", log_target=True).sum(dim=-1)


def reference_logits(dense: nn.Module | None, rows: Tensor, config: RelevanceConfig) -> Tensor | None:
    """Returns what the dense network answers, where the labels are not to be used."""
    if config.labels or dense is None:
        return None
    with torch.no_grad():
        answer: Tensor = dense(rows)
    return answer
