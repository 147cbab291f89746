"""Data by name: what the command line and the configs understand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from subnet_search.backbones.card import Card
from subnet_search.data.array_dataset import UNLABELLED, ArrayDataset, check_labels
from subnet_search.data.digits import load_digits
from subnet_search.data.far_ood import noise, photo_patches
from subnet_search.data.fit import fit_images
from subnet_search.data.folder import load_folder
from subnet_search.data.npz import load_npz
from subnet_search.errors import SubnetSearchError

SOURCES = "digits, digits:train, digits:test, npz:FILE, folder:DIR, photos, noise"


def source_name(spec: str) -> str:
    """Returns what a figure calls a source: `cifar10-train` for `npz:/data/cifar10-train.npz`, other names as they are."""
    kind, _, place = spec.partition(":")
    match kind:
        case "npz":
            return Path(place).stem
        case "folder":
            return Path(place).resolve().name
        case _:
            return spec


def load_data(spec: str, card: Card, *, resize: bool = False, labelled: bool = True) -> ArrayDataset:
    """Loads data by name, in the shape that a network expects.

    Args:
        spec: `digits` (the same as `digits:train`), `digits:test`, `npz:FILE` (keys x, y), `folder:DIR` (one
            sub-folder a class), or without labels `photos` (patches of two photographs) and `noise` (uniform pixels).
        card: Card of the network: input shape and classes.
        resize: Whether images of another size are resized and grey is turned into RGB or back.
        labelled: False drops the labels, which need not be the network's then: for out-of-distribution data.

    Returns:
        The dataset; labels are −1 where there are none.

    Raises:
        SubnetSearchError: where there is no such source, or its images or labels do not suit the network.
    """
    kind, _, place = spec.partition(":")
    if kind in ("npz", "folder") and not place:
        raise SubnetSearchError(f"data {spec!r} names no {'file' if kind == 'npz' else 'folder'}, expected {kind}:PATH")
    match kind:
        case "digits":
            dataset = load_digits(place or "train")
            dataset = replace(dataset, images=fit_images(dataset.images, card.input_shape, dataset.source, resize))
        case "npz":
            dataset = load_npz(place, card.input_shape, resize, labelled)
        case "folder":
            dataset = load_folder(place, card.input_shape, card.classes, resize, labelled)
        case "photos" if not place:
            dataset = photo_patches(card.input_shape)
        case "noise" if not place:
            dataset = noise(card.input_shape)
        case _:
            raise SubnetSearchError(f"no data source {spec!r}, expected one of {SOURCES}")
    if not labelled:
        return replace(dataset, labels=torch.full_like(dataset.labels, UNLABELLED))
    check_labels(dataset.labels, len(card.classes), dataset.source)
    return dataset
