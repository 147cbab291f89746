"""`progressive`: members are cut out of the intact network in rounds, and trained in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from subnet_search.entwined.parts import epochs_of_search, reseeded, shared_out
from subnet_search.entwined.phases import Phase
from subnet_search.entwined.rounds import Scorer, plan_of_widths, rounds
from subnet_search.finetune import FinetuneConfig
from subnet_search.search import Quotas, SearchConfig


def progressive(
    widths: Mapping[str, int],
    quotas: Quotas,
    search: SearchConfig,
    training: FinetuneConfig,
    images: int,
    score: Scorer,
    recalibrate: int,
) -> tuple[Phase, ...]:
    """Plans the rounds: a brief training after each cut but the last, which the rest of the epochs follow.

    Args:
        widths: Group → number of channels.
        quotas: Group → how many of them each member keeps in the end.
        search: Number of rounds, their share of the epochs, λ of the overlap, cover, seed.
        training: Settings of the whole training; all phases together see as many samples.
        images: Number of training images.
        score: Gives the scores of each round.
        recalibrate: Seed of the images on which normalisation statistics are measured after each cut.

    Returns:
        `search.rounds` phases, for an intact ensemble; with one round they are those of `flow`.
    """
    members = len(next(iter(quotas.values())))
    between = search.rounds - 1
    epochs = epochs_of_search(training, search.train_share) if between else 0
    brief = shared_out(replace(training, epochs=epochs), between, images, members) if between else []
    rest = replace(reseeded(training, between), epochs=training.epochs - epochs)
    plan = plan_of_widths(widths, quotas, search.rounds)
    return rounds(plan, [*brief, (rest, None)], score, search, recalibrate)
