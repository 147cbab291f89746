"""Settings of a study."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from subnet_search.errors import SubnetSearchError
from subnet_search.settings import JobConfig, RunConfig, to_dict
from subnet_search.tune.objectives import DEFAULT_OBJECTIVES, check_objectives
from subnet_search.tune.space import SpaceConfig, check_space

Sampler = Literal["tpe", "nsga2", "gp", "random"]
Pruner = Literal["hyperband", "halving", "median"]

INDIFFERENT = ("out", "trials", "study_name", "storage", "workers", "heartbeat", "network", "images")
"""Settings in which the processes of one study may differ; network and images are told apart by their content."""


@dataclass(frozen=True)
class TuneConfig(JobConfig):
    """Everything that decides a study. What is not searched stays as the other settings say.

    Attributes:
        out: Folder of the study: journal, cache, and the masks and figures of its trials. Processes on other machines
            need a folder of their own, or the same one through a shared file system.
        trials: Finished trials in all, low fidelities counted. A study that is taken up goes on to this number.
        study_name: Name under which other processes join; None takes the name of the folder.
        storage: Where the trials are kept: a URL as `postgresql+psycopg://user@host/base`; None keeps them in a
            journal file in the folder.
        workers: Processes on this machine.
        seed: Seed of the sampler and of all runs.
        objectives: Some of `nll`, `error`, `ece`, `ood_auroc`, `error_correlation`, `mask_iou`, `macs`, computed on
            the validation images.
        choose_ood: `NAME=SOURCE`, the OOD images of the objective `ood_auroc`; not among those of the final figures.
        max_macs: MACs of all members / MACs of the dense network that a point of the front may cost; None sets no limit.
        sampler: `tpe`, `nsga2`, `gp` or `random`.
        pruner: `hyperband`, `halving` or `median`, for one objective only; None takes the study's own ladder, which
            every study can have.
        rungs: Fidelities at which a trial is measured and may be stopped: shares of its epochs, growing, the last is
            1; 0 is masks with recalibrated normalisation. `1` alone trains every trial in full.
        eta: Of the trials at a rung, the best 1 / eta go on.
        heartbeat: Seconds between signs of life in a database. A trial without one for twice that time is another
            worker's.
        space: What is searched, and how far.

    Raises:
        SubnetSearchError: where a setting has no such value, or two do not go together.
    """

    out: Path = Path("runs/tune")
    trials: int = 100
    study_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    workers: int = 1
    seed: int = 0
    objectives: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--objective",))] = DEFAULT_OBJECTIVES
    choose_ood: Annotated[str | None, tyro.conf.arg(metavar="NAME=SOURCE")] = None
    max_macs: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    sampler: Sampler = "tpe"
    pruner: Pruner | None = None
    rungs: tuple[float, ...] = (0.0, 1 / 3, 1.0)
    eta: int = 2
    heartbeat: int = 60
    space: SpaceConfig = field(default_factory=SpaceConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("trials", 1), ("workers", 1), ("seed", 0), ("eta", 2), ("heartbeat", 1)):
            if getattr(self, name) < least:
                raise SubnetSearchError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.sampler not in get_args(Sampler):
            raise SubnetSearchError(f"sampler is {self.sampler!r}, expected one of {', '.join(get_args(Sampler))}")
        if self.pruner is not None and self.pruner not in get_args(Pruner):
            raise SubnetSearchError(f"pruner is {self.pruner!r}, expected one of {', '.join(get_args(Pruner))}")
        if self.pruner is not None and len(self.objectives) > 1:
            raise SubnetSearchError(
                f"pruner {self.pruner!r} judges by one objective, got {len(self.objectives)}: {', '.join(self.objectives)}; "
                "give one, or leave the pruner out: the ladder of rungs serves any number"
            )
        rungs = self.rungs
        if not rungs or rungs[-1] != 1 or rungs[0] < 0 or any(a >= b for a, b in pairwise(rungs)):
            raise SubnetSearchError(f"rungs are {rungs}, expected growing shares of the epochs from 0, the last is 1")
        if self.max_macs is not None and not self.max_macs > 0:
            raise SubnetSearchError(f"max_macs is {self.max_macs}, expected a positive number")
        check_objectives(self.objectives, self.choose_ood, self.images.ood)
        check_space(self.space, self)

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.study_name or self.out.resolve().name

    def run(self) -> RunConfig:
        """Returns the settings of a run as they stand, with nothing searched."""
        return RunConfig.of(self, seed=self.seed)

    def decisive(self) -> dict[str, Any]:
        """Returns the settings that all processes of a study must share."""
        return {name: value for name, value in self.record().items() if name not in INDIFFERENT}

    def record(self) -> dict[str, Any]:
        """Returns all settings as JSON values, but for where the study is stored: a URL can hold a password."""
        return to_dict(replace(self, storage=None))
