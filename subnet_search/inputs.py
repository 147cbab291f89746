"""From the names in the settings to the network and the images of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.data import (
    UNLABELLED,
    ArrayDataset,
    batches,
    check_labels,
    check_picture,
    check_training,
    digest,
    labels_of,
    load_data,
    load_image,
    split,
)
from subnet_search.data.folder import printable
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph
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

    Raises:
        SubnetSearchError: where the name of an OOD set is empty or holds a slash, which parts the names of figures.
    """

    train: Data
    validation: Data
    test: Data | None = None
    ood: Mapping[str, Data] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.ood:
            if not name or "/" in name or not name.isprintable():
                raise SubnetSearchError(f"OOD set {name!r}: expected a name without slashes, such as svhn")

    @property
    def judged(self) -> Data:
        """The images that the figures are computed on."""
        return self.validation if self.test is None else self.test

    @property
    def held_out(self) -> Data | None:
        """The validation images where no figure is computed on them: what temperature and limits may be fitted to."""
        return None if self.test is None else self.validation


def open_backbone(config: BackboneConfig) -> Backbone:
    """Loads the network that the settings name."""
    given = {
        name: value
        for name in ("input_shape", "classes", "mean", "std")
        if (value := getattr(config, name)) is not None
    }
    weights = "random" if config.weights == Path("random") else config.weights  # a setting is a path, a word is not
    return load_backbone(config.backbone, weights, **given)


def open_splits(config: DataConfig, card: Card) -> Splits:
    """Loads and divides the images that the settings name.

    Raises:
        SubnetSearchError: where a source is wrong, test or validation images have no labels, validation images are
            training images, most test images are either, or an OOD set has no name.
    """
    train, validation = _train_and_validation(config, card)
    spec = "digits:test" if config.test is None and config.data == "digits" else config.test
    test = None if spec is None else load_data(spec, card, resize=config.resize)
    if test is not None:  # found here, and not after the training
        _check_labelled(test.labels, f"test data {spec}")
        _check_unseen(test, f"test data {spec}", train, validation)
    ood: dict[str, Data] = {}
    for entry in config.ood:
        name, equals, source = entry.partition("=")
        if not equals or not name or name in ood:
            raise SubnetSearchError(
                f"OOD set {entry!r}: expected NAME=SOURCE with a name of its own, as svhn=npz:svhn.npz"
            )
        ood[name] = load_data(source, card, resize=config.resize, labelled=False)
    return Splits(train, validation, test, ood)


def check_splits(splits: Splits, card: Card, shifted: bool = False) -> None:
    """Refuses images and labels that nothing can be learned from, before anything is written.

    Test and OOD images are not touched: nothing but the evaluation reads them.

    Args:
        splits: The images of a run.
        card: Card of the network.
        shifted: Whether the evaluation is to corrupt the test images, which only pictures can be.

    Raises:
        SubnetSearchError: where training or validation labels are absent or outside the classes, all training labels
            are of one class, or what is to be corrupted is no picture.
    """
    if shifted:
        check_picture(card.input_shape, f"network {card.name!r}")
    check_training(labels_of(splits.train), len(card.classes), _source(splits.train, "training data"))
    held_out, source = labels_of(splits.validation), _source(splits.validation, "validation data")
    check_labels(held_out, len(card.classes), source)
    _check_labelled(held_out, source)


def check_logits(graph: GroupGraph, card: Card) -> None:
    """Refuses a network that has not one logit for each class of its card.

    Args:
        graph: What `find_groups` has found in the network.
        card: Card of the network.

    Raises:
        SubnetSearchError: where it has more of them, or less.
    """
    if graph.classes != len(card.classes):
        raise SubnetSearchError(
            f"network {card.name!r} gives {graph.classes} logit{'s' if graph.classes > 1 else ''} for each image, expected {len(card.classes)}, one for each class that its card names; give the card of this network, or a head with one logit for each class"
        )


