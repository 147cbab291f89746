"""All settings of a run, one frozen dataclass for each stage, and their JSON form."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tyro

from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.formats import FormatsConfig
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.tracking import Log

T = TypeVar("T")

Flat = tyro.conf.arg(name="")
"""The options of such a part stand without a prefix on the command line."""


@dataclass(frozen=True)
class BackboneConfig:
    """The trained network.

    Attributes:
        backbone: `digits`, `resnet20`, `resnet32`, `resnet44`, `resnet56`, or `module:callable`.
        weights: `.safetensors` file or PyTorch checkpoint; `digits` brings its own. `random` takes none, which is
            enough to `inspect` a network.
        input_shape: Channels, height, width; needed for `module:callable`.
        classes: Class names in the order of the logits, as `cat dog horse`; needed for `module:callable`.
        mean: Per-channel mean of the normalisation, of values in [0, 1].
        std: Per-channel standard deviation of the normalisation.
    """

    backbone: str = "digits"
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    input_shape: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="C H W")] = None
    classes: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME NAME ...")] = None
    mean: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT ...")] = None
    std: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT ...")] = None


@dataclass(frozen=True)
class DataConfig:
    """The images. The search and the fine-tuning see `data` only; `test` and `ood` are for the final figures.

    Attributes:
        data: Training images: `digits`, `npz:FILE` (keys x, y) or `folder:DIR` (one sub-folder a class).
        test: Test images in the same form; None takes the digits' own test part, or, for other data, has the figures
            computed on the validation part.
        ood: Images from other domains, each `NAME=SOURCE`, where a source is as above, `photos` (patches of two
            photographs) or `noise`; labels are not needed. `--ood` alone takes none.
        validation: Share of `data` that is held out, in (0, 1); without effect where `held_out` names a source.
        split_seed: Seed of the division; kept apart from the seed of the run, so that runs with other seeds hold out
            the same images (the digits network has never seen those of 0.2 and 0).
        resize: Whether images of another size are resized to the backbone's.
        held_out: Validation images, best some that the network was not trained on; None holds out a part of `data`.

    Raises:
        SubnetSearchError: where the test images are those of another part, which nothing could be told by.
    """

    data: Annotated[str, tyro.conf.arg(metavar="SOURCE")] = "digits"
    test: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    ood: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME=SOURCE ...]")] = ("photos=photos",)
    validation: float = 0.2
    split_seed: int = 0
    resize: bool = False
    held_out: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None

    def __post_init__(self) -> None:
        if self.test is not None and self.test in (self.data, self.held_out):  # a study does not open its test images
            raise SubnetSearchError(
                f"images.test is {self.test!r}, and so is images.{'data' if self.test == self.data else 'held_out'}; expected images that nothing is trained or chosen on, or none"
            )


@dataclass(frozen=True)
class JobConfig:
    """What a run, a comparison and a study have in common: network, images, and the settings of the stages.

    Attributes:
        members: Number of members K, at least 2.
        network: The trained network.
        images: The images.
        budget: What the ensemble may cost.
        relevance: How channels are scored.
        search: How channels are assigned.
        ensemble: What members share.
        finetune: How the ensemble is trained.
        evaluate: How it is measured.

    Raises:
        SubnetSearchError: where there are fewer than 2 members.
    """

    members: int = 4
    network: Annotated[BackboneConfig, Flat] = field(default_factory=BackboneConfig)
    images: Annotated[DataConfig, Flat] = field(default_factory=DataConfig)
    budget: Annotated[BudgetConfig, Flat] = field(default_factory=BudgetConfig)
    relevance: RelevanceConfig = field(default_factory=RelevanceConfig)
    search: SearchConfig = field(default_factory=lambda: SearchConfig(lambda_overlap=None))
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(head=None, trunk=None))
    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(mode=None))
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        out = getattr(self, "out", None)  # the folder that each kind of job has
        if isinstance(out, str):
            object.__setattr__(self, "out", Path(out))
        if self.members < 2:
            raise SubnetSearchError(
                f"members is {self.members}, expected at least 2; one member is the dense network, pruned"
            )


@dataclass(frozen=True)
class RunConfig(JobConfig):
    """Everything that decides the result of a run.

    Attributes:
        out: Folder of the run. Where it holds a run already, that run is continued and its settings are the defaults.
        seed: Seed of the run; it is added to the seeds of the stages.
        export: In which forms it is written, beside the folder that this package loads.
        log: Where loss and learning rate of each step go: `tensorboard` writes them to `tensorboard` in the folder.

    Raises:
        SubnetSearchError: where the seed is negative, or as for `JobConfig`.
    """

    out: Path = Path("runs/digits")
    seed: int = 0
    export: Annotated[FormatsConfig, Flat] = field(default_factory=FormatsConfig)
    log: Log = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:  # found here, and not by the search after an hour of scoring
            raise SubnetSearchError(f"seed is {self.seed}, expected an integer of at least 0")

    @classmethod
    def of(cls, job: JobConfig, **own: Any) -> Self:
        """Returns the settings of one run of a job; `own` are those that only a run has."""
        return cls(**{f.name: getattr(job, f.name) for f in dataclasses.fields(JobConfig)}, **own)

    def seeded(self, stage: Literal["relevance", "search", "finetune"]) -> Any:
        """Returns the stage's settings with the seed of the run added to theirs."""
        settings = getattr(self, stage)
        return dataclasses.replace(settings, seed=settings.seed + self.seed)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns plain JSON values of a dataclass of settings; paths become text, tuples lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def from_dict(kind: type[T], values: Any, where: str) -> T:
    """Builds a dataclass of settings from `to_dict`'s values; missing ones take their defaults.

    Args:
        kind: The dataclass.
        values: Name → JSON value.
        where: Where they come from, for messages.

    Raises:
        SubnetSearchError: where a name is unknown, which a newer or older version may have written, or a value is of
            another kind.
    """
    if not isinstance(values, dict):
        raise SubnetSearchError(f"{where}: got {values!r}, expected a mapping from names to settings")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise SubnetSearchError(f"{where}: unknown settings {unknown}, expected some of {sorted(hints)}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """Returns a JSON value as what the type hint of its setting asks for."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _value(options[0], value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type[Any], hint), value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        kinds = typing.get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(value) == len(kinds):
            return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        return value
    raise SubnetSearchError(f"{where}: got {value!r}, expected {hint.__name__ if isinstance(hint, type) else hint}")
