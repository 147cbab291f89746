"""Images and labels from a NumPy archive."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subnet_search.data.array_dataset import UNLABELLED, ArrayDataset
from subnet_search.data.fit import fit_images
from subnet_search.errors import SubnetSearchError


def load_npz(path: str | Path, input_shape: Sequence[int], resize: bool = False, labelled: bool = True) -> ArrayDataset:
    """Reads an `.npz` file; nothing in it is executed.

    Args:
        path: Archive with the keys `x`, images `[N, H, W, C]`, `[N, H, W]` (grey) or `[N, C, H, W]`, uint8 or
            floating point in [0, 1], and `y`, integer labels `[N]`; without `y` the images have no labels.
        input_shape: Shape of one sample of the network, `(channels, height, width)` for images. An array whose last
            axis could be channels and whose first could be, too, is read as the one that fits.
        resize: Whether images of another size are resized.
        labelled: False does not look at `y`, which may be of any form then.

    Returns:
        The dataset, images `[N, *input_shape]`.

    Raises:
        SubnetSearchError: where the file is missing, damaged or wants to execute code, a key is missing, or arrays
            are not as described.
    """
    source = f"data {path}"
    arrays, _ = read_archive(
        path, source, ("x", "y") if labelled else ("x",), "write it with numpy.savez(file, x=images, y=labels)"
    )
    if "x" not in arrays:
        raise SubnetSearchError(f"{source}: found the keys {sorted(arrays)}, expected x (images) and y (labels)")
    x, y = arrays["x"], arrays.get("y")
    images = fit_images(_images(x, tuple(input_shape), source), input_shape, source, resize)
    return ArrayDataset(images, _labels(y, len(images), source), source)


def read_archive(
    path: str | Path, source: str, wanted: Collection[str] | None, advice: str
) -> tuple[dict[str, Any], bytes]:
    """Reads the arrays of an `.npz` file; nothing in it is executed.

    Args:
        path: The file.
        source: What it is, for messages.
        wanted: Names of the arrays to read, of those that are there; of others None stands in. None reads all.
        advice: How such a file is made, for messages.

    Returns:
        Name → array, and the comment of the archive.

    Raises:
        SubnetSearchError: where the file is missing, damaged or wants to execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise SubnetSearchError(f"{source}: found {'a folder' if path.is_dir() else 'nothing'}, expected an .npz file")
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise SubnetSearchError(f"{source}: truncated or not an .npz archive; {advice}")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] if wanted is None or name in wanted else None for name in archive}
            return arrays, archive.zip.comment
    except SubnetSearchError:
        raise
    except Exception as error:  # a damaged archive can fail in any way: BadZipFile, zlib.error, ValueError, EOFError, …
        if "allow_pickle" in str(error):
            raise SubnetSearchError(
                f"{source}: holds pickled objects, which could execute code, and was not loaded; expected arrays of numbers"
            ) from error
        raise SubnetSearchError(f"{source}: damaged or not an .npz archive ({error}); write it again") from error


def _images(x: NDArray[Any], input_shape: tuple[int, ...], source: str) -> Tensor:
    """Returns `[N, C, H, W]` from any accepted order of axes, or `x` itself where its shape is already right."""
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise SubnetSearchError(f"{source}: x is {x.dtype}, expected uint8 or floating point in [0, 1]")
    images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32))
    if tuple(images.shape[1:]) == input_shape:
        return images
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise SubnetSearchError(
            f"{source}: x has shape {tuple(x.shape)}, expected [N, H, W, C], [N, H, W] or [N, C, H, W]"
        )
    channels = (1, 3, input_shape[0])
    if images.shape[3] in channels and images.shape[1] not in channels:
        return images.permute(0, 3, 1, 2).contiguous()
    return images


def _labels(y: NDArray[Any] | None, count: int, source: str) -> Tensor:
    if y is None:
        return torch.full((count,), UNLABELLED)
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise SubnetSearchError(
            f"{source}: y is {y.dtype} of shape {tuple(y.shape)}, expected integer class indices [N]"
        )
    return torch.from_numpy(y.astype(np.int64))
