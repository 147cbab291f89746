"""CIFAR-10, its neighbours and the pretrained ResNets, from the folder that SUBNET_SEARCH_DATA points to."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subnet_search.backbones import Card
from subnet_search.data import ArrayDataset, load_data, split
from subnet_search.data.split import split_indices
from subnet_search.files import write_bytes

SETS = ("cifar10-train", "cifar10-test", "cifar100", "svhn", "tinyimagenet", "mnist-test")
PARTS = ("cifar10-45k", "cifar10-held-out")
"""The training images of CIFAR-10 in two: to train on, and held out."""
HELD_OUT_SHARE = 0.1
CACHE = Path(__file__).parent / "cache"
"""Where the sets are unpacked to, once; ignored by git."""

WEIGHTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.safetensors",
    "resnet56": "resnet56-4bfd9763.safetensors",
    "resnet20-45k": "resnet20-45k.safetensors",
    "resnet32-45k": "resnet32-45k.safetensors",
    "resnet56-45k": "resnet56-45k.safetensors",
}
"""Network → file of its weights."""

HELD_OUT = "-45k"
"""Ending of the names of networks that have not seen the held-out images (`benchmarks.train_resnet`)."""
TRAINED = Path(__file__).parent / "weights"
"""Where the weights of those are."""


def folder() -> Path:
    """Returns the folder that holds `data/` and `backbones/`, or ends the program with a sentence that says how."""
    given = os.environ.get("SUBNET_SEARCH_DATA", "")
    path = Path(given)
    if not given or not (path / "data" / "arrays.py").is_file():
        sys.exit("set SUBNET_SEARCH_DATA to the folder that holds data/arrays.py and backbones/ and run this again")
    return path


def weights(backbone: str) -> Path:
    """Returns the file of the weights of a network, or ends the program with a sentence that says how to get it."""
    if not backbone.endswith(HELD_OUT):
        return folder() / "backbones" / WEIGHTS[backbone]
    path = trained(backbone)
    if not path.exists():
        sys.exit(f"train {backbone} first: python -m benchmarks.train_resnet --backbone {architecture(backbone)}")
    return path


def trained(backbone: str, seed: int = 0) -> Path:
    """Returns where the weights of a network of `benchmarks.train_resnet` are; those of other seeds have it in their name."""
    file = TRAINED / WEIGHTS[backbone]
    return file.with_stem(f"{file.stem}-{seed}") if seed else file


def architecture(backbone: str) -> str:
    """Returns the name by which the package builds a network."""
    return backbone.removesuffix(HELD_OUT)


def human_counts() -> Path:
    """Returns the file of CIFAR-10H: how many people gave each test image each label (Peterson et al. 2019)."""
    return folder() / "data" / "cifar10h_counts.npz"


def images(name: str, card: Card, count: int | None = None) -> ArrayDataset:
    """Returns a set, or its first `count` images, in the size of a network; labels of CIFAR-10 alone are read."""
    found = load_data(npz(name), card, resize=True, labelled=name.startswith("cifar10-"))
    return found if count is None else ArrayDataset(found.images[:count], found.labels[:count], name)


def divided(card: Card, count: int | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """Returns the training images of CIFAR-10, or the first `count`, in two: 9 in 10 to train on, the others held out."""
    return split(images("cifar10-train", card, count), HELD_OUT_SHARE, 0)


def npz(name: str, count: int | None = None) -> str:
    """Returns the data source `npz:FILE` of a set, or of its first `count` images, unpacking it the first time.

    Args:
        name: One of `SETS`, or of `PARTS`, which are what `divided` returns.
        count: How many images.
    """
    path = CACHE / (f"{name}.npz" if count is None else f"{name}-{count}.npz")
    if not path.exists():
        images, labels = _arrays(name)
        arrays = {"x": images[:count], **({} if labels is None else {"y": labels[:count]})}
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        write_bytes(path, packed.getvalue())
    return f"npz:{path}"


def _arrays(name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Images and labels of a set or a part, as they come from the folder."""
    if name in PARTS:
        images, labels = _arrays("cifar10-train")
        assert labels is not None
        part = split_indices(torch.from_numpy(labels).long(), HELD_OUT_SHARE, 0)[PARTS.index(name)].numpy()
        return images[part], labels[part]
    spec = importlib.util.spec_from_file_location("arrays", folder() / "data" / "arrays.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[NDArray[Any], NDArray[Any] | None] = module.load(name)
    return found
