"""Which differences between two networks are more than the luck of the test images: a paired bootstrap.

Efron 1979, "Bootstrap Methods: Another Look at the Jackknife": samples are drawn with replacement, the same for both
networks, and the figures are computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from subnet_search.evaluate import Answers
from subnet_search.evaluate.calibration import BINS
from subnet_search.evaluate.classification import SMALLEST

Array = NDArray[np.float64]
REPEATS = 200
LEVEL = 0.95


def differences(
    dense: Mapping[str, Answers], ensemble: Mapping[str, Answers], repeats: int = REPEATS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Computes intervals of the difference ensemble − dense.

    Args:
        dense: What the dense network said on `test` and `ood/NAME`.
        ensemble: What the ensemble said, on the same.
        repeats: How many times the samples are drawn.
        seed: Of the draws.

    Returns:
        `cls/Acc`, `cls/NLL`, `cal/ECE` and, where there are OOD sets, `ood` (the AUROC by entropy, mean over the sets)
        → the lower and the upper end of the 95 % interval.
    """
    draw = np.random.default_rng(seed)
    pair = [_Tested(answers["test"]) for answers in (dense, ensemble)]
    sets = [name for name in ensemble if name != "test"]
    ranks = [[_Ranked(answers["test"], answers[name]) for answers in (dense, ensemble)] for name in sets]
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        weights = _drawn(draw, len(pair[0].right))
        figures = [tested.figures(weights) for tested in pair]
        if sets:
            drawn = [_drawn(draw, both[0].outside) for both in ranks]
            for k, own in enumerate(figures):
                own["ood"] = float(np.mean([both[k].auroc(weights, w) for both, w in zip(ranks, drawn, strict=True)]))
        for name, value in figures[1].items():
            found.setdefault(name, []).append(value - figures[0][name])
    tail = (1 - LEVEL) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))) for name, values in found.items()
    }


def _drawn(draw: np.random.Generator, samples: int) -> Array:
    """How often each of so many samples is drawn, in as many draws."""
    return np.bincount(draw.integers(0, samples, samples), minlength=samples).astype(float)


class _Tested:
    """One network on the labelled test samples."""

    def __init__(self, answers: Answers) -> None:
        self.right = (~answers.errors).numpy().astype(float)
        self.loss = -np.log(np.maximum(answers.truth.double().numpy(), SMALLEST))
        confidence = answers.confidence.double().numpy()
        self.gap = self.right - confidence
        self.bin = np.minimum((confidence * BINS).astype(int), BINS - 1)

    def figures(self, weights: Array) -> dict[str, float]:
        """Figures of samples that count so often each."""
        total = weights.sum()
        gaps = np.bincount(self.bin, weights * self.gap, BINS)
        return {
            "cls/Acc": float(weights @ self.right / total),
            "cls/NLL": float(weights @ self.loss / total),
            "cal/ECE": float(np.abs(gaps).sum() / total),
        }


class _Ranked:
    """One network's doubt about test and foreign samples, by rank."""

    def __init__(self, test: Answers, foreign: Answers) -> None:
        scores = np.concatenate([test.total.numpy(), foreign.total.numpy()])
        _, ranks = np.unique(scores, return_inverse=True)
        self.highest = int(ranks.max()) + 1
        self.ranks = ranks[: len(test.total)], ranks[len(test.total) :]
        self.outside = len(foreign.total)

    def auroc(self, inside: Array, outside: Array) -> float:
        """The chance that a foreign sample has more doubt than a test sample; ties count one half."""
        below = np.bincount(self.ranks[0], inside, self.highest)
        beyond = np.bincount(self.ranks[1], outside, self.highest)
        return float(beyond @ (np.cumsum(below) - below / 2) / (inside.sum() * outside.sum()))
