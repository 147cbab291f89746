"""One trial: from what the sampler chose, up the ladder of fidelities, to the values that the study keeps."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.masks import MaskSet, full_masks
from subnet_search.relevance import Relevance
from subnet_search.run_folder import RunFolder
from subnet_search.search import ENTWINED, SCORE_DRIVEN, Quotas, thinned_groups
from subnet_search.settings import RunConfig, to_dict
from subnet_search.stages import (
    alike,
    allocate,
    entwine,
    phases,
    score,
    search,
    settled,
    train,
    words_on_alike,
)
from subnet_search.tune import ledger
from subnet_search.tune.artifacts import keep_artifacts
from subnet_search.tune.ladder import epochs_of_rungs, goes_on
from subnet_search.tune.objectives import losses_of, values_of
from subnet_search.tune.room import with_room
from subnet_search.tune.setup import TuneSetup
from subnet_search.tune.space import suggest

log = logging.getLogger("subnet_search")

SHORTFALL, COST = "fidelity", "budget"
"""The constraints of a trial: how much of the training it lacks, by how much it costs too much. Members that all keep
everything lack all of it: samplers want the same constraints of all trials, also of those of an older version."""
ALIKE = "alike"
"""User attribute of a trial with such members."""


@dataclass
class Clock:
    """Seconds spent on each kind of work of a trial.

    Attributes:
        began: When the trial began.
        stages: Stage → seconds.
    """

    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds what the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    def total(self) -> float:
        """Returns the seconds since the beginning."""
        return time.perf_counter() - self.began


def run_trial(trial: optuna.Trial, setup: TuneSetup) -> list[float]:
    """Measures what the sampler chose, at growing fidelities, for as long as it is among the best.

    Everything that is known of a trial is kept with it (`settings`, `metrics`, `fidelity`, `rung_values`, `seconds`,
    `stages`, `artifact`). One that stops early has the constraint `fidelity` above 0, so that no front holds it; so has one
    whose members all keep everything, as they may be copies of one network.

    Args:
        trial: The trial, running, with its `role`.
        setup: What all trials of the worker have in common.

    Returns:
        The values of the objectives at the last fidelity.

    Raises:
        TrialPruned: where the pruner of a study with one objective stops it.
        SubnetSearchError: where the settings cannot work together, or the training diverges.
    """
    config, clock = setup.config, Clock()
    role = str(trial.user_attrs[ledger.ROLE])
    run = suggest(trial, setup.space, config.run(), role)
    if role == "search":
        run = with_room(run, setup.space, setup.graph)
    run = settled(run, setup.graph)  # where the trunk is not searched, and left open
    trial.set_user_attr(ledger.SETTINGS, settings_of(run))
    plan = _planned(run, setup, clock)
    if copies := alike(setup.graph, plan.quotas, plan.depth, run):
        log.warning("trial %d is left out of the front: %s", trial.number, words_on_alike(run))
        trial.set_user_attr(ALIKE, True)
    folder = RunFolder(config.out / "trials" / _root(trial))
    reached: list[list[float]] = []
    pruned = False
    rungs = epochs_of_rungs(run.finetune.epochs, config.rungs)
    for rung, epochs in enumerate(rungs):
        masks, figures = _measured(plan, epochs, setup, folder, clock)
        values = values_of(figures, config.objectives, setup.ood)
        if rung == 0 and config.max_macs is not None:
            trial.set_constraint(COST, figures["cplx/MACsRatio"] - config.max_macs)
        reached.append(values)
        trial.set_user_attr("rung_values", reached)
        last = rung == len(rungs) - 1
        if config.pruner is not None:
            trial.report(values[0], config.eta**rung)
            pruned = not last and trial.should_prune() and role == "search"
        if last or pruned or (role == "search" and not _worth_more(trial, rung, reached, setup)):
            break
    fidelity = epochs / run.finetune.epochs if run.finetune.epochs else 1.0
    trial.set_user_attr("metrics", figures)
    trial.set_user_attr("fidelity", fidelity)
    ids = keep_artifacts(trial, config.out, folder, masks, figures)
    for name, identity in ids.items():
        trial.set_user_attr(name, identity)
    trial.set_user_attr("stages", clock.stages)
    trial.set_user_attr("seconds", clock.total())
    if not pruned:
        trial.set_constraint(SHORTFALL, 1.0 if copies else 1.0 - fidelity)
    shutil.rmtree(folder.path, ignore_errors=True)
    if pruned:
        raise optuna.TrialPruned
    return values


def settings_of(run: RunConfig) -> dict[str, Any]:
    """Returns the settings of a run without those that change nothing about it: `from_dict` takes them."""
    return {name: value for name, value in to_dict(run).items() if name not in ("out", "export")}


@dataclass(frozen=True)
class Plan:
    """What a trial decides before anything is trained.

    Attributes:
        run: Its settings.
        quotas: Group → how many channels each member keeps.
        depth: Site of a residual branch → which members keep it.
        relevance: Scores of the channels; None where the search needs none.
        masks: Its masks; None where they come about in the training.
    """

    run: RunConfig
    quotas: Quotas
    depth: Mapping[str, Tensor]
    relevance: Relevance | None
    masks: MaskSet | None


def _planned(run: RunConfig, setup: TuneSetup, clock: Clock) -> Plan:
    """Scores the channels, or takes the scores that another trial has left, and assigns them."""
    backbone, graph, splits = setup.backbone, setup.graph, setup.splits
    quotas, depth = allocate(graph, run)
    relevance: Relevance | None = None
    if run.search.algorithm in SCORE_DRIVEN | ENTWINED:
        key = {
            "relevance": settings_of(run)["relevance"],
            "seed": run.seed,
            "members": run.members,
            "magnitude": run.search.algorithm == "magnitude",
            "thinned": thinned_groups(quotas, graph.widths),
        }
        with clock.stage("score"):
            relevance = setup.cache.relevance(key, lambda: score(backbone, graph, splits, quotas, run, setup.progress))
    if run.search.algorithm in ENTWINED:
        return Plan(run, quotas, depth, relevance, None)
    with clock.stage("search"):
        return Plan(run, quotas, depth, relevance, search(backbone, graph, splits, relevance, quotas, run, depth))


def _measured(
    plan: Plan, epochs: int, setup: TuneSetup, folder: RunFolder, clock: Clock
) -> tuple[MaskSet, dict[str, Any]]:
    """Trains for so many epochs, with a schedule of that length, from the backbone's weights, and evaluates."""
    run = dataclasses.replace(plan.run, finetune=dataclasses.replace(plan.run.finetune, epochs=epochs))
    settings = settings_of(run)
    key: dict[str, Any] = {name: settings[name] for name in ("ensemble", "finetune", "seed")}
    if plan.masks is not None:  # how they came about does not matter
        key["masks"] = plan.masks.digest()
    else:
        key |= {name: settings[name] for name in ("members", "budget", "relevance", "search")}

    def compute() -> tuple[MaskSet, dict[str, Any]]:
        with clock.stage("finetune"):
            ensemble = _trained(plan, run, setup, RunFolder(folder.path / f"epochs-{epochs}"))
        with clock.stage("evaluate"):
            return ensemble.masks, setup.figures(ensemble)

    return setup.cache.measured({**key, "evaluate": setup.evaluated}, compute)


