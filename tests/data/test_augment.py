from typing import get_args

import pytest
import torch
from torch import Generator, Tensor

from subnet_search.data import Augmentation, augment
from subnet_search.errors import SubnetSearchError


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """The naive twin: pixel by pixel, zero from outside."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                out[:, row, column] = image[:, row + down, column + right]
    return out


@pytest.mark.parametrize(("kind", "most", "mirrors"), [("crop", 1, False), ("crop-flip", 4, True)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_a_shift_perhaps_mirrored(
    kind: Augmentation, most: int, mirrors: bool, dtype: torch.dtype
) -> None:
    # distinct pixels, so that each shift gives another image
    image = (torch.arange(2 * 6 * 5).reshape(2, 6, 5) + 1).to(dtype)
    possible = {}
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            plain = shifted(image, down, right)
            possible[tuple(plain.flatten().tolist())] = "plain"
            if mirrors:
                possible[tuple(plain.flip(2).flatten().tolist())] = "mirrored"
    changed = augment(image.repeat(3000, 1, 1, 1), kind, Generator().manual_seed(0))
    assert changed.dtype == dtype
    assert changed.shape == (3000, 2, 6, 5)
    found = [tuple(one.flatten().tolist()) for one in changed]
    assert set(found) == set(possible)
    if mirrors:
        assert 0.45 < sum(possible[one] == "mirrored" for one in found) / 3000 < 0.55


@pytest.mark.parametrize("kind", get_args(Augmentation))
def test_the_generator_alone_decides_and_the_input_stays(kind: Augmentation) -> None:
    images = torch.rand(16, 3, 8, 8)
    before, state = images.clone(), torch.get_rng_state()
    first = augment(images, kind, Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(first, augment(images, kind, Generator().manual_seed(1)))
    assert torch.equal(images, before)
    torch.set_rng_state(state)
    augment(images, kind, Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_none_changes_nothing() -> None:
    images = torch.rand(2, 5)
    assert augment(images, "none", Generator()) is images


def test_refuses_unknown_kinds_and_shapes() -> None:
    with pytest.raises(SubnetSearchError, match="no augmentation 'mixup', expected one of none, crop-flip, crop"):
        augment(torch.rand(2, 1, 4, 4), "mixup", Generator())  # type: ignore[arg-type]
    with pytest.raises(SubnetSearchError, match=r"needs images .* got shape \(2, 5\); use 'none'"):
        augment(torch.rand(2, 5), "crop", Generator())
