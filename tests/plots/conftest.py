"""Rows and curves of twenty methods that nobody trained."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

FIGURES = {  # MACs, NLL, accuracy
    "msp": (1.0, 0.40, 0.93),
    "mc_dropout": (4.0, 0.29, 0.91),
    "stochastic_depth": (4.0, 0.33, 0.90),
    "deep_ensemble": (4.0, 0.24, 0.94),
    "deep_ensemble_finetuned": (4.0, 0.30, 0.92),
    "bagging": (4.0, 0.31, 0.915),
    "depth_masks": (2.0, 0.34, 0.90),
    "masksembles": (2.0, 0.325, 0.905),
    "random": (2.0, 0.30, 0.912),
    "antirandom": (2.0, 0.299, 0.913),
    "magnitude": (2.0, 0.33, 0.90),
    "best_of_8": (2.0, 0.305, 0.908),
    "search": (2.0, 0.293, 0.92),
    "search+core": (2.0, 0.312, 0.911),
    "mimo": (1.06, 0.35, 0.90),
    "packed": (1.1, 0.33, 0.905),
    "batch_ensemble": (4.0, 0.31, 0.90),
    "singe": (0.48, 0.42, 0.90),
    "search+stochastic_depth": (1.6, 0.32, 0.90),
    "masksembles+stochastic_depth+mimo": (2.1, 0.36, 0.89),
}
SCRATCH = ("deep_ensemble", "mimo", "packed", "batch_ensemble")


@dataclass(frozen=True)
class MadeUp:
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]


@pytest.fixture
def made_up() -> MadeUp:
    """Three seeds of each method, one of `msp`; without curves of `bagging` and without SVHN of `singe`."""
    draw = random.Random(0)
    rows, curves = [], []
    for method, (macs, nll, accuracy) in FIGURES.items():
        for seed in range(1 if method == "msp" else 3):
            error = draw.gauss(0, 1)
            metrics = {
                "cls/NLL": nll + 0.006 * error,
                "cal/ECE": 0.03 + 0.001 * error,
                "sc/AURC": (1 - accuracy) / 8 + 0.0005 * error,
                "cplx/MACsRatio": macs,
                "ood/svhn/AUROC/entropy": None if method == "singe" else accuracy - 0.02 + 0.01 * error,
                "ood/cifar100/AUROC/entropy": accuracy - 0.05 + 0.005 * error,
            }
            settings = {"origin": "scratch" if method in SCRATCH else "backbone", "finetune": {"epochs": 10}}
            row = {"method": method, "backbone": "net", "data": "npz:[$x$].npz", "seed": seed, "settings": settings}
            rows.append({**row, "metrics": metrics})
            if method != "bagging":
                curves.append({"method": method, "seed": seed, "settings": "digest", **_curves(accuracy, draw)})
    return MadeUp(rows, curves)


def _curves(accuracy: float, draw: random.Random) -> dict[str, Any]:
    confidence = [None] * 5 + [(k + 0.5) / 15 for k in range(5, 15)]
    right = [None if c is None else min(1.0, max(0.0, c + draw.gauss(0, 0.05))) for c in confidence]
    coverage = [k / 10 for k in range(1, 11)]
    return {
        "reliability": {
            "count": [0] * 5 + [int(6 * 1.5**k) for k in range(10)],
            "confidence": confidence,
            "accuracy": right,
        },
        "risk_coverage": {"coverage": coverage, "risk": [(1 - accuracy) * c**2.5 for c in coverage]},
    }
