"""Images from far outside of any classifier's domain, made without a download."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from subnet_search.data.array_dataset import UNLABELLED, ArrayDataset
from subnet_search.errors import SubnetSearchError

COUNT = 1000


def photo_patches(input_shape: Sequence[int], count: int = COUNT, seed: int = 0) -> ArrayDataset:
    """Returns random patches of scikit-learn's two sample photographs, a temple and a flower.

    Args:
        input_shape: `(1, height, width)` for grey patches or `(3, height, width)`, at most 427 × 640 pixels.
        count: Number of patches, half from each photograph.
        seed: Seed of their places.

    Returns:
        Images uint8 `[count, *input_shape]`, without labels.

    Raises:
        SubnetSearchError: where no such patches can be cut.
    """
    from sklearn.datasets import load_sample_images  # takes a second to import

    photos = torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images]).permute(0, 3, 1, 2)
    if (
        len(input_shape) != 3
        or input_shape[0] not in (1, 3)
        or any(wanted > there for wanted, there in zip(input_shape[1:], photos.shape[2:], strict=True))
    ):
        raise SubnetSearchError(
            f"photos: cannot cut patches of shape {tuple(input_shape)}, expected (1 or 3, at most {photos.shape[2]}, at most {photos.shape[3]})"
        )
    if input_shape[0] == 1:
        photos = photos.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    generator = Generator().manual_seed(seed)
    windows = photos.unfold(2, input_shape[1], 1).unfold(3, input_shape[2], 1)
    top = torch.randint(0, windows.shape[2], (count,), generator=generator)
    left = torch.randint(0, windows.shape[3], (count,), generator=generator)
    return _unlabelled(windows[torch.arange(count) % 2, :, top, left], "photos")


def noise(input_shape: Sequence[int], count: int = COUNT, seed: int = 0) -> ArrayDataset:
    """Returns images whose pixels are independent and uniform: uint8 `[count, *input_shape]`, without labels."""
    pixels = torch.randint(0, 256, (count, *input_shape), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    return _unlabelled(pixels, "noise")


def _unlabelled(images: Tensor, source: str) -> ArrayDataset:
    return ArrayDataset(images, torch.full((len(images),), UNLABELLED), source)
