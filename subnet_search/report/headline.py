"""Dense against ensemble in five figures, with plain words for what they mean and which is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subnet_search.evaluate.keys import OOD_AUROC
from subnet_search.report.judged_images import TEST, caution
from subnet_search.report.page import Tile, Verdict
from subnet_search.report.wording import amount, listed, percent
from subnet_search.tables import mean_of


@dataclass(frozen=True)
class Measure:
    """One of the five figures that stand above the fold.

    Attributes:
        title: Its name.
        noun: Its name within a sentence.
        key: Its key in a row; it may stand for several.
        noise: Its name among the intervals of `noise.differences`; empty where it has no luck in it.
        words: What it means, and which direction is better.
        text: How it is written.
        higher: Whether higher is better.
        absent: Why it may not be there.
    """

    title: str
    noun: str
    key: str
    noise: str
    words: str
    text: Callable[[float], str]
    higher: bool
    absent: str = ""


FIVE = (
    Measure(
        title="Accuracy",
        noun="accuracy",
        key="cls/Acc",
        noise="cls/Acc",
        words="How many of the images it gets right. Higher is better.",
        text=lambda value: percent(value, 2),
        higher=True,
    ),
    Measure(
        title="Surprise (NLL)",
        noun="likelihood (NLL)",
        key="cls/NLL",
        noise="cls/NLL",
        words="How little it believed in the right answer. 0 is perfect, lower is better.",
        text=lambda value: f"{value:.3f}",
        higher=False,
    ),
    Measure(
        title="Calibration error (ECE)",
        noun="calibration (ECE)",
        key="cal/ECE",
        noise="cal/ECE",
        words="How far its stated confidence is from how often it is right. 0 is honest, lower is better.",
        text=lambda value: percent(value, 1),
        higher=False,
    ),
    Measure(
        title="Foreign images (OOD AUROC)",
        noun="telling foreign images apart (OOD AUROC)",
        key=OOD_AUROC,
        noise="ood",
        words="Given an image of its own domain and one of another: how often it doubts the foreign one more. 50\N{NO-BREAK SPACE}% is guessing.",
        text=lambda value: percent(value, 1),
        higher=True,
        absent="No foreign images were given; name some with --ood NAME=SOURCE.",
    ),
    Measure(
        title="Cost (MACs)",
        noun="cost",
        key="cplx/MACs",
        noise="",
        words="Multiplications for one prediction (M: million), by all members together. Lower is cheaper.",
        text=amount,
        higher=False,
    ),
)


def headline(
    metrics: Mapping[str, Any],
    intervals: Mapping[str, tuple[float, float]],
    samples: int | None,
    images: str = TEST,
) -> tuple[str, list[Tile]]:
    """Compares the two networks.

    Args:
        metrics: `{"dense": row, "ensemble": row}`.
        intervals: What `noise.differences` returned; empty where it is not known how much is luck.
        samples: Number of the images that the figures are on; None where it is not known.
        images: What they are, as `judged_images` names them.

    Returns:
        The result in a few sentences, and five tiles.
    """
    dense, ensemble = metrics["dense"]["metrics"], metrics["ensemble"]["metrics"]
    tiles, judged = [], []
    for figure in FIVE:
        values = mean_of(dense, figure.key), mean_of(ensemble, figure.key)
        if values[0] is None or values[1] is None:
            nothing = {"dense": "–", "ensemble": "–"}
            tiles.append(Tile(figure.title, figure.words, nothing, "absent", "not measured", figure.absent))
            continue
        luck = "" if samples is None else f" of {samples:,} {images}"
        verdict, badge, note = _verdict(figure, values[0], values[1], intervals.get(figure.noise), luck)
        named = {"dense": figure.text(values[0]), "ensemble": figure.text(values[1])}
        tiles.append(Tile(figure.title, figure.words, named, verdict, badge, note))
        if figure.noise:
            judged.append((figure.noun, verdict))
    return _sentence(metrics, judged) + caution(images), tiles


def _verdict(
    figure: Measure, dense: float, ensemble: float, interval: tuple[float, float] | None, luck: str
) -> tuple[Verdict, str, str]:
    """How the ensemble compares: the verdict, its words, and what must be said with them."""
    difference = ensemble - dense
    better = difference > 0 if figure.higher else difference < 0
    if figure.key == "cplx/MACs":
        ratio = ensemble / dense
        words = f"{ratio:.2f} × dense"
        return ("even" if abs(ratio - 1) < 0.005 else "better" if ratio < 1 else "worse"), words, ""
    if difference == 0:
        return "even", "the same", ""
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "even", "no clear difference", f"May be the luck{luck}."
    return ("better", "ensemble better", "") if better else ("worse", "dense better", "")


def _sentence(metrics: Mapping[str, Any], judged: Sequence[tuple[str, Verdict]]) -> str:
    """Says what is better, what is worse, what does not differ, and what it costs."""
    parts = []
    for verdict, words in (
        ("better", "is better in"),
        ("worse", "is worse in"),
        ("even", "does not clearly differ in"),
    ):
        names = [noun for noun, own in judged if own == verdict]
        if names:
            parts.append(f"{words} {listed(names)}")
    members = metrics["ensemble"]["members"]
    text = f"Compared to the dense network, the ensemble of {members} members {listed(parts)}." if parts else ""
    ratio = metrics["ensemble"]["metrics"].get("cplx/MACsRatio")
    return text if ratio is None else f"{text} A prediction costs {ratio:.2f} times the multiplications."
