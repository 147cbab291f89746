"""The part of a run's report that shows where relevance lies, where the arithmetic went, and how the training went."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from subnet_search.evidence import LayerCost
from subnet_search.finetune import History
from subnet_search.masks import MaskSet
from subnet_search.plots.layer_cost import LayerBars, layer_cost
from subnet_search.plots.relevance_depth import GroupRelevance, relevance_depth
from subnet_search.plots.training_curve import training_curve
from subnet_search.relevance import Relevance
from subnet_search.report.page import Drawing, Section
from subnet_search.report.wording import percent


def effort_section(
    masks: MaskSet,
    relevance: Relevance | None,
    groups: Sequence[str],
    layers: Sequence[LayerCost],
    history: History | None,
) -> Section:
    """Draws relevance along the depth, costs of the layers and the training.

    Args:
        masks: The masks.
        relevance: The scores; None where nothing was scored.
        groups: Names of the groups in order of first use.
        layers: Costs of the layers; none where these are not known.
        history: The course of the training, None where that is not known.
    """
    drawings, missing = [], []
    scored = [] if relevance is None else _scored(masks, relevance, groups)
    if relevance is not None and scored:
        drawings.append(_relevance(scored, relevance.criterion))
    else:
        missing.append(
            f"No relevance is drawn: the search by {masks.algorithm} asked for no scores, or there was nothing to choose."
        )
    if layers:
        drawings.append(_layers(layers, masks.members))
    if history is not None and history.losses:
        drawings.append(_training(history))
    elif history is not None:
        missing.append("There was no fine-tuning, so there is no training curve.")
    words = (
        "From the input on the left to the output on the right: what mattered, what it costs, and what training did."
    )
    return Section("effort", "Where do relevance and cost lie?", words, drawings, missing=missing)


def _scored(masks: MaskSet, relevance: Relevance, groups: Sequence[str]) -> list[GroupRelevance]:
    """The groups in which there was something to choose: the channels of others all score 1."""
    found = []
    for name in groups:
        scores, mask = relevance.scores.get(name), masks.masks[name]
        if scores is None or bool((scores == 1).all()):
            continue
        low, median, high = torch.quantile(scores.mean(dim=0).double(), torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
        share = (scores * mask).sum(dim=1) / scores.sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        found.append(GroupRelevance(name, low, median, high, float(mask.double().mean()), float(share.mean())))
    return found


def _relevance(groups: Sequence[GroupRelevance], criterion: str) -> Drawing:
    kept = sum(group.channels for group in groups) / len(groups)
    share = sum(group.relevance for group in groups) / len(groups)
    return Drawing(
        name="relevance",
        title="Relevance along the depth",
        words=(
            "Above: how much the loss changes when a channel is removed. Below: what a member kept of it. "
            f"With {percent(kept)} of the channels a member keeps {percent(share)} of the relevance, mean over the groups."
        ),
        alt=(
            f"Relevance of the channels of {len(groups)} groups. A member keeps {percent(kept)} of the channels and "
            f"{percent(share)} of the relevance."
        ),
        figure=relevance_depth(groups, criterion),
        data=[
            {
                "group": group.name,
                "relevance_10_percent": group.low,
                "relevance_median": group.median,
                "relevance_90_percent": group.high,
                "kept_channels": group.channels,
                "kept_relevance": group.relevance,
            }
            for group in groups
        ],
    )


def _layers(layers: Sequence[LayerCost], members: int) -> Drawing:
    bars = [
        LayerBars(cost.layer, cost.dense, sum(cost.members) / len(cost.members), sum(cost.members)) for cost in layers
    ]
    dense, together = sum(bar.dense for bar in bars), sum(bar.together for bar in bars)
    once = sum(len(cost.members) == 1 for cost in layers) if members > 1 else 0
    shared = f" {once} layers are run once for all members." if once else ""
    most = max(bars, key=lambda bar: bar.together)
    return Drawing(
        name="macs",
        title="Where the multiplications went",
        words=(
            f"Multiply-accumulates of each layer, from the input on. All {members} members together cost "
            f"{together / dense:.2f} times the dense network.{shared}"
        ),
        alt=(
            f"Multiply-accumulates of {len(bars)} layers. Dense {dense:,} in all, the members together {together:,}; "
            f"most of them in {most.layer}."
        ),
        figure=layer_cost(bars),
        data=[
            {
                "layer": cost.layer,
                "dense": cost.dense,
                **{
                    f"member_{k + 1}": cost.members[k] if len(cost.members) == members else cost.members[0]
                    for k in range(members)
                },
                "together": sum(cost.members),
            }
            for cost in layers
        ],
    )


def _training(history: History) -> Drawing:
    losses = history.losses
    return Drawing(
        name="training",
        title="Fine-tuning",
        words=(
            f"Mean training loss of each epoch; {history.samples_seen:,} images seen in {sum(history.seconds):.0f} s."
        ),
        alt=f"Training loss from {losses[0]:.3g} in the first to {losses[-1]:.3g} in the last of {len(losses)} epochs.",
        figure=training_curve(losses),
        data=[
            {"epoch": k + 1, "loss": loss, "seconds": seconds}
            for k, (loss, seconds) in enumerate(zip(losses, history.seconds, strict=True))
        ],
    )
