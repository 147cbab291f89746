"""From the names in the settings to the network and the images of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.data import batches, check_training, labels_of, load_data, split
from subnet_search.errors import SubnetSearchError
from subnet_search.settings import BackboneConfig, DataConfig

Data = Dataset[Any]


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        train: What search and fine-tuning see.
        validation: What settings and temperatures are chosen on.
        test: What the figures are computed on, seen by nothing else; None has them computed on `validation`.
        ood: Images from other domains, by name, seen by the evaluation only.
    """

    train: Data
    validation: Data
    test: Data | None = None
    ood: Mapping[str, Data] = field(default_factory=dict)


def open_backbone(config: BackboneConfig) -> Backbone:
    """Loads the network that the settings name."""
    given = {
        name: value
        for name in ("input_shape", "classes", "mean", "std")
        if (value := getattr(config, name)) is not None
    }
    return load_backbone(config.backbone, config.weights, **given)


def open_splits(config: DataConfig, card: Card) -> Splits:
    """Loads and divides the images that the settings name.

    Raises:
        SubnetSearchError: where a source is wrong, labels do not fit the classes, or an OOD set has no name.
    """
    everything = load_data(config.data, card, resize=config.resize)
    check_training(labels_of(everything), len(card.classes), config.data)
    train, validation = split(everything, config.validation, config.split_seed)
    spec = "digits:test" if config.test is None and config.data == "digits" else config.test
    test = None if spec is None else load_data(spec, card, resize=config.resize)
    ood: dict[str, Data] = {}
    for entry in config.ood:
        name, equals, source = entry.partition("=")
        if not equals or not name or name in ood:
            raise SubnetSearchError(
                f"OOD set {entry!r}: expected NAME=SOURCE with a name of its own, as svhn=npz:svhn.npz"
            )
        ood[name] = load_data(source, card, resize=config.resize, labelled=False)
    return Splits(train, validation, test, ood)


def example_of(data: Data, card: Card) -> Tensor:
    """Returns two prepared images, `[2, *input_shape]`, with which the network is traced."""
    images, _ = next(iter(batches(data, 2)))
    return card.prepare(images)
