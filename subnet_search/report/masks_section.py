"""The part of a run's report that shows what each member consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from subnet_search.evaluate import Answers
from subnet_search.masks import MaskSet
from subnet_search.plots.mask_map import GroupMap, mask_map
from subnet_search.report.member_drawings import member_drawings
from subnet_search.report.page import Drawing, Section, Table
from subnet_search.report.wording import percent

TALLEST = 6.6
"""Inches of maps on a sheet; what does not fit goes to the next."""


def masks_section(
    masks: MaskSet,
    scores: Mapping[str, Tensor],
    groups: Sequence[str],
    dense: Answers | None,
    ensemble: Answers | None,
) -> Section:
    """Draws which member keeps which channel, how alike members are and what each is worth.

    Args:
        masks: The masks.
        scores: Group → relevance `[member, channel]`; empty where nothing was scored.
        groups: Names of the groups in order of first use.
        dense: What the dense network said on the test images, None where that is not known.
        ensemble: What the ensemble said.
    """
    cut = [name for name in groups if not bool(masks.masks[name].all())]
    orders = {name: channel_order(masks.masks[name], scores.get(name)) for name in cut}
    words = (
        "Each member is the dense network with other channels cut away. What members share makes them strong, what they "
        "have alone makes them independent; averaging them helps only where they err on different images."
    )
    order = "the most relevant on the left" if scores else "those that most members keep on the left"
    whole = len(groups) - len(cut)
    missing = [f"{whole} of {len(groups)} groups are kept whole by all members and are not drawn."] if whole else []
    tables = [_branches(masks)] if masks.depth else []
    drawings = []
    sheets = _sheets(cut, masks.members)
    for number, names in enumerate(sheets, start=1):
        maps = [GroupMap(name, masks.masks[name][:, orders[name]].numpy()) for name in names]
        of = f" ({number} of {len(sheets)})" if len(sheets) > 1 else ""
        drawings.append(
            Drawing(
                name=f"masks-{number}" if len(sheets) > 1 else "masks",
                title=f"Channels of the members{of}",
                words=f"A row is a member, a column a channel, {order}. {_shares(maps)}",
                alt=f"Maps of {len(maps)} channel groups, {names[0]} to {names[-1]}. {_shares(maps)}",
                figure=mask_map(maps),
                data=[row for name in names for row in _rows(name, masks.masks[name], scores.get(name), orders[name])],
            )
        )
    drawings += member_drawings(masks, dense, ensemble)
    return Section("members", "Who are the members, and are they independent?", words, drawings, tables, missing)


def channel_order(mask: Tensor, scores: Tensor | None) -> list[int]:
    """Returns the channels of a group, the most relevant first; without scores, those that most members keep."""
    worth = mask.sum(dim=0) if scores is None else scores.mean(dim=0)
    return [int(channel) for channel in worth.argsort(descending=True, stable=True)]


def _sheets(names: Sequence[str], members: int) -> list[list[str]]:
    """Deals the groups out to sheets of like length."""
    if not names:
        return []
    most = max(1, int(TALLEST / (0.3 + max(0.3, 0.105 * members))))
    return [part.tolist() for part in np.array_split(np.array(names), math.ceil(len(names) / most))]


def _shares(maps: Sequence[GroupMap]) -> str:
    """How many channels belong to how many members, in words."""
    counts = np.concatenate([group.kept.sum(axis=0) for group in maps])
    members = len(maps[0].kept)
    kept = np.mean([group.kept.mean() for group in maps])
    all_, one, none = (float(np.mean(counts == number)) for number in (members, 1, 0))
    return (
        f"A member keeps {percent(float(kept))} of the channels. Of {len(counts)}, {percent(all_)} are kept by all members, "
        f"{percent(1 - all_ - one - none)} by several, {percent(one)} by one alone and {percent(none)} by none."
    )


def _rows(name: str, mask: Tensor, scores: Tensor | None, order: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "group": name,
            "rank": rank,
            "channel": channel,
            "relevance": "" if scores is None else float(scores[:, channel].mean()),
            **{f"member_{k + 1}": int(mask[k, channel]) for k in range(len(mask))},
        }
        for rank, channel in enumerate(order)
    ]


def _branches(masks: MaskSet) -> Table:
    """Which residual branches the members leave out."""
    rows = [[site, *("kept" if kept else "left out" for kept in keeps.tolist())] for site, keeps in masks.depth.items()]
    heads = ["branch", *(f"member {k + 1}" for k in range(masks.members))]
    return Table("Residual branches that members leave out", heads, rows, name="branches")
