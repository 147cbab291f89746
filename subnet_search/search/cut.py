"""The next cut of members that already differ: which of the channels that they still have stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search.config import SearchConfig
from subnet_search.search.dispatch import Quotas
from subnet_search.search.flow import flow
from subnet_search.search.overlap import Mask, Scores, objective, overlap_penalty


def cut(present: MaskSet, scores: Mapping[str, Tensor], quotas: Quotas, config: SearchConfig) -> MaskSet:
    """Maximises relevance less overlap of pairs, as `flow` does, among masks inside the present ones.

    Args:
        present: What the members have.
        scores: Group → relevance `[member, channel]`, finite and at least 0; only those of present channels count.
            Groups that lose nothing may be missing.
        quotas: Group → how many channels each member is to have, at most as many as it has. Groups that are not named
            stay as they are.
        config: λ of the overlap, cover and seed; where the present channels cannot cover a group any more, it is cut
            without.

    Returns:
        Masks with exactly the quotas. `notes` hold `settings`, `overlap`, `relevance` and `objective` of the groups
        that are cut, scores divided by the mean of the group's present channels, and the same figures of every cut so
        far under `rounds`.

    Raises:
        SubnetSearchError: where a quota is below 1 or above what the member has, or scores are missing or unusable.
    """
    masks: dict[str, Tensor] = dict(present.masks)
    relevance = value = 0.0
    for name, quota in quotas.items():
        before, has = present.masks[name], present.widths[name]
        if len(quota) != len(has) or any(not 1 <= wanted <= had for wanted, had in zip(quota, has, strict=True)):
            raise SubnetSearchError(
                f"group {name!r}: quotas are {tuple(quota)}, expected one for each member from 1 to what it has, {has}"
            )
        if tuple(quota) != has:
            values = _usable(scores, name, before)
            mask = _cut_group(values, before.numpy(), quota, config)
            relevance += float(values[mask].sum())
            value += objective(values, mask, config.overlap_price)
            masks[name] = torch.from_numpy(mask)
    overlap = sum(overlap_penalty(mask.numpy()) for mask in masks.values() if not mask.all())
    figures: dict[str, Any] = {"overlap": overlap, "relevance": relevance, "objective": value}
    earlier = present.notes.get("rounds", [])
    notes = {"settings": asdict(config), **figures, "rounds": [*earlier, figures]}
    return MaskSet(masks, config.algorithm, config.seed, notes, present.depth)


def _cut_group(scores: Scores, present: Mask, quota: Sequence[int], config: SearchConfig) -> Mask:
    """Cuts one group; of channels that are worth the same to members on their own, the lower ones stay."""
    mask = np.zeros_like(present)
    alive = np.flatnonzero(present.any(axis=0))  # nobody can cover what nobody has
    price = config.overlap_price * alive.size / present.shape[1]  # so that a pair pays as if all were there
    if len(quota) == 1 or (price == 0 and not config.cover):
        ranked = np.where(present, -scores, np.inf).argsort(axis=1, kind="stable")
        for member, wanted in enumerate(quota):
            mask[member, ranked[member, :wanted]] = True
        return mask
    # A lost channel is worth so little that any other is the better choice: one more that is shared costs at most
    # λ(2C + 1)/C with each of the other members.
    worthless = -1.0 - 3.0 * config.overlap_price * len(quota)
    values = np.where(present, scores, worthless)[:, alive]
    order = np.lexsort(values)  # the result cannot depend on how the channels happen to be numbered
    mask[:, alive[order]], _ = flow(values[:, order], quota, price, config.cover)
    if (mask & ~present).any():  # a channel whose members have no room for it cannot be covered
        mask[:, alive[order]], _ = flow(values[:, order], quota, price, False)
    return mask


def _usable(scores: Mapping[str, Tensor], name: str, present: Tensor) -> Scores:
    """The group's scores as float64, divided by their mean over present channels; 0 where a channel is lost."""
    if name not in scores or scores[name].shape != present.shape:
        found = tuple(scores[name].shape) if name in scores else "none"
        raise SubnetSearchError(
            f"group {name!r} is to be cut: its scores are {found}, expected [member, channel] = {tuple(present.shape)}"
        )
    values = scores[name].detach().cpu().double()[present]
    if not torch.isfinite(values).all() or (values < 0).any():
        raise SubnetSearchError(
            f"scores of group {name!r} hold values that are NaN, infinite or below 0; expected finite ones of at least 0"
        )
    usable = torch.zeros(present.shape, dtype=torch.float64)
    usable[present] = values / values.mean() if values.sum() > 0 else values
    return usable.numpy()
