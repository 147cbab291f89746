"""What a study searches, and how a choice of the sampler becomes the settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph
from subnet_search.relevance import Criterion
from subnet_search.search import ENTWINED, OVERLAPPING, SCORE_DRIVEN
from subnet_search.search.algorithms import Algorithm
from subnet_search.settings import JobConfig, RunConfig

Params = Mapping[str, Any]

CONTROL: Algorithm = "random"
"""The strongest masks that are not searched: balanced random ones, at the same cost."""

SCORED = (SCORE_DRIVEN | ENTWINED) - {"magnitude"}
"""The algorithms that depend on the criterion of relevance."""

STAGES: Mapping[str, tuple[str | None, str]] = {
    "members": (None, "members"),
    "budget": ("budget", "budget"),
    "depth": ("budget", "depth"),
    "trunk": ("ensemble", "trunk"),
    "algorithm": ("search", "algorithm"),
    "lambda_overlap": ("search", "lambda_overlap"),
    "criterion": ("relevance", "criterion"),
    "rescoring": ("search", "rescoring"),
    "lambda_corr": ("relevance", "lambda_corr"),
    "epochs": ("finetune", "epochs"),
    "distill": ("finetune", "distill"),
    "bagging": ("finetune", "bagging"),
}
"""What can be searched → stage and name of the setting; what others depend on comes before them, but for the algorithm."""


@dataclass(frozen=True)
class SpaceConfig:
    """What is searched, and how far. A range is widened to hold the job's own setting.

    Attributes:
        names: Some of `members`, `budget`, `depth`, `trunk`, `algorithm`, `lambda_overlap`, `criterion`, `rescoring`,
            `lambda_corr`, `epochs`, `distill`, `bagging`; the others stay as the job says.
        members: Fewest and most members.
        budget: Smallest and largest budget, searched on a logarithmic scale. A trial with one that leaves each member
            whole, which gives copies of one network, takes less.
        trunk: Smallest and largest share of the dense MACs that members have in common. A trial with a trunk that its
            budget has no room for, or that leaves nothing to search, takes the deepest that can be had.
        lambda_overlap: Smallest and largest weight of the overlap, on a logarithmic scale; for searches that have it.
        algorithm: Search algorithms and controls.
        criterion: Criteria of relevance; for searches by scores.
        rescoring: Fewest and most times that channels are scored again; for searches by the scores of `ig`.
        lambda_corr: Smallest and largest weight of the correlation; where channels are scored inside masks.
        epochs: Fewest and most epochs of the fine-tuning; None goes from a quarter of the job's to all of them.
        distill: Smallest and largest share of distillation.

    Raises:
        SubnetSearchError: where a range is empty, or a name is unknown.
    """

    names: tuple[str, ...] = tuple(STAGES)
    members: tuple[int, int] = (2, 8)
    budget: tuple[float, float] = (0.5, 4.0)
    trunk: tuple[float, float] = (0.0, 0.7)
    lambda_overlap: tuple[float, float] = (0.03, 30.0)
    algorithm: tuple[Algorithm, ...] = ("flow", "pairs", "core", "antirandom", "random")
    criterion: tuple[Criterion, ...] = ("ig", "fisher", "taylor", "magnitude")
    rescoring: tuple[int, int] = (0, 1)
    lambda_corr: tuple[float, float] = (0.0, 1.0)
    epochs: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="INT INT")] = None
    distill: tuple[float, float] = (0.0, 0.9)

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in STAGES]
        if unknown or not self.names or len(set(self.names)) < len(self.names):
            raise SubnetSearchError(f"space.names are {self.names}, expected different ones of {', '.join(STAGES)}")
        for name, least in (
            ("members", 2),
            ("budget", 1e-9),
            ("trunk", 0),
            ("lambda_overlap", 0),
            ("rescoring", 0),
            ("lambda_corr", 0),
            ("epochs", 0),
            ("distill", 0),
        ):
            ends = getattr(self, name)
            if ends is not None and not least <= ends[0] <= ends[1]:
                raise SubnetSearchError(
                    f"space.{name} is {ends}, expected the smallest and the largest value, from {least:g}"
                )
        if not self.trunk[1] < 1:
            raise SubnetSearchError(f"space.trunk is {self.trunk}, expected shares of the dense MACs below 1")
        for name in ("algorithm", "criterion"):
            if not getattr(self, name):
                raise SubnetSearchError(f"space.{name} is empty, expected at least one; or take it out of space.names")


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched.

    Attributes:
        name: Its name.
        distribution: Its values, as Optuna describes them.
        own: The job's own value.
        asked: Whether it matters, given the settings so far: one that nothing depends on would only mislead.
    """

    name: str
    distribution: BaseDistribution
    own: Any
    asked: Callable[[RunConfig], bool]


def check_space(space: SpaceConfig, job: JobConfig) -> None:
    """Refuses a budget that is searched where the job is given as a kept share of channels.

    Raises:
        SubnetSearchError: in that case, or where both would decide what is kept.
    """
    if job.budget.budget is None and {"budget", "depth"} & set(space.names):
        raise SubnetSearchError(
            "a study that searches budget or depth needs the job's own budget in MACs, got a kept share of channels; give --budget instead of --keep, or take both out of space.names"
        )


