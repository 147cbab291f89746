"""Settings of the search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from subnet_search.errors import SubnetSearchError
from subnet_search.search.algorithms import ALGORITHMS, Algorithm, Start


@dataclass(frozen=True)
class SearchConfig:
    """How channels are assigned to members.

    Attributes:
        algorithm: `flow` (exact or with a certificate), `draft` (fair division), `core` (shared core, the rest
            drafted), `pairs` (complement pairs with equal shares of relevance), `swap` (local search on the measured
            NLL of the ensemble without training), `progressive` (cut in rounds of scoring, cutting and training),
            `gates` (learned with the weights); controls: `random` (balanced), `masksembles`, `antirandom`,
            `magnitude`, `best-of-n`.
        lambda_overlap: Weight of the pairwise overlap in the objective of `flow`, `pairs`, `progressive` and `gates`, and
            in what `swap` proposes, at least 0. Scores have mean 1 in every group, so 1.0 lets two members that share
            o of C channels pay 2·o/C for one more. None lets a run choose by whether there is a trunk
            (`subnet_search.search.price_to_take`).
        core_share: `core`: share of the smallest quota that all members have in common, in [0, 1].
        candidates: `best-of-n`: number of balanced random mask sets that are measured, at least 1.
        start: `swap`, `gates`: the algorithm whose masks it starts from. From `pairs` and `antirandom` only partners
            trade in `swap`, so that complements stay complements.
        swaps: `swap`: number of candidates that are measured, at least 0.
        rescoring: `flow`, `draft`, `core`, `pairs`, and where `swap` starts from them: how often the channels are scored
            again inside the members' masks, without training, and assigned anew by the mean of all scores; at least 0.
        rounds: `progressive`: how often channels are cut, at least 1; with 1 it is `flow`.
        train_share: `progressive`, `gates`: share of the epochs of the fine-tuning in which the masks come about, in
            [0, 1]; whole epochs, and the last one is always left to the finished masks.
        gate_rate: `gates`: how far a gate that is pulled the same way all the time moves, in widths of its group, at
            least 0; with 0 the masks stay those that it starts from.
        gate_noise: `gates`: scale of the logistic noise that is added to the gates before they are ranked, in widths of
            their group, positive: in each step some channels near the border come or go.
        gate_corr: `gates`: weight of the members' pairwise error correlation in the loss, at least 0; positive, it
            shows all members the same images while the gates are learned.
        cover: Each channel is used by some member wherever the quotas of the group add up to its width; `progressive`
            as far as the members still have it, `gates` where they start.
        seed: Seed of everything random.

    Raises:
        SubnetSearchError: where a value is outside its range.
    """

    algorithm: Algorithm = "flow"
    lambda_overlap: float | None = 1.0
    core_share: float = 0.5
    candidates: int = 8
    start: Start = "flow"
    swaps: int = 200
    rescoring: int = 0
    rounds: int = 4
    train_share: float = 0.25
    gate_rate: float = 0.25
    gate_noise: float = 0.05
    gate_corr: float = 0.0
    cover: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise SubnetSearchError(
                f"unknown search algorithm {self.algorithm!r}; expected one of {', '.join(ALGORITHMS)}"
            )
        if self.start not in get_args(Start):
            raise SubnetSearchError(f"start is {self.start!r}, expected one of {', '.join(get_args(Start))}")
        for name in ("swaps", "rescoring"):
            if getattr(self, name) < 0:
                raise SubnetSearchError(f"{name} is {getattr(self, name)}, expected an integer of at least 0")
        for name in ("lambda_overlap", "gate_rate", "gate_corr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise SubnetSearchError(f"{name} is {value}, expected a finite number of at least 0")
        if not 0 <= self.core_share <= 1:
            raise SubnetSearchError(f"core_share is {self.core_share}, expected a fraction in [0, 1]")
        if self.candidates < 1:
            raise SubnetSearchError(f"candidates is {self.candidates}, expected at least 1")
        if self.rounds < 1:
            raise SubnetSearchError(f"rounds is {self.rounds}, expected at least 1")
        if not 0 <= self.train_share <= 1:
            raise SubnetSearchError(f"train_share is {self.train_share}, expected a fraction in [0, 1]")
        if not (math.isfinite(self.gate_noise) and self.gate_noise > 0):
            raise SubnetSearchError(f"gate_noise is {self.gate_noise}, expected a finite number above 0")
        if self.seed < 0:
            raise SubnetSearchError(f"seed is {self.seed}, expected an integer of at least 0")

    @property
    def overlap_price(self) -> float:
        """The weight of the overlap.

        Raises:
            SubnetSearchError: where it has not been chosen.
        """
        if self.lambda_overlap is None:
            raise SubnetSearchError(
                "search.lambda_overlap is None, expected a finite number of at least 0: only a run can choose it"
            )
        return self.lambda_overlap
