"""How much of a prediction's doubt is in the input, and how much in the members' disagreement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError


@dataclass(frozen=True)
class Uncertainty:
    """The averaged prediction of an ensemble and the parts of its uncertainty; entropies are in nats.

    Attributes:
        probabilities: Mean over the members of their probabilities, `[batch, class]`.
        total: Predictive entropy, the entropy of the mean, `[batch]` in [0, log class].
        aleatoric: Expected entropy, the mean of the members' entropies, `[batch]` in [0, log class].
        epistemic: Mutual information between prediction and member, `[batch]` in [0, log member]; 0 where all
            members give the same probabilities, and so always with one member.
        max_probability: Largest mean probability, `[batch]` in [1 / class, 1].
        variation_ratio: Share of the members that do not vote for the most voted class, `[batch]` in [0, 1).
        member_probabilities: What each member says, `[member, batch, class]`.
        energy: Free energy of the logits, mean over the members, `[batch]`; see `free_energy`. It has no range, and is
            the higher the less an image is like those of the training. None where only probabilities are known.
    """

    probabilities: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    max_probability: Tensor
    variation_ratio: Tensor
    member_probabilities: Tensor
    energy: Tensor | None = None


def uncertainty_of(logits: Tensor) -> Uncertainty:
    """Decomposes what members say, and adds the energy.

    Args:
        logits: `[member, batch, class]`, or `[batch, class]` of a single network; floating point.

    Returns:
        All parts, in float64 (float32 on a device that has no float64).

    Raises:
        SubnetSearchError: as `decompose`.
    """
    members = (logits if logits.ndim == 3 else logits[None]).float()
    return replace(decompose(members.softmax(dim=-1)), energy=free_energy(members))


def free_energy(member_logits: Tensor) -> Tensor:
    """Computes the free energy −log Σ_class exp logit (Liu et al. 2020, eq. 4, at temperature 1), mean over the members.

    It keeps what a softmax takes away: how large the logits are, beside how they differ.

    Args:
        member_logits: `[member, batch, class]`, floating point.

    Returns:
        `[batch]`, in float64 (float32 on a device that has no float64); higher = less like the training images.
    """
    return -member_logits.to(_precise(member_logits)).logsumexp(dim=-1).mean(dim=0)


def decompose(member_probabilities: Tensor) -> Uncertainty:
    """Splits the predictive entropy into expected entropy (aleatoric) and mutual information (epistemic).

    H[mean_k p_k] = mean_k H[p_k] + I[y; k] (Houlsby et al. 2011, eq. 2; Depeweg et al. 2018). Works in
    float64, because the mutual information of a confident prediction is a small difference of two entropies.
    A zero probability counts as 0 · log 0 = 0.

    Args:
        member_probabilities: `[member, batch, class]`, floating point of any precision, rows that sum to 1. The
            values are not looked at, so that the function can be traced for an export.

    Returns:
        The parts, in float64 on the same device (float32 on a device that has no float64).

    Raises:
        SubnetSearchError: where the shape is not `[member, batch, class]`, or there is no member or class.
    """
    shape = tuple(member_probabilities.shape)
    if len(shape) != 3 or shape[0] < 1 or shape[2] < 1 or not member_probabilities.is_floating_point():
        raise SubnetSearchError(
            f"member probabilities: got {member_probabilities.dtype} of shape {shape}, expected floating point "
            "[member, batch, class]; for a single network add the member axis with probabilities[None]"
        )
    precise = _precise(member_probabilities)
    members = member_probabilities.to(precise)
    mean = members.mean(dim=0)
    total = entropy(mean)
    aleatoric = entropy(members).mean(dim=0)
    gap = total - aleatoric
    # What is left when equal members are subtracted is rounding; as a ranking score it would be noise.
    epistemic = torch.where(gap <= 64 * torch.finfo(precise).eps, torch.zeros_like(gap), gap)  # NaN stays NaN
    votes = torch.nn.functional.one_hot(members.argmax(dim=2), shape[2]).sum(dim=0)
    return Uncertainty(
        probabilities=mean,
        total=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
        max_probability=mean.amax(dim=1),
        variation_ratio=1.0 - votes.amax(dim=1).to(precise) / shape[0],
        member_probabilities=members,
    )


def entropy(probabilities: Tensor) -> Tensor:
    """Returns the Shannon entropy in nats over the last axis: `[..., class]` → `[...]`; 0 · log 0 counts as 0."""
    return (0.0 - torch.xlogy(probabilities, probabilities).sum(dim=-1)).clamp(min=0.0)  # from 0.0: no −0.0


def _precise(tensor: Tensor) -> torch.dtype:
    """The widest type of the device."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