def dimensions(space: SpaceConfig, run: RunConfig, graph: GroupGraph) -> tuple[Dimension, ...]:
    """Returns what is searched, in the order in which it is asked for.

    What the network cannot have is left out: more members than its narrowest group has channels (or than the job has,
    where those are more), blocks to leave out where it has none, bootstraps where members are trained on what they answer to the same images.

    Args:
        space: What is searched.
        run: The job's own settings.
        graph: The network's channel groups.
    """
    most = max(run.members, min((group.width for group in graph.groups), default=2))
    epochs = space.epochs or (max(1, run.finetune.epochs // 4), run.finetune.epochs)
    ranges: dict[str, BaseDistribution] = {
        "members": _integers(space.members[0], min(space.members[1], most), run.members),
        "budget": _numbers(*space.budget, run.budget.budget, log=True),
        "depth": CategoricalDistribution((False, True)),
        "trunk": _numbers(*space.trunk, run.ensemble.trunk),
        "algorithm": _words(space.algorithm, run.search.algorithm, CONTROL),
        "lambda_overlap": _numbers(*space.lambda_overlap, run.search.lambda_overlap, log=True),
        "criterion": _words(space.criterion, run.relevance.criterion),
        "rescoring": _integers(*space.rescoring, run.search.rescoring),
        "lambda_corr": _numbers(*space.lambda_corr, run.relevance.lambda_corr),
        "epochs": _integers(*epochs, run.finetune.epochs),
        "distill": _numbers(*space.distill, run.finetune.distill),
        "bagging": CategoricalDistribution((False, True)),
    }
    asked: dict[str, Callable[[RunConfig], bool]] = {
        "depth": lambda _: bool(graph.branches),
        "lambda_overlap": lambda chosen: chosen.search.algorithm in OVERLAPPING,
        "criterion": lambda chosen: chosen.search.algorithm in SCORED,
        "rescoring": _can_be_rescored,
        "lambda_corr": lambda chosen: (
            (_can_be_rescored(chosen) and chosen.search.rescoring > 0)
            or (chosen.search.algorithm == "progressive" and chosen.relevance.criterion == "ig")
        ),
        "bagging": lambda chosen: chosen.finetune.decorrelate == chosen.finetune.joint == 0,
    }
    order = [name for name in STAGES if name in space.names]
    return tuple(
        Dimension(name, ranges[name], _setting(run, name), asked.get(name, lambda _: True))
        for name in sorted(order, key=lambda name: name != "algorithm")  # on which others depend
    )


def suggest(trial: Trial, space: tuple[Dimension, ...], run: RunConfig, role: str = "search") -> RunConfig:
    """Asks the sampler for settings.

    Args:
        trial: The trial; what was enqueued with it is taken as it is.
        space: What is searched.
        run: The job's own settings.
        role: `control` takes masks that are not searched, whether or not the algorithm is.

    Returns:
        The settings of the trial's run.
    """
    chosen = _with(run, "algorithm", CONTROL) if role == "control" else run
    for dimension in space:
        if dimension.asked(chosen):
            chosen = _with(chosen, dimension.name, _ask(trial, dimension))
            if dimension.name == "criterion" and chosen.relevance.criterion != "ig":
                chosen = _with(chosen, "rescoring", 0)  # which no other criterion can do
    return chosen


def enqueued(space: tuple[Dimension, ...], run: RunConfig, role: str) -> dict[str, Any]:
    """Returns the parameters of a trial with the job's own settings (`default`) or with control masks (`control`)."""
    chosen = _with(run, "algorithm", CONTROL) if role == "control" else run
    return {d.name: _setting(chosen, d.name) for d in space if d.asked(chosen)}


def _can_be_rescored(run: RunConfig) -> bool:
    """Whether channels can be scored again inside masks, those that a member has cut too."""
    scored = run.search.algorithm in SCORE_DRIVEN - {"magnitude"}
    return scored and run.relevance.criterion == "ig" and run.relevance.path != "joint"


def _ask(trial: Trial, dimension: Dimension) -> Any:
    match dimension.distribution:
        case IntDistribution(low=low, high=high):
            return trial.suggest_int(dimension.name, low, high)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(dimension.name, low, high, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(dimension.name, choices)
    raise AssertionError(dimension)


def _setting(run: RunConfig, name: str) -> Any:
    stage, setting = STAGES[name]
    return getattr(run if stage is None else getattr(run, stage), setting)


def _with(run: RunConfig, name: str, value: Any) -> RunConfig:
    """Returns the settings with one of them changed."""
    stage, setting = STAGES[name]
    if stage is None:
        return replace(run, **{setting: value})
    return replace(run, **{stage: replace(getattr(run, stage), **{setting: value})})


def _integers(low: int, high: int, own: int) -> IntDistribution:
    return IntDistribution(min(low, own), max(high, own))


def _numbers(low: float, high: float, own: float | None, log: bool = False) -> FloatDistribution:
    """A range that holds the job's own value; one from 0 has no logarithm."""
    low, high = (low, high) if own is None else (min(low, own), max(high, own))
    return FloatDistribution(low, high, log=log and low > 0)


def _words(given: tuple[str, ...], *own: str) -> CategoricalDistribution:
    return CategoricalDistribution(tuple(dict.fromkeys((*given, *own))))
