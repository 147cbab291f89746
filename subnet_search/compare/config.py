"""Settings of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from subnet_search.baselines import BaselineConfig, check
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import mode_to_take
from subnet_search.settings import JobConfig, RunConfig
from subnet_search.tracking import Log

METHODS = (
    "msp",
    "mc_dropout",
    "deep_ensemble_finetuned",
    "bagging",
    "stochastic_depth",
    "depth_masks",
    "masksembles",
    "random",
    "search",
)
"""The methods of a comparison where none are named: all that start from the backbone, without their combinations."""


@dataclass(frozen=True)
class CompareConfig(JobConfig):
    """Everything that decides a comparison. All systems get the same images, budget and settings of the stages.

    What settings leave open is settled for each system as in a run of its own: masks get a trunk as deep as the budget
    suggests and a head for each member, but for `masksembles`, whose official layers know neither. To compare masks
    alone, say `ensemble.trunk=0` and `ensemble.head=shared`.

    Images are dealt out to the members (`finetune.mode=split`) where nothing else is said.

    Attributes:
        methods: `msp`, `mc_dropout`, `deep_ensemble`, `deep_ensemble_finetuned`, `bagging`, `stochastic_depth`,
            `depth_masks`, `mimo`, `packed`, `batch_ensemble`, `singe`; or masks (`masksembles`, `antirandom`,
            `random`, `magnitude`, `best_of_8`, `search`, `search+ALGORITHM`), alone or with `+stochastic_depth`,
            `+depth_masks`, `+bagging`, `+mimo`, `+distill`, `+repeat`.
        seeds: One training of every method for each.
        out: Folder of the comparison. Finished rows there are not computed again.
        scratch_epochs: Epochs of the systems that start from scratch; None trains them as long as the others.
        baselines: Settings of single systems.
        log: Where loss and learning rate of each step go: `tensorboard` writes them to `tensorboard` in the folder.

    Raises:
        SubnetSearchError: where there is no method of a name, nothing to compare, or a seed is negative.
    """

    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path = Path("runs/compare")
    scratch_epochs: int | None = None
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    log: Log = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.finetune.mode is None:  # one for all: what suits one method costs others several times as much
            mode = mode_to_take(self.finetune, self.members, None, 0.0)
            object.__setattr__(self, "finetune", replace(self.finetune, mode=mode))
        if not self.methods or not self.seeds:
            raise SubnetSearchError("a comparison needs at least one method and one seed")
        if min(self.seeds) < 0:
            raise SubnetSearchError(f"seeds are {' '.join(map(str, self.seeds))}, expected integers of at least 0")
        for method in self.methods:
            check(method)

    def run(self, seed: int) -> RunConfig:
        """Returns the settings of the runs with a seed."""
        return RunConfig.of(self, seed=seed)
