"""What the systems of the comparison are made from, and what each of them comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from rich.progress import Progress

from subnet_search.backbones import Backbone
from subnet_search.ensemble import Predictor
from subnet_search.entwined import Phase
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import mode_to_take
from subnet_search.groups import GroupGraph
from subnet_search.inputs import Splits
from subnet_search.masks import MaskSet
from subnet_search.settings import RunConfig

Origin = Literal["backbone", "scratch"]


@dataclass(frozen=True)
class BaselineConfig:
    """Settings of single systems; what several of them need is in the settings of the run.

    Attributes:
        dropout: Share of the channels that MC Dropout leaves out, in [0, 1).
        depth_drop: Probability that stochastic depth leaves out the last residual branch; it grows linearly from the
            first to the last (Huang et al. 2016, section 4), in [0, 1).
        inputs: Images that MIMO takes in at once where it is combined with masks; alone, as many as there are members.
        input_repetition: Share of the rows in which all inputs of MIMO see one image (ρ), in [0, 1).
        batch_repetition: How often MIMO repeats an image in a step.
        alpha: Width of all members of Packed-Ensembles together / width of the network.
        rounds: Rounds of scoring, cutting and training in which `singe` prunes.

    Raises:
        SubnetSearchError: where a setting has no such value.
    """

    dropout: float = 0.1
    depth_drop: float = 0.2
    inputs: int = 2
    input_repetition: float = 0.5
    batch_repetition: int = 4
    alpha: float = 2.0
    rounds: int = 5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("dropout", 0.0, 0.99),
            ("depth_drop", 0.0, 0.99),
            ("inputs", 1, 64),
            ("input_repetition", 0.0, 0.99),
            ("batch_repetition", 1, 1024),
            ("alpha", 1e-3, 64.0),
            ("rounds", 1, 1000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SubnetSearchError(f"baselines.{name} is {value}, expected a value from {low} to {high}")


def at_once(search: Callable[[], MaskSet]) -> MaskSet:
    """Searches, and keeps nothing of it."""
    return search()


@dataclass(frozen=True)
class Setup:
    """What a system is made from.

    Attributes:
        backbone: The trained network.
        graph: Its channel groups.
        splits: The images.
        run: Members, seed, budget and the settings of all stages.
        baselines: Settings of single systems.
        progress: Bar to report to.
        kept: Gives the masks of a search, whether it has to search for them or has kept them from an earlier time.
    """

    backbone: Backbone
    graph: GroupGraph
    splits: Splits
    run: RunConfig
    baselines: BaselineConfig = BaselineConfig()
    progress: Progress | None = None
    kept: Callable[[Callable[[], MaskSet]], MaskSet] = at_once

    def __post_init__(self) -> None:
        training = self.run.finetune
        if training.mode is None:  # one for all systems, as in a comparison
            training = replace(training, mode=mode_to_take(training, self.run.members, None, 0.0))
            object.__setattr__(self, "run", replace(self.run, finetune=training))


@dataclass(frozen=True)
class System:
    """An untrained predictor and how it is trained.

    Attributes:
        predictor: The network of the system.
        phases: Its training, in order; none for a network that is used as it came.
        origin: Whether it starts from the trained backbone or from scratch, which cannot be compared at equal samples.
        budget: MACs of the whole system / MACs of the dense network, where they were asked for.
        masks: Gives the masks in which the members differ, final after the training; None where there are none.
    """

    predictor: Predictor
    phases: tuple[Phase, ...]
    origin: Origin = "backbone"
    budget: float | None = None
    masks: Callable[[], MaskSet] | None = None

    @property
    def iou(self) -> float | None:
        """Mean intersection over union of the members' masks; None where there are none."""
        return None if self.masks is None else self.masks().mean_iou()
