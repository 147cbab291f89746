"""Images that are made of those of training, and lie between, beside and outside of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Probes = Literal["images", "mixed", "noisy", "jumbled"]
"""Which images the members answer to beside those of a step; see `FinetuneConfig.probes`."""
STRIPS = 4
"""Into how many strips an image is cut along each axis to be jumbled."""


def probes_of(rows: Tensor, targets: Tensor, kind: Probes) -> tuple[Tensor, Tensor]:
    """Makes other images of the training images of a step, and what there is to answer to them.

    What is drawn comes from the global random state, which the training seeds for each epoch.

    Args:
        rows: Prepared images `[row, channel, ...]`, or `[row, feature]`.
        targets: Probabilities of the classes `[row, class]`.
        kind: `mixed` mixes each image with another one, in proportions drawn evenly, and their targets with them
            (Zhang et al. 2018, "mixup", section 2, α = 1); `noisy` adds Gaussian noise, with a standard deviation that is
            drawn for each image from 0 to 1 in units of the prepared images, and leaves the targets; `jumbled` cuts
            images into strips along each axis and puts these in another order, so that nothing is left to be
            recognised, and its targets are all classes alike. An axis of size 1 is a single strip and stays as it is.

    Returns:
        Images of the same shape, and targets `[row, class]`.
    """
    if kind == "mixed":
        partner = torch.randperm(len(rows), device=rows.device)
        share = torch.rand(len(rows), device=rows.device)
        return _mixed(rows, partner, share), _mixed(targets, partner, share)
    if kind == "noisy":
        scale = torch.rand(len(rows), *[1] * (rows.ndim - 1), device=rows.device)
        return rows + scale * torch.randn_like(rows), targets
    if kind == "jumbled":
        for axis in range(min(2, rows.ndim - 1), rows.ndim):
            strips = rows.chunk(STRIPS, dim=axis)
            rows = torch.cat([strips[i] for i in _other_order(len(strips))], dim=axis)
        return rows, torch.full_like(targets, 1.0 / targets.shape[1])
    return rows, targets


def _other_order(count: int) -> list[int]:
    """An order drawn evenly from all but the one in which strips stand already; a single strip has no other."""
    standing = torch.arange(count)
    order = torch.randperm(count)
    while count > 1 and torch.equal(order, standing):
        order = torch.randperm(count)
    found: list[int] = order.tolist()
    return found


def _mixed(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Each element with its partner: share · own + (1 − share) · the partner's."""
    share = share.view(-1, *[1] * (values.ndim - 1)).to(values)
    return share * values + (1.0 - share) * values[partner]
