"""The point from which the hypervolumes of a study are measured: fixed by the job's own settings, its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from subnet_search.tune.hypervolume import hypervolume_history
from subnet_search.tune.points import Points

RULE = (
    "Volumes are shares of the box from the ideal (0, of an AUROC 1) to a reference that is fixed by the study's first "
    "trial, the hand-set default: twice its NLL, error or ECE; 1 for error correlation and mask IoU; 0.5 for an AUROC; a "
    "tenth beyond the largest budget for MACs"
)

TWICE = ("nll", "error", "ece")
BOUNDED = {"error_correlation": 1.0, "mask_iou": 1.0, "ood_auroc": 0.5}
ROOM = 1.1
"""Beyond the largest budget: a point that spends all of it still counts."""


@dataclass(frozen=True)
class Reference:
    """Where hypervolumes are measured from, and where their scale ends.

    Attributes:
        worst: Objective → the value that is just too bad to count.
        best: Objective → the ideal value. The box from `worst` to `best` has the volume 1.
        rule: How both are chosen, in words.
    """

    worst: Mapping[str, float]
    best: Mapping[str, float]
    rule: str = RULE

    def words(self) -> str:
        """Returns the worst values in words."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.worst.items())

    def volumes(self, points: Points) -> tuple[float, ...]:
        """Returns the hypervolume after each finished trial, in the order of their numbers, as a share of the box.

        Trials that were stopped early, or do not meet a constraint, are spent but add nothing.
        """
        signs = np.array([1.0 if lower else -1.0 for lower in points.lower.values()])
        worst, best = (signs * np.array([ends[name] for name in points.lower]) for ends in (self.worst, self.best))
        losses = points.losses(points.points)
        scaled = [
            (loss - best) / (worst - best) if point.full else None
            for point, loss in zip(points.points, losses, strict=True)
        ]
        return tuple(hypervolume_history(scaled, np.ones(len(signs))).tolist())


def reference_of(points: Points) -> Reference:
    """Returns the reference of a study; what the sampler chooses has no say in it.

    Args:
        points: What is known of the study. Where its default is not finished, the dense network stands for it.
    """
    worst = {name: _worst(name, points) for name in points.lower}
    return Reference(worst, {name: 0.0 if lower else 1.0 for name, lower in points.lower.items()})


def _worst(name: str, points: Points) -> float:
    if name in BOUNDED:
        return BOUNDED[name]
    if name in TWICE:
        default = next((point.metrics for point in points.points if point.role == "default"), points.dense)
        return 2 * (points.figure(default, name) or 0.5)  # what makes no errors is nothing to measure by
    return ROOM * _largest_budget(points)


def _largest_budget(points: Points) -> float:
    """What the study may spend at most: the limit of its front, or else the largest budget that it searches."""
    config = points.config
    if config["max_macs"] is not None:
        return float(config["max_macs"])
    own = config["budget"]["budget"]
    searched = config["space"]["budget"] if "budget" in config["space"]["names"] else []
    known = [float(value) for value in [*searched, own] if value is not None]
    return max(known, default=float(config["members"]))