def _trained(plan: Plan, run: RunConfig, setup: TuneSetup, folder: RunFolder) -> SubnetEnsemble:
    """Makes the ensemble and trains it, for searches that train with masks that come about meanwhile."""
    backbone, graph, splits, accelerator = setup.backbone, setup.graph, setup.splits, setup.accelerator
    masks, training = plan.masks, run.seeded("finetune")
    if masks is not None:
        ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card, run.ensemble)
    else:
        assert plan.relevance is not None
        intact = dataclasses.replace(full_masks(graph.widths, run.members), depth=plan.depth)
        ensemble = SubnetEnsemble(backbone.model, graph, intact, backbone.card, run.ensemble)
        *first, last = phases(backbone, graph, splits, plan.relevance, plan.quotas, run, setup.progress)
        entwine(ensemble, first, backbone, splits, folder, accelerator, setup.progress)
        training = last.config
        if last.masks is not None:
            ensemble.set_masks(last.masks(ensemble))
    train(ensemble, training, backbone, splits, run, folder, accelerator, setup.progress)
    return ensemble


def _worth_more(trial: optuna.Trial, rung: int, reached: list[list[float]], setup: TuneSetup) -> bool:
    """Whether a trial is among the best that have reached its rung; one that no front may hold is worth nothing."""
    config = setup.config
    if _excluded(trial):
        return False
    if config.pruner is not None:
        return True
    states = (TrialState.COMPLETE, TrialState.RUNNING)
    others = [
        other.user_attrs["rung_values"][rung]
        for other in trial.study.get_trials(deepcopy=False, states=states)
        if other.number != trial.number and len(other.user_attrs.get("rung_values", ())) > rung and not _excluded(other)
    ]
    losses = [losses_of(values, config.objectives) for values in (reached[rung], *others)]
    return goes_on(losses[0], losses[1:], config.eta)


def _excluded(trial: optuna.Trial | FrozenTrial) -> bool:
    """Whether a trial costs too much, or its members are alike."""
    return trial.constraints.get(COST, 0.0) > 0 or ALIKE in trial.user_attrs


def _root(trial: optuna.Trial) -> str:
    """Name of the folder of a trial: that of the first trial it stands for, whose checkpoints it takes up."""
    return f"{[*trial.user_attrs.get(ledger.LINEAGE, []), trial.number][0]:04d}"
