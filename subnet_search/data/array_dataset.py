"""Images and labels as two tensors in memory: the form in which every built-in source hands out its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from subnet_search.errors import SubnetSearchError

UNLABELLED = -1
"""The label of an image without one."""

ROUNDING = 1e-4
"""How far above 1 or below 0 a float image may go: interpolation and float16 overshoot a little."""


@dataclass(frozen=True, eq=False)
class ArrayDataset(Dataset[tuple[Tensor, int]]):
    """Raw images with labels; normalisation is left to the card of the network.

    Attributes:
        images: `[N, *input_shape]`, uint8 in 0..255 or floating point in [0, 1].
        labels: int64 `[N]`, class indices, or −1 where there is no label.
        source: Where the images come from, for error messages.
        files: The file of each image, relative to the folder that was read; empty where the images are no files.

    Raises:
        SubnetSearchError: where there are no images, lengths differ, the types are others, or values are NaN,
            infinite or outside [0, 1].
    """

    images: Tensor
    labels: Tensor
    source: str = "dataset"
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or len(self.images) == 0:
            raise SubnetSearchError(
                f"{self.source}: images have shape {tuple(self.images.shape)}, expected [N, *input_shape] with N at least 1"
            )
        if self.labels.ndim != 1 or len(self.labels) != len(self.images):
            raise SubnetSearchError(
                f"{self.source}: {len(self.images)} images but labels of shape {tuple(self.labels.shape)}, expected one label for each image"
            )
        if self.labels.dtype != torch.int64:
            raise SubnetSearchError(
                f"{self.source}: labels are {self.labels.dtype}, expected torch.int64 class indices"
            )
        if len(self.files) not in (0, len(self.images)):
            raise SubnetSearchError(
                f"{self.source}: {len(self.images)} images but {len(self.files)} files, expected one file for each image, or none"
            )
        check_images(self.images, self.source)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns a whole batch at once, images `[batch, *input_shape]` and labels `[batch]`."""
        places = torch.as_tensor(indices, dtype=torch.int64)
        return self.images[places], self.labels[places]

    def subset(self, indices: Tensor | Sequence[int]) -> ArrayDataset:
        """Returns the samples at `indices`, in that order, as a dataset of its own."""
        places = torch.as_tensor(indices).tolist()
        files = tuple(self.files[place] for place in places) if self.files else ()
        return ArrayDataset(*self.__getitems__(places), self.source, files)


def check_images(images: Tensor, source: str) -> None:
    """Refuses images that no card can prepare.

    Args:
        images: Any shape, at least one element.
        source: Where they come from, for the error message.

    Raises:
        SubnetSearchError: where they are neither uint8 nor floating point, or hold NaN, infinity or values outside [0, 1].
    """
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise SubnetSearchError(
            f"{source}: images are {images.dtype}, expected torch.uint8 or floating point in [0, 1]"
        )
    low, high = (float(value) for value in torch.aminmax(images))
    if low >= -ROUNDING and high <= 1 + ROUNDING:  # false for NaN as well
        return
    bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist() if images.ndim > 1 else []
    if bad:
        raise SubnetSearchError(
            f"{source}: {len(bad)} of {len(images)} images hold NaN or infinity, the first is image {bad[0]}; expected values in [0, 1]"
        )
    raise SubnetSearchError(
        f"{source}: float images range from {low:.4g} to {high:.4g}, expected [0, 1]; give them raw, without normalisation "
        "(the network's card normalises), or as uint8 if they are 0..255"
    )


def check_labels(labels: Tensor, classes: int, source: str) -> None:
    """Refuses labels that the network has no logit for.

    Args:
        labels: int64 `[N]`; −1 (no label) passes.
        classes: Number of classes of the network.
        source: Where they come from, for the error message.

    Raises:
        SubnetSearchError: where a label is not in −1..classes−1.
    """
    outside = sorted(set(labels[(labels < UNLABELLED) | (labels >= classes)].tolist()))
    if outside:
        raise SubnetSearchError(
            f"{source}: labels {_some(outside)} are outside the classes, expected 0..{classes - 1} (the network has {classes} classes)"
        )


def check_training(labels: Tensor, classes: int, source: str) -> None:
    """Refuses labels from which nothing can be learned: the pipeline calls this on its training and validation data.

    Args:
        labels: int64 `[N]`.
        classes: Number of classes of the network.
        source: Where they come from, for the error message.

    Raises:
        SubnetSearchError: where labels are outside the classes, absent, or all of one class.
    """
    check_labels(labels, classes, source)
    absent = int((labels == UNLABELLED).sum())
    if absent:
        raise SubnetSearchError(
            f"{source}: {absent} of {len(labels)} images have no label, expected labels for all of them"
        )
    present = sorted(set(labels.tolist()))
    if len(present) < 2:
        raise SubnetSearchError(
            f"{source}: all {len(labels)} labels are of class {present}, expected at least two classes"
        )


def _some(values: list[int]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
