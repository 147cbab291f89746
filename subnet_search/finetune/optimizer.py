"""What changes the weights, and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from subnet_search.ensemble import Predictor
from subnet_search.finetune.config import FinetuneConfig


def make_optimizer(ensemble: Predictor, config: FinetuneConfig) -> torch.optim.Optimizer:
    """Returns SGD that decays weight matrices only.

    Norms, biases and the members' factors of shared weights (`alpha`, `gamma`) gain nothing from it, and masked ones
    would drift.
    """
    names = ("bias", "alpha", "gamma")
    spared = [p for n, p in ensemble.named_parameters() if n.endswith(names) or _is_norm(ensemble, n)]
    chosen = {id(p) for p in spared}
    decayed = [p for p in ensemble.parameters() if id(p) not in chosen]
    parameters = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def _is_norm(ensemble: Predictor, parameter: str) -> bool:
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(ensemble.get_submodule(parameter.rpartition(".")[0]), norms)


def one_cycle(config: FinetuneConfig, steps: int) -> Callable[[int], float]:
    """Returns the factor of the learning rate at a step, of `steps` in an epoch: linear up, cosine down to zero."""
    total = max(1, config.epochs * steps)
    up = max(1, round(config.warmup * total))

    def factor(step: int) -> float:
        if step < up:
            return (step + 1) / up
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - up) / max(1, total - up))))

    return factor
