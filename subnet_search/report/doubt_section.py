"""The part of a run's report that shows whether the ensemble knows when it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from subnet_search.evaluate import Answers
from subnet_search.evaluate.refusal import ANSWERED
from subnet_search.evidence import Evidence, doubtful
from subnet_search.plots.doubt_histogram import doubt_bins, doubt_histogram, doubt_shares
from subnet_search.plots.picture_sheet import Shown, picture_sheet
from subnet_search.report.judged_images import TEST
from subnet_search.report.page import Drawing, Section
from subnet_search.report.wording import percent

_MEANING = {
    "aleatoric": "The members agree that the image could be several things: the doubt is in the image.",
    "epistemic": "The members contradict each other: the doubt is in the network, which has seen too little like it.",
}


def doubt_section(evidence: Evidence, limit: float | None = None, images: str = TEST) -> Section:
    """Draws the epistemic uncertainty of the network's own and foreign images, and the images with the most doubt.

    Args:
        evidence: What the networks said.
        limit: Predictive entropy in nats beyond which images are refused; None where none is known.
        images: What the images of its own domain are, as `judged_images` names them.
    """
    sets = evidence.answers_by("ensemble")
    test = sets.pop("test")
    outside = {name.removeprefix("ood/"): answers for name, answers in sets.items()}
    words = (
        "Epistemic uncertainty is what the members disagree about. It should be low on images like those of the "
        "training and high on others. A single network has none: all its doubt looks alike."
    )
    if limit is not None:
        words += f" {_refusals(test, outside, limit, images)}"
    missing = (
        []
        if outside
        else ["No foreign images were given, so there is nothing to compare with; name some with --ood NAME=SOURCE."]
    )
    drawings = [_histogram(test, outside, images)]
    for kind, order in doubtful(test).items():
        shown = [index for index in order if index in evidence.pictures]
        if shown:
            drawings.append(_pictures(kind, shown, test, evidence.pictures, evidence.classes, images))
    if not evidence.pictures:
        missing.append("The samples are no pictures with one or three channels, so none are shown.")
    return Section("doubt", "Does it know when it does not know?", words, drawings, missing=missing)


def _refusals(test: Answers, outside: Mapping[str, Answers], limit: float, images: str) -> str:
    shares = {f"the {images}": test, **outside}
    told = [f"{percent(float((answers.total > limit).double().mean()))} of {name}" for name, answers in shares.items()]
    return (
        f"With the limit that {percent(ANSWERED)} of the held-out images keep (a predictive entropy of {limit:.2g} nats; "
        f"--refuse total) the ensemble refuses {', '.join(told)}."
    )


def _histogram(test: Answers, outside: Mapping[str, Answers], images: str) -> Drawing:
    borders = doubt_bins(math.log(len(test.votes)))
    inside = test.epistemic.double().numpy()
    foreign = {name: answers.epistemic.double().numpy() for name, answers in outside.items()}
    shares = {"test": doubt_shares(inside, borders)}
    shares |= {name: doubt_shares(values, borders) for name, values in foreign.items()}
    medians = ", ".join(f"{name} {np.median(values):.2g}" for name, values in ((images, inside), *foreign.items()))
    return Drawing(
        name="epistemic",
        title=f"Epistemic uncertainty of {images.removesuffix(' images')} and foreign images",
        words=(
            "The further apart the hills, the better foreign images can be refused. The lowest bin holds everything "
            f"below it. Medians in nats: {medians}."
        ),
        alt=f"Histograms of the epistemic uncertainty. Medians in nats: {medians}.",
        figure=doubt_histogram(inside, foreign, borders, images),
        data=[
            {"from": low, "to": high, **{name: float(share[k]) for name, share in shares.items()}}
            for k, (low, high) in enumerate(pairwise(borders))
        ],
    )


def _pictures(
    kind: str, shown: Sequence[int], test: Answers, pictures: Mapping[int, Tensor], classes: Sequence[str], images: str
) -> Drawing:
    sheet, rows = [], []
    for index in shown:
        truth = classes[int(test.labels[index])]
        ranked = [
            (classes[int(c)], float(p)) for c, p in zip(test.classes[index], test.probabilities[index], strict=True)
        ]
        sheet.append(Shown(pictures[index].numpy(), f"true: {truth}", tuple(ranked)))
        rows.append(
            {
                "test_image": index,
                "label": truth,
                "aleatoric": float(test.aleatoric[index]),
                "epistemic": float(test.epistemic[index]),
                **{f"class_{r}": name for r, (name, _) in enumerate(ranked, start=1)},
                **{f"probability_{r}": p for r, (_, p) in enumerate(ranked, start=1)},
            }
        )
    first = ", ".join(f"{name} {percent(p)}" for name, p in sheet[0].lines)
    return Drawing(
        name=f"most-{kind}",
        title=f"{images.capitalize()} with the highest {kind} uncertainty",
        words=f"{_MEANING[kind]} Below each image: what it is, and what the ensemble takes it for.",
        alt=f"{len(sheet)} {images}. The first {sheet[0].heading}; the ensemble says {first}.",
        figure=picture_sheet(sheet),
        data=rows,
    )
