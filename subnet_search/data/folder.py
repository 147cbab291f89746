"""Images from files: one image, or a folder with one sub-folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from subnet_search.data.array_dataset import UNLABELLED, ArrayDataset
from subnet_search.data.fit import fit_images
from subnet_search.errors import SubnetSearchError

BITS_PER_SAMPLE = 258
"""A tag of TIFF files."""


def load_image(path: str | Path, input_shape: Sequence[int], resize: bool = False) -> Tensor:
    """Reads one image file.

    Args:
        path: Any format that Pillow reads.
        input_shape: `(channels, height, width)` of the network; with 1 channel the image is read as grey, with 3 as RGB.
        resize: Whether an image of another size is resized.

    Returns:
        uint8 `input_shape`.

    Raises:
        SubnetSearchError: where the file is no image or has another size.
    """
    source = f"image {path}"
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise SubnetSearchError(
            f"{source}: the network expects {tuple(input_shape)}, image files need (1 or 3, height, width); use npz:FILE"
        )
    try:
        with Image.open(path) as image:
            pixels = np.array(_eight_bits(image, source).convert("L" if input_shape[0] == 1 else "RGB"))
    except SubnetSearchError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SubnetSearchError(
            f"{source}: cannot be read as an image ({error}); delete it or write it again"
        ) from error
    grid = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    return fit_images(grid[None], input_shape, source, resize)[0].contiguous()


def _eight_bits(image: Image.Image, source: str) -> Image.Image:
    """Scales grey values of more bits to 0..255, of which Pillow's conversion would keep the lowest and clip the others."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # which Pillow scales to 16 bits
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        return Image.fromarray((np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise SubnetSearchError(
            f"{source}: its values have 32 bits, of which nothing says what is black and white; expected 8 or 16 bits, or use npz:FILE"
        )
    return image


def load_folder(
    path: str | Path, input_shape: Sequence[int], classes: Sequence[str], resize: bool = False, labelled: bool = True
) -> ArrayDataset:
    """Reads the images of a folder, sorted by class and name.

    Args:
        path: Folder with one sub-folder a class. Where the sub-folders are named after the network's classes, these
            give the labels; where none is, their sorted order does.
        input_shape: `(channels, height, width)` of the network.
        classes: Class names of the network in the order of the logits.
        resize: Whether images of another size are resized.
        labelled: False reads all images below the folder, in whatever sub-folders, without labels. What is hidden, with
            a dot before its name, is never read.

    Returns:
        The dataset, images uint8 `[N, *input_shape]`, with their files relative to the folder.

    Raises:
        SubnetSearchError: where folder, classes or images are missing, sub-folders do not match the classes, or an
            image cannot be read or has another size.
    """
    path = Path(path)
    source = f"data {path}"
    if not path.is_dir():
        raise SubnetSearchError(
            f"{source}: found {'a file' if path.exists() else 'nothing'}, expected a folder of images"
        )
    if labelled:
        labels = _class_labels([folder.name for folder in _visible(path) if folder.is_dir()], classes, source)
        files = [(file, label) for name, label in labels.items() for file in _image_files(path / name, source)]
    else:
        files = [(file, UNLABELLED) for file in _image_files(path, source)]
    images = torch.stack([load_image(file, input_shape, resize) for file, _ in files])
    names = tuple(printable(file.relative_to(path)) for file, _ in files)
    return ArrayDataset(images, torch.tensor([label for _, label in files]), source, names)


def printable(path: Path) -> str:
    """Returns a path with slashes; bytes in it that are no UTF-8, which no text can hold, become �."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _class_labels(names: list[str], classes: Sequence[str], source: str) -> dict[str, int]:
    """Returns sub-folder → class index."""
    if not names:
        raise SubnetSearchError(f"{source}: found no sub-folders, expected one for each class: {', '.join(classes)}")
    known = [name for name in names if name in classes]
    if known:
        strange = [name for name in names if name not in classes]
        if strange:
            raise SubnetSearchError(
                f"{source}: sub-folders {strange} are no classes of the network, expected names from {', '.join(classes)}"
            )
        return {name: list(classes).index(name) for name in names}
    if len(names) != len(classes):
        raise SubnetSearchError(
            f"{source}: found {len(names)} sub-folders, none named after a class, expected {len(classes)} in the order of the classes "
            f"or with the names {', '.join(classes)}"
        )
    return {name: index for index, name in enumerate(names)}


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _hidden(path: Path) -> bool:
    """Whether a file or a folder that it is in begins with a dot, as notebooks and thumbnailers keep their copies."""
    return any(part.startswith(".") for part in path.parts)


def _image_files(folder: Path, source: str) -> list[Path]:
    endings = Image.registered_extensions()
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in endings and not _hidden(file.relative_to(folder))
    ]
    if not files:
        raise SubnetSearchError(f"{source}: no image files in {folder}, expected at least one (png, jpg, webp, …)")
    return files
