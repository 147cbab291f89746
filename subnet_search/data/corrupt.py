"""Test images under distribution shift: five kinds of corruption at five severities, made from any labelled set.

Source: D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019. The severities are those of CIFAR-10-C, whatever the size of the images. What differs from CIFAR-10-C: the
results are rounded to the nearest of the 256 levels, there they are cut off to the next lower one; the noise has
another generator; JPEG is that of the installed Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.utils.data import Dataset

from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.data.batches import batches, length, source_of
from subnet_search.errors import SubnetSearchError

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation, of values in [0, 1]
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation in pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # what is left of the distance to the channel's mean
    "jpeg": (80, 65, 58, 50, 40),  # quality
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # share of the rows and columns that are left
}
"""What severity 1 to 5 of each kind means."""

KINDS = tuple(STRENGTHS)
SEVERITIES = (1, 2, 3, 4, 5)

CHUNK = 64
"""Images that are changed at once: their float64 copies are what takes memory."""

Pixels = NDArray[np.uint8]


def corrupt(dataset: Dataset[Any], kind: str, severity: int, seed: int = 0) -> ArrayDataset:
    """Returns the images of a dataset as they would look on a worse day, with the same labels.

    The normal values of the noise are drawn in the order of the images from one generator, so those of an image
    depend on `seed`, its place and its shape alone; the severities scale the same values.

    Args:
        dataset: Map-style dataset of (raw image `[1 or 3, H, W]`, int label).
        kind: One of `KINDS`.
        severity: One of `SEVERITIES`, 5 is the worst. Where images have few pixels, two severities of `pixelate` can
            be the same (1 and 2 at 8 × 8: seven pixels are left of eight).
        seed: Seed of the noise; no other kind is random.

    Returns:
        Images uint8 `[sample, 1 or 3, H, W]`.

    Raises:
        SubnetSearchError: where there is no such kind or severity, and as `quantised`.
    """
    if kind not in STRENGTHS:
        raise SubnetSearchError(f"no corruption {kind!r}, expected one of {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise SubnetSearchError(f"corruption {kind!r} has no severity {severity!r}, expected one of {SEVERITIES}")
    clean = quantised(dataset)
    strength, random = STRENGTHS[kind][severity - 1], np.random.default_rng(seed)
    worse = torch.empty_like(clean.images)
    for before, after in zip(clean.images.split(CHUNK), worse.split(CHUNK), strict=True):
        after.copy_(torch.from_numpy(_change(before.numpy(), kind, strength, random)))
    return ArrayDataset(worse, clean.labels, f"{clean.source} ({kind}, severity {severity})")


def quantised(dataset: Dataset[Any]) -> ArrayDataset:
    """Reads the images of a dataset into memory as they come from a camera, in 256 levels.

    Args:
        dataset: Map-style dataset of (raw image `[1 or 3, H, W]`, int label).

    Returns:
        Images uint8 `[sample, 1 or 3, H, W]`; those in [0, 1] are rounded to the nearest level.

    Raises:
        SubnetSearchError: where there are no images, or their shape is another.
    """
    source = source_of(dataset)
    if length(dataset) == 0:
        raise SubnetSearchError(f"{source}: there are no images to corrupt, expected at least one")
    images, labels = [], []
    for raw, given in batches(dataset, CHUNK):
        check_picture(tuple(raw.shape[1:]), source)
        levels = raw if raw.dtype == torch.uint8 else raw.float().mul(255).round().clamp(0, 255).to(torch.uint8)
        images.append(levels.cpu())
        labels.append(given.cpu())
    return ArrayDataset(torch.cat(images), torch.cat(labels), source)


def check_picture(shape: tuple[int, ...], source: str) -> None:
    """Refuses shapes for which the corruptions are not defined.

    Args:
        shape: Shape of one sample.
        source: Where the samples come from, for the error message.

    Raises:
        SubnetSearchError: where `shape` is not `(1 or 3, height, width)`.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise SubnetSearchError(
            f"{source}: samples have shape {shape}, only pictures of shape (1 or 3, height, width) can be corrupted; "
            "evaluate without shift figures (shift_samples=0)"
        )


def _change(images: Pixels, kind: str, strength: float, random: np.random.Generator) -> Pixels:
    """Corrupts `[batch, channel, H, W]`."""
    scaled = images / 255.0
    match kind:
        case "gaussian_noise":
            return _levels(scaled + strength * random.standard_normal(images.shape))
        case "gaussian_blur":  # with these edges and this cut-off it is skimage.filters.gaussian, which made CIFAR-10-C
            return _levels(gaussian_filter(scaled, (0, 0, strength, strength), mode="nearest", truncate=4.0))
        case "contrast":  # Pillow's own contrast keeps the mean of the grey image, not that of each channel
            mean = scaled.mean(axis=(2, 3), keepdims=True)
            return _levels((scaled - mean) * strength + mean)
        case "jpeg":
            return _each(images, lambda picture: _compress(picture, int(strength)))
        case _:
            return _each(images, lambda picture: _coarsen(picture, strength))


def _levels(values: NDArray[np.float64]) -> Pixels:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _each(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Applies what Pillow does to one picture to a batch of them."""
    pictures = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    changed = np.stack([np.asarray(change(Image.fromarray(np.ascontiguousarray(one)))) for one in pictures])
    return changed[:, None] if images.shape[1] == 1 else changed.transpose(0, 3, 1, 2)


def _compress(picture: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _coarsen(picture: Image.Image, share: float) -> Image.Image:
    width, height = (max(1, int(side * share)) for side in picture.size)
    box = Image.Resampling.BOX
    return picture.resize((width, height), box).resize(picture.size, box)
