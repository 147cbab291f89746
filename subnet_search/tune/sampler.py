"""Samplers and pruners by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from subnet_search.tune.config import Pruner, Sampler
from subnet_search.tune.ledger import position

POPULATION = 16
"""Of NSGA-II: Optuna's own 50 would leave most studies in their first, random generation."""


def make_sampler(name: Sampler, seed: int) -> BaseSampler:
    """Returns a sampler of that name.

    Args:
        name: `tpe` (Watanabe 2023), `nsga2` (Deb et al. 2002), `gp` (Gaussian processes) or `random`.
        seed: Seed of all its draws.
    """
    makers: dict[Sampler, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed),
        "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
        "gp": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SeededByPlace(makers[name], seed)


def make_pruner(name: Pruner | None, rungs: int, eta: int) -> BasePruner:
    """Returns a pruner of that name; it judges a trial at rung r by the value reported as step eta ** r.

    Args:
        name: `hyperband` (Li et al. 2018), `halving` (successive halving) or `median`; None stops nothing.
        rungs: Number of rungs.
        eta: The reduction factor.
    """
    match name:
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=eta ** (rungs - 1), reduction_factor=eta)
        case "halving":
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta)
        case "median":
            return MedianPruner()
        case None:
            return NopPruner()


class SeededByPlace(BaseSampler):
    """A sampler whose draws for a trial depend on the seed and on the trial's place in the study, and on nothing else.

    A sampler with one stream of draws would repeat itself in every worker, and after every interruption. This one does
    not, and an interrupted study goes on as if it had not been interrupted.

    Args:
        make: Makes a sampler from a seed.
        seed: Seed of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seeds the draws for the trial."""
        # by the storage: Hyperband hands over a study that shows the trials of one bracket only
        place = position(study._storage.get_all_trials(study._study_id, deepcopy=False), trial.number)
        seed = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._sampler = self._make(seed)
        if isinstance(self._sampler, NSGAIISampler):
            # without this, trials that are not its own choice would belong to no generation, and have no children
            self._sampler.get_trial_generation(study, trial)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Passes the question on."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Passes the question on."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Passes the question on."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passes the news on."""
        self._sampler.after_trial(study, trial, state, values)
