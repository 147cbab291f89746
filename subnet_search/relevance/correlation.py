"""What each image adds to the correlation of a member's errors with those of the other members.

    corr(k, l) = Σ_x ⟨r_k(x), r_l(x)⟩ / (‖r_k‖ ‖r_l‖),    r_k(x) = p_k(x) − target(x),

over all images x that member k is scored on, which all members answer. Residuals sum to 0 over the classes, so this is
Pearson's correlation of all their entries, in [−1, 1], and large residuals count for most. It belongs to all images
together; to attribute it image by image, one image's answer is changed while the others stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.device import autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance.config import RelevanceConfig
from subnet_search.relevance.sample import member_batches, reference_logits

FLOOR = (
    1e-8  # added to the mean square residual, so that members that are always right have no correlation instead of 0/0
)


class ErrorCorrelation:
    """The correlation of each member's errors with the others', as a function of one image's logits.

    Args:
        residuals: `[owner, image, member, class]`: what all members say of the images on which the owner is scored,
            less the target.
    """

    def __init__(self, residuals: Tensor) -> None:
        self.residuals = residuals
        self.images = residuals.shape[1]
        owners = torch.arange(len(residuals), device=residuals.device)
        own = residuals[owners, :, owners]
        self.products = torch.einsum("oimc,oic->om", residuals, own)
        self.squares = residuals.square().sum(dim=(1, 3)) + FLOOR * self.images

    def of_rows(self, logits: Tensor, targets: Tensor, places: Tensor) -> Tensor:
        """Computes Σ_l corr(k, l) over the other members, for each row with this row's answer alone changed.

        The correlation is multiplied by the number of images: the mean over images of a change is then, to first
        order, the change of the correlation when all answers change.

        Args:
            logits: What the owner says now, `[row, class]`.
            targets: One-hot labels, or the reference's probabilities, `[row, class]`.
            places: The row's owner · images + number of its image, int64 `[row]`.

        Returns:
            float32 `[row]`, in ± images · (members − 1).
        """
        owner, image = places // self.images, places % self.images
        members = self.residuals[owner, image]
        before = members[torch.arange(len(owner), device=owner.device), owner]
        now = logits.float().softmax(dim=-1) - targets
        product = self.products[owner] + torch.einsum("rmc,rc->rm", members, now - before)
        square = self.squares[owner, owner] + now.square().sum(dim=-1) - before.square().sum(dim=-1)
        correlation = product / (square[:, None] * self.squares[owner]).sqrt()
        others = F.one_hot(owner, self.residuals.shape[2]) == 0
        return self.images * (correlation * others).sum(dim=-1)


@torch.no_grad()
def error_correlation(
    ensemble: SubnetEnsemble, dataset: Dataset[tuple[Tensor, int]], config: RelevanceConfig, dense: nn.Module | None
) -> ErrorCorrelation:
    """Lets all members answer to the images of each member.

    Args:
        ensemble: In eval mode, with the masks that the members have now.
        dataset: Training images.
        config: Which images, and whether the target is their label or the dense network's answer.
        dense: The dense network, for scores without labels.
    """
    members = ensemble.members
    parts = []
    for rows, labels in member_batches(ensemble, dataset, config, max(1, config.batch_rows // members**2)):
        with autocast(rows.device, config.precision):
            logits = ensemble(rows)
        target = targets(labels, reference_logits(dense, rows, config), ensemble.graph.classes)
        residual = logits.float().softmax(dim=-1) - target
        parts.append(residual.unflatten(1, (members, -1)).permute(1, 2, 0, 3))
    return ErrorCorrelation(torch.cat(parts, dim=1))


def targets(labels: Tensor, reference: Tensor | None, classes: int) -> Tensor:
    """Returns what a perfect answer would be, float32 `[row, class]`: the label, or the reference's probabilities."""
    return F.one_hot(labels, classes).float() if reference is None else reference.float().softmax(dim=-1)


def places_of(correlation: ErrorCorrelation, members: int, first: int, images: int, device: torch.device) -> Tensor:
    """Returns what `ErrorCorrelation.of_rows` wants to know of a batch's rows, in which each member has `images`."""
    owners = torch.arange(members, device=device)[:, None] * correlation.images
    return (owners + torch.arange(first, first + images, device=device)).flatten()


def combined(loss: Tensor, correlation: Tensor, config: RelevanceConfig) -> Tensor:
    """Puts the two parts of a channel's score together.

    The part of the loss is a mean of absolute values, as signed ones cancel: the network was trained until they do. That
    of the correlation keeps its sign, as a channel that makes errors alike must lose what one that makes them differ gains.

    Args:
        loss: Mean over images of |integral of the loss|^p, at least 0.
        correlation: Mean over images of the integral of the correlation: above 0 where the channel raises it.
        config: Weight λ of the correlation.
    """
    return (loss - config.lambda_corr * correlation).clamp(min=0.0)
