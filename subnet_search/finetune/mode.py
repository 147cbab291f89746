"""How images are shown to the members: what suits a budget."""

from __future__ import annotations

from subnet_search.finetune.config import FinetuneConfig, Mode

MOST = 1.7
"""Largest cost of a pass in which all members see all images / of one in which each image is seen by one of them."""


def mode_to_take(config: FinetuneConfig, members: int, budget: float | None, common: float) -> Mode:
    """Returns the mode of a training that leaves it open.

    An image that is shown to one member costs the trunk and that member, t + (B − t) / K of a dense pass at a budget of
    B with a trunk of t; one that is shown to all costs B. Without a trunk that is K times as much. Behind a deep trunk
    it is little more (1.1 times at B = 1, t = 0.88, K = 4; 1.3 times at t = 0.68), and each member sees K times the
    images for it, which at the same cost made better ensembles (entries 5 and 9 of `benchmarks/search/README.md`).

    Args:
        config: The training; losses that need all members' answers to an image are asked for there.
        members: Number of members K.
        budget: MACs of the ensemble / MACs of the dense network; None where it is not given.
        common: MACs of the trunk / MACs of the dense network, in [0, 1).

    Returns:
        `repeat` or `split`; a mode that was chosen stays.
    """
    if config.mode is not None:
        return config.mode
    if config.common_losses:
        return "repeat"
    if budget is None or config.bagging:  # with bootstraps the members see different images, and share no pass
        return "split"
    return "repeat" if budget <= MOST * (common + (budget - common) / members) else "split"