def open_images(place: str, card: Card, resize: bool = False) -> ArrayDataset:
    """Loads images without labels: a source as in the settings, or simply the path of a file or folder.

    Args:
        place: `npz:FILE`, `folder:DIR`, `digits:test` and so on, an `.npz` file, a folder of images, or one image.
        card: Card of the network.
        resize: Whether images of another size are resized.

    Raises:
        SubnetSearchError: where there is no such source, or its images do not suit the network.
    """
    path = Path(place)
    if path.is_file() and path.suffix.lower() != ".npz":
        image = load_image(path, card.input_shape, resize)
        return ArrayDataset(image[None], torch.tensor([UNLABELLED]), place, (printable(Path(path.name)),))
    if path.exists():
        place = f"{'folder' if path.is_dir() else 'npz'}:{path}"
    return load_data(place, card, resize=resize, labelled=False)


def network_digest(network: nn.Module) -> str:
    """Returns the SHA-256 of the weights of a network with their names."""
    sha = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def training_digests(backbone: Backbone, splits: Splits) -> dict[str, str]:
    """Tells apart what search and fine-tuning depend on: names alone do not show that a file has changed.

    Of a training set of the caller's own only the labels count: its images may be drawn anew each time they are read.

    Args:
        backbone: The trained network.
        splits: The images, of which those of the training alone are read.

    Returns:
        `network` and `training set` → SHA-256.
    """
    train = splits.train
    if isinstance(train, ArrayDataset):
        told = digest(train)
    else:
        told = hashlib.sha256(labels_of(train).contiguous().numpy().data).hexdigest()
    return {"network": network_digest(backbone.model), "training set": told}


def evaluation_digests(splits: Splits) -> dict[str, str]:
    """Tells apart what else the figures depend on.

    Args:
        splits: The images, of which all but those of the training are read.

    Returns:
        `validation set`, `test set` and `OOD set NAME`, as far as they are there → SHA-256.
    """
    sets = {"validation set": splits.validation}
    if splits.test is not None:
        sets["test set"] = splits.test
    sets |= {f"OOD set {name}": data for name, data in splits.ood.items()}
    return {name: digest(data) for name, data in sets.items()}


def example_of(data: Data, card: Card) -> Tensor:
    """Returns two prepared images, `[2, *input_shape]`, with which the network is traced."""
    images, _ = next(iter(batches(data, 2)))
    return card.prepare(images)


def _train_and_validation(config: DataConfig, card: Card) -> tuple[ArrayDataset, ArrayDataset]:
    everything = load_data(config.data, card, resize=config.resize)
    check_training(everything.labels, len(card.classes), config.data)
    if config.held_out is None:
        return split(everything, config.validation, config.split_seed)
    held_out = load_data(config.held_out, card, resize=config.resize)
    _check_labelled(held_out.labels, f"validation data {config.held_out}")
    if digest(held_out) == digest(everything):
        raise SubnetSearchError(
            f"validation data {config.held_out} are the training images, expected others; leave --held-out away to hold out a share of the training images"
        )
    return everything, held_out


def _check_unseen(test: ArrayDataset, source: str, train: ArrayDataset, validation: ArrayDataset) -> None:
    """Refuses test images most of which are training or validation images, whatever their files are called.

    A few are in both sets of many a collection.
    """
    tested = _each(test)
    for part, name in ((train, "training"), (validation, "validation")):
        common = len(tested & _each(part))
        if 2 * common > len(tested):
            raise SubnetSearchError(
                f"{source}: {common} of {len(tested)} different images are {name} images, expected others; figures of images that were trained or chosen on say nothing"
            )


def _each(data: ArrayDataset) -> set[bytes]:
    """A digest of each image."""
    return {hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in data.images}


def _check_labelled(labels: Tensor, source: str) -> None:
    if UNLABELLED in labels:
        raise SubnetSearchError(f"{source} has images without labels, expected a label for each image")


def _source(data: Data, otherwise: str) -> str:
    return str(getattr(data, "source", otherwise))
