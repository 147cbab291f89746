"""One interface for all search algorithms."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search.algorithms import ENTWINED, MEASURING, SCORE_DRIVEN
from subnet_search.search.antirandom import antirandom
from subnet_search.search.balanced import balanced
from subnet_search.search.best_of_n import best_of_n
from subnet_search.search.config import SearchConfig
from subnet_search.search.core import core
from subnet_search.search.draft import draft
from subnet_search.search.flow import Certificate, flow
from subnet_search.search.magnitude import magnitude
from subnet_search.search.masksembles import masksembles
from subnet_search.search.overlap import Mask, Scores, normalise, overlap_penalty
from subnet_search.search.pairs import pairs
from subnet_search.search.swap import swap
from subnet_search.search.trunk_masks import trunk_masks

Quotas = Mapping[str, tuple[int, ...]]


def search_masks(
    scores: Mapping[str, Tensor] | None,
    widths: Mapping[str, int],
    quotas: Quotas,
    config: SearchConfig,
    measure: Callable[[MaskSet], float] | None = None,
    progress: Progress | None = None,
    common: Collection[str] = (),
) -> MaskSet:
    """Decides which channels each member keeps.

    Args:
        scores: Group → relevance `[member, channel]`, finite and at least 0, higher is more relevant. Needed by
            `flow`, `draft`, `core`, `pairs`, `swap` and `magnitude` (which expects weight magnitudes); the others ignore it.
        widths: Group → number of channels.
        quotas: Group → number of channels that each member keeps, each from 1 to the width (see `allocate_quotas`).
        config: Algorithm and its settings.
        measure: Loss of a mask set without training, lower is better; needed by `best-of-n` and `swap` (see
            `subnet_search.measure`).
        progress: Bar to report to.
        common: Groups of which all members keep the same channels (`subnet_search.groups.trunk_groups`); by scores, if
            the algorithm takes them, and else by lot. The figures below are those of the other groups; these are named
            in the notes.

    Returns:
        Masks with exactly the quotas. Their `notes` hold `settings`, `overlap` (Σ φ of all pairs and groups), for
        algorithms driven by scores `relevance` and `objective` (of the scores divided by their group's mean), for
        `flow` also `bound`, `gap`, `gap_worst_group` and `exact`, for `best-of-n` all measurements as `measured`, for
        `swap` those `before` and `after`, how many candidates were `measured`, and how many `accepted`.
        Groups that all members keep whole count for nothing in these figures.

    Raises:
        SubnetSearchError: where quotas, widths and scores do not fit together, or something needed is not given.
    """
    if config.algorithm in ENTWINED:
        raise SubnetSearchError(
            f"search algorithm {config.algorithm!r} trains while it searches, so there are no masks before the training; run it as part of a run, or use 'flow'"
        )
    _check_quotas(widths, quotas)
    if set(common) & set(widths):
        return _behind(scores, widths, quotas, config, measure, progress, common)
    notes: dict[str, Any] = {"settings": asdict(config)}
    if config.algorithm in MEASURING and measure is None:
        raise SubnetSearchError(
            f"{config.algorithm} needs a measure (loss of a mask set without training); give one, or use an algorithm without, such as 'flow' or 'random'"
        )
    if config.algorithm == "swap":
        assert measure is not None
        arrays = _check_scores(scores, widths, quotas, config.algorithm)
        start = search_masks(scores, widths, quotas, replace(config, algorithm=config.start), measure, progress)
        masks, more = _by_swaps(start, arrays, config, measure, progress)
        notes |= more
    elif config.algorithm in SCORE_DRIVEN:
        arrays = _check_scores(scores, widths, quotas, config.algorithm)
        masks, more = _by_scores(arrays, quotas, config)
        notes |= more
    elif config.algorithm == "best-of-n":
        assert measure is not None
        candidates = [
            MaskSet(_tensors(_by_lot(widths, quotas, config, n)), "best-of-n") for n in range(config.candidates)
        ]
        chosen, notes["measured"] = best_of_n(candidates, measure)
        masks = {name: mask.numpy() for name, mask in chosen.masks.items()}
    else:
        masks = _by_lot(widths, quotas, config, 0)
    notes["overlap"] = sum(overlap_penalty(mask) for mask in masks.values() if not mask.all())
    return MaskSet(_tensors(masks), config.algorithm, config.seed, notes)


def _behind(
    scores: Mapping[str, Tensor] | None,
    widths: Mapping[str, int],
    quotas: Quotas,
    config: SearchConfig,
    measure: Callable[[MaskSet], float] | None,
    progress: Progress | None,
    common: Collection[str],
) -> MaskSet:
    """Decides on what members have in common first, and then on the rest."""
    driven = (config.start if config.algorithm == "swap" else config.algorithm) in SCORE_DRIVEN
    if driven:
        _check_scores(scores, widths, quotas, config.algorithm)
    first = _tensors(
        trunk_masks(scores if driven else None, widths, quotas, [n for n in widths if n in common], config)
    )

    def whole(masks: MaskSet) -> MaskSet:
        joined = {name: first[name] if name in first else masks.masks[name] for name in widths}
        return replace(masks, masks=joined, notes={**masks.notes, "common": list(first)})

    rest = {name: width for name, width in widths.items() if name not in first}
    judge = None if measure is None else lambda masks: measure(whole(masks))
    return whole(search_masks(scores, rest, {name: quotas[name] for name in rest}, config, judge, progress))


def _by_scores(
    arrays: Mapping[str, Scores], quotas: Quotas, config: SearchConfig
) -> tuple[dict[str, Mask], dict[str, Any]]:
    """Runs an algorithm that is driven by scores, group by group."""
    masks: dict[str, Mask] = {}
    certificates: list[Certificate] = []
    relevance = penalty = 0.0
    for index, (name, values) in enumerate(arrays.items()):
        quota = quotas[name]
        if min(quota) == values.shape[1]:
            # nothing to decide; counted in, it would only make the relative gap look smaller
            masks[name] = np.ones(values.shape, dtype=np.bool_)
            continue
        first = index % len(quota)  # another member starts in each group, so that none is always served first
        # in a canonical order of channels the result cannot depend on how the channels happen to be numbered
        order = np.lexsort(values)
        ordered = normalise(values[:, order])
        match config.algorithm:
            case "flow":
                assigned, certificate = flow(ordered, quota, config.overlap_price, config.cover)
                certificates.append(certificate)
            case "core":
                assigned = core(ordered, quota, config.core_share, first, config.cover)
            case "pairs":
                assigned = pairs(ordered, quota, config.overlap_price, config.cover)
            case "magnitude":
                assigned = magnitude(ordered, quota, first)
            case _:
                assigned = draft(ordered, quota, first)
        relevance += float(ordered[assigned].sum())
        penalty += overlap_penalty(assigned)
        masks[name] = np.zeros_like(assigned)
        masks[name][:, order] = assigned
    notes: dict[str, Any] = {"relevance": relevance, "objective": relevance - config.overlap_price * penalty}
    if config.algorithm == "flow":
        notes |= Certificate.total(certificates).notes()
        notes["gap_worst_group"] = max((certificate.gap for certificate in certificates), default=0.0)
    return masks, notes


def _by_swaps(
    start: MaskSet,
    arrays: Mapping[str, Scores],
    config: SearchConfig,
    measure: Callable[[MaskSet], float],
    progress: Progress | None,
) -> tuple[dict[str, Mask], dict[str, Any]]:
    """Improves masks by trading channels."""
    scores = {name: normalise(values) for name, values in arrays.items()}
    found = swap(
        {name: start.masks[name].numpy() for name in arrays},
        scores,
        lambda masks: measure(MaskSet(_tensors(masks), "swap", config.seed)),
        np.random.default_rng([config.seed, zlib.crc32(b"swap")]),
        candidates=config.swaps,
        lambda_overlap=config.overlap_price,
        cover=config.cover,
        partners=config.start in ("pairs", "antirandom"),
        progress=progress,
    )
    thinned = [name for name, mask in found.masks.items() if not mask.all()]
    relevance = float(sum(scores[name][found.masks[name]].sum() for name in thinned))
    penalty = sum(overlap_penalty(found.masks[name]) for name in thinned)
    return found.masks, {
        "relevance": relevance,
        "objective": relevance - config.overlap_price * penalty,
        "before": found.before,
        "after": found.after,
        "measured": found.candidates,
        "accepted": found.accepted,
    }


def _by_lot(widths: Mapping[str, int], quotas: Quotas, config: SearchConfig, candidate: int) -> dict[str, Mask]:
    """Runs a control that ignores scores, with its own random stream for each group and candidate."""
    masks: dict[str, Mask] = {}
    for name, width in widths.items():
        rng = np.random.default_rng([config.seed, candidate, zlib.crc32(name.encode())])
        match config.algorithm:
            case "masksembles":
                masks[name] = masksembles(width, quotas[name], rng)
            case "antirandom":
                masks[name] = antirandom(width, quotas[name], rng, config.cover)
            case _:
                masks[name] = balanced(width, quotas[name], rng)
    return masks


def _tensors(masks: Mapping[str, Mask]) -> dict[str, Tensor]:
    """Turns arrays into tensors."""
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def _check_quotas(widths: Mapping[str, int], quotas: Quotas) -> None:
    """Raises where quotas and widths do not fit together."""
    if set(widths) != set(quotas):
        raise SubnetSearchError(
            f"quotas and widths name different groups: only in widths {sorted(set(widths) - set(quotas))}, only in quotas {sorted(set(quotas) - set(widths))}"
        )
    if not widths:
        raise SubnetSearchError(
            "there is no group of channels to search in; run `subnet-search inspect` to see what was left whole and why"
        )
    members = {name: len(quota) for name, quota in quotas.items()}
    if len(set(members.values())) > 1 or min(members.values()) < 2:
        raise SubnetSearchError(f"quotas are for {members} members, expected one number of at least 2 for all groups")
    for name, quota in quotas.items():
        if min(quota) < 1 or max(quota) > widths[name]:
            raise SubnetSearchError(
                f"group {name!r}: quotas are {tuple(quota)}, expected each in 1..{widths[name]}, the group's width"
            )


def _check_scores(
    scores: Mapping[str, Tensor] | None, widths: Mapping[str, int], quotas: Quotas, algorithm: str
) -> dict[str, Scores]:
    """Returns the scores as float64 arrays in the order of `widths`, or raises where one cannot be used."""
    if scores is None:
        raise SubnetSearchError(
            f"search algorithm {algorithm!r} needs relevance scores; score the channels first, or use a control such as 'random'"
        )
    arrays: dict[str, Scores] = {}
    for name, width in widths.items():
        if name not in scores:
            raise SubnetSearchError(f"group {name!r} has no scores; scores are there for {sorted(scores)}")
        expected = (len(quotas[name]), width)
        values = scores[name].detach().cpu().to(torch.float64)
        if tuple(values.shape) != expected:
            raise SubnetSearchError(
                f"scores of group {name!r} have shape {tuple(values.shape)}, expected [member, channel] = {expected}"
            )
        if not torch.isfinite(values).all() or (values < 0).any():
            raise SubnetSearchError(
                f"scores of group {name!r} hold values that are NaN, infinite or below 0 (range {values.min().item():g} to {values.max().item():g}); expected finite ones of at least 0"
            )
        arrays[name] = values.numpy()
    return arrays
