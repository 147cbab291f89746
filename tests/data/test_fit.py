import pytest
import torch
from torch import Tensor

from subnet_search.data.fit import fit_images
from subnet_search.errors import SubnetSearchError


def test_what_fits_is_left_alone() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert fit_images(images, (3, 4, 5), "mine") is images


@pytest.mark.parametrize("images", [torch.full((2, 1, 6, 6), 200, dtype=torch.uint8), torch.full((2, 1, 6, 6), 0.7)])
def test_resizing_keeps_type_and_constant_images(images: Tensor) -> None:
    fitted = fit_images(images, (3, 4, 9), "mine", resize=True)
    assert fitted.dtype == images.dtype
    torch.testing.assert_close(fitted, images[:, :1, :1, :1].expand(2, 3, 4, 9))


def test_halving_averages_and_rgb_becomes_grey() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[:, :, :, 4:] = torch.tensor([0.3, 0.6, 0.9])[:, None, None]
    fitted = fit_images(images, (1, 4, 4), "mine", resize=True)
    torch.testing.assert_close(fitted[0, 0, :, 0], torch.zeros(4))
    torch.testing.assert_close(fitted[0, 0, :, 3], torch.full((4,), 0.6))


def test_says_both_shapes() -> None:
    with pytest.raises(
        SubnetSearchError, match=r"mine: images have shape \(1, 6, 6\) .* expects \(3, 4, 4\); .*resize=True"
    ):
        fit_images(torch.rand(2, 1, 6, 6), (3, 4, 4), "mine")
    with pytest.raises(SubnetSearchError, match=r"\(4, 6, 6\) .* this cannot be resized"):
        fit_images(torch.rand(2, 4, 6, 6), (3, 4, 4), "mine", resize=True)
    with pytest.raises(SubnetSearchError, match=r"\(3, 6, 6\) .* this cannot be resized"):
        fit_images(torch.rand(2, 3, 6, 6), (5,), "mine", resize=True)
