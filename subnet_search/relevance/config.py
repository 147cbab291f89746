"""Settings of the relevance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from subnet_search.device import Precision
from subnet_search.errors import SubnetSearchError

Criterion = Literal["ig", "singe", "fisher", "taylor", "magnitude", "random"]
Path = Literal["group", "joint", "sampled"]


@dataclass(frozen=True)
class RelevanceConfig:
    """How relevance is measured.

    Attributes:
        criterion: `ig` integrated gradients of the removal; `singe` the paper's form on weights; `fisher`, `taylor`,
            `magnitude`, `random` for comparison.
        path: For `ig`: `group` shrinks one group at a time, `joint` all at once, `sampled` draws (group, α) for
            each image, so that the group path costs no more than the joint one. On ResNet-20 `sampled` ranks best
            for its cost (benchmarks/README.md). For `singe`, which draws nothing, it means `group`.
        nodes: Gauss–Legendre nodes of the integral (for `sampled`: draws for each image; for `singe`: steps).
        power: Exponent p of the mean of |integral|^p over images; signed means cancel.
        samples: Images for each member.
        labels: Whether the loss is the cross-entropy with the labels; otherwise the divergence from the dense
            network's own answer.
        lambda_corr: For `ig`: what a channel that makes the member's errors correlate with those of the others loses of
            its score, in nats for a correlation of 1 with one other member; at least 0. In the intact network members
            are all alike, so this is of use inside masks (`search.rescoring`). Doubles the time.
        bootstrap: Whether each member is scored on images of its own instead of the same for all.
        batch_rows: Rows of one forward pass, which bounds the memory.
        seed: Seed of the images and draws.
        precision: Arithmetic of the forward passes.

    Raises:
        SubnetSearchError: where a setting has no such value.
    """

    criterion: Criterion = "ig"
    path: Path = "sampled"
    nodes: int = 16
    power: float = 1.0
    samples: int = 256
    labels: bool = True
    lambda_corr: float = 0.0
    bootstrap: bool = True
    batch_rows: int = 512
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name, choices in (("criterion", Criterion), ("path", Path), ("precision", Precision)):
            if getattr(self, name) not in get_args(choices):
                raise SubnetSearchError(
                    f"relevance.{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(choices))}"
                )
        for name in ("nodes", "samples", "batch_rows"):
            if getattr(self, name) < 1:
                raise SubnetSearchError(f"relevance.{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.power < math.inf:
            raise SubnetSearchError(f"relevance.power is {self.power}, expected a positive number")
        if not 0 <= self.lambda_corr < math.inf:
            raise SubnetSearchError(
                f"relevance.lambda_corr is {self.lambda_corr}, expected a finite number of at least 0"
            )
