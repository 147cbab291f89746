"""`gates`: masks that are learned together with the weights, and then frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.entwined.gated_ensemble import GatedEnsemble, Gates
from subnet_search.entwined.parts import epochs_of_search, reseeded, shown_to_all
from subnet_search.entwined.phases import Phase
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, steps_of_epoch
from subnet_search.masks import MaskSet
from subnet_search.search import Quotas, SearchConfig, search_masks
from subnet_search.search.overlap import normalise, objective, overlap_penalty

UNFIT = ("magnitude", "best-of-n")
"""Masks that gates cannot start from: these are found by other scores than those that rank the gates, or by a measure."""

REMEMBERED = 0.1  # share of the steps that the running average of the gradients remembers
MEAN_RATE = 0.5  # of a one-cycle schedule, relative to its peak


def gates(
    widths: Mapping[str, int],
    quotas: Quotas,
    search: SearchConfig,
    training: FinetuneConfig,
    images: int,
    scores: Mapping[str, Tensor],
    recalibrate: int,
) -> tuple[Phase, ...]:
    """Plans the training: a phase in which gates decide on the channels, and one for what they have decided.

    Args:
        widths: Group → number of channels.
        quotas: Group → how many of them each member keeps, at all times.
        search: The gates' share of the epochs, how fast and how noisy they are, prices, seed.
        training: Settings of the whole training; both phases together see as many samples.
        images: Number of training images.
        scores: Relevance `[member, channel]` of each group, by which the masks to start from are found, and ranked.
        recalibrate: Seed of the images on which normalisation statistics are measured before each phase.

    Returns:
        Two phases, for an intact ensemble.

    Raises:
        SubnetSearchError: where gates cannot start from such masks.
    """
    if search.start in UNFIT:
        raise SubnetSearchError(
            f"gates cannot start from {search.start!r}; use another search.start, such as flow or random"
        )
    members = len(next(iter(quotas.values())))
    epochs = epochs_of_search(training, search.train_share)
    config, shown = replace(training, epochs=epochs), None
    if search.gate_corr > 0:
        config, shown = shown_to_all(config, images, members)
        config = replace(config, decorrelate=config.decorrelate + search.gate_corr)
    steps = config.epochs * steps_of_epoch(config, images if shown is None else len(shown), members)

    def start(ensemble: SubnetEnsemble) -> MaskSet:
        found = search_masks(scores, widths, quotas, replace(search, algorithm=search.start))
        return replace(found, depth=ensemble.masks.depth)

    def learning(ensemble: SubnetEnsemble) -> AbstractContextManager[GatedEnsemble]:
        return learned(ensemble, scores, search, config, steps)

    rest = replace(reseeded(training, 1), epochs=training.epochs - epochs)
    return Phase(config, start, recalibrate, shown, learning), Phase(rest, None, recalibrate)


@contextmanager
def learned(
    ensemble: SubnetEnsemble, scores: Mapping[str, Tensor], search: SearchConfig, config: FinetuneConfig, steps: int
) -> Iterator[GatedEnsemble]:
    """Puts gates in the place of an ensemble's masks, and what they have come to in their place at the end.

    Args:
        ensemble: An ensemble with the masks to start from.
        scores: Relevance `[member, channel]` of each group.
        search: How fast and how noisy the gates are, prices, seed.
        config: How they are trained: they follow its learning rate.
        steps: For how many steps.

    Yields:
        The ensemble with gates, to be trained.
    """
    start = ensemble.masks
    pace = config.learning_rate / (1 - config.momentum) * MEAN_RATE * steps  # what a gradient of 1 comes to
    undecided = [name for name, mask in start.masks.items() if not mask.all()]
    made = {
        name: Gates(
            start.masks[name],
            scores[name].detach().cpu(),
            noise=search.gate_noise,
            speed=search.gate_rate / pace if pace > 0 else 0.0,
            memory=min(1.0, 1 / (REMEMBERED * max(1, steps))),
            lambda_overlap=search.overlap_price,
        )
        for name in undecided
    }
    described = {"start": start.digest(), "search": asdict(search), "steps": steps}
    whole = {name: torch.ones_like(mask) if name in made else mask for name, mask in start.masks.items()}
    ensemble.set_masks(replace(start, masks=whole))
    gated = GatedEnsemble(ensemble, made, search.seed, described)
    try:
        yield gated
    except BaseException:
        ensemble.set_masks(start)
        raise
    found = {name: mask.cpu() for name, mask in gated.kept().items()}
    notes = _notes(start, found, scores, search)
    ensemble.set_masks(MaskSet({**start.masks, **found}, "gates", search.seed, notes, start.depth))


def _notes(
    start: MaskSet, found: Mapping[str, Tensor], scores: Mapping[str, Tensor], search: SearchConfig
) -> dict[str, Any]:
    """What the masks are worth to the scores that they started from, and how many of their channels are others."""
    relevance = value = overlap = 0.0
    for name, kept in found.items():
        mask, worth = kept.numpy(), normalise(scores[name].detach().cpu().double().numpy())
        relevance += float(worth[mask].sum())
        value += objective(worth, mask, search.overlap_price)
        overlap += overlap_penalty(mask)
    new = sum(int((kept & ~start.masks[name]).sum()) for name, kept in found.items())
    moved = new / max(1, sum(int(kept.sum()) for kept in found.values()))
    figures = {"overlap": overlap, "relevance": relevance, "objective": value, "moved": moved}
    return {"settings": asdict(search), **figures, "started_from": start.digest()}
