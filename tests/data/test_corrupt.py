"""Corruptions against their published definitions, and what they must not depend on."""

import io
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from subnet_search.data import ArrayDataset, corrupt
from subnet_search.data.corrupt import CHUNK, KINDS, SEVERITIES, quantised
from subnet_search.data.digits import load_digits
from subnet_search.errors import SubnetSearchError

Grid = NDArray[np.float64]


def pictures(count: int = 6, shape: tuple[int, ...] = (3, 9, 12), seed: int = 0) -> ArrayDataset:
    """Smooth pictures with a little noise, like photographs: white noise has nothing to blur or to compress."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, shape[0], 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    rough = smooth + 0.05 * torch.randn(count, *shape, generator=generator)
    return ArrayDataset((rough.clamp(0, 1) * 255).round().to(torch.uint8), torch.arange(count))


def naive_blur(channel: Grid, sigma: float) -> Grid:
    """Pixel by pixel: a Gaussian of up to 4 σ, and beyond the edge the pixel of the edge."""
    reach = int(4 * sigma + 0.5)
    weights = {step: math.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)}
    total = sum(weights.values()) ** 2
    height, width = channel.shape
    out = np.zeros_like(channel)
    for row, column in np.ndindex(height, width):
        for down, right in ((a, b) for a in weights for b in weights):
            y, x = min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
            out[row, column] += weights[down] * weights[right] / total * channel[y, x]
    return out


def naive(image: Tensor, kind: str, severity: int) -> Grid:
    """The published definition for one image `[channel, H, W]`; 0..255, not rounded."""
    values = image.numpy().astype(np.float64)
    constant = {
        "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1.0],
        "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
        "jpeg": [80, 65, 58, 50, 40],
        "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    }[kind][severity - 1]
    if kind == "gaussian_blur":
        return np.stack([naive_blur(channel, constant) for channel in values])
    if kind == "contrast":
        return np.stack([(channel - channel.mean()) * constant + channel.mean() for channel in values])
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).contiguous().numpy())
    if kind == "jpeg":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=constant)
        picture = Image.open(file)
    else:
        small = picture.resize((int(image.shape[2] * constant), int(image.shape[1] * constant)), Image.BOX)
        picture = small.resize((image.shape[2], image.shape[1]), Image.BOX)
    return np.asarray(picture).reshape(*image.shape[1:], -1).transpose(2, 0, 1).astype(np.float64)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gaussian_noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_published_definition(kind: str, severity: int, channels: int) -> None:
    dataset = pictures(2, (channels, 9, 12))
    found = corrupt(dataset, kind, severity).images
    expected = np.stack([naive(image, kind, severity) for image in dataset.images])
    assert np.abs(found.numpy() - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("severity", "deviation"), list(zip(SEVERITIES, [0.04, 0.06, 0.08, 0.09, 0.10], strict=True)))
def test_the_noise_has_the_published_deviation(severity: int, deviation: float) -> None:
    grey = ArrayDataset(torch.full((20, 3, 16, 16), 128, dtype=torch.uint8), torch.zeros(20, dtype=torch.int64))
    added = (corrupt(grey, "gaussian_noise", severity).images.double() - 128) / 255
    assert float(added.std()) == pytest.approx(deviation, rel=0.03)
    assert float(added.mean()) == pytest.approx(0.0, abs=0.003)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 9, 12), (1, 1, 1)])
def test_labels_shape_and_input_stay_and_repetition_gives_the_same(kind: str, shape: tuple[int, ...]) -> None:
    dataset = pictures(4, shape)
    before, state = dataset.images.clone(), torch.get_rng_state()
    found = corrupt(dataset, kind, 3)
    assert (found.images.dtype, found.images.shape) == (torch.uint8, dataset.images.shape)
    assert torch.equal(found.labels, dataset.labels)
    assert torch.equal(found.images, corrupt(dataset, kind, 3).images)
    assert torch.equal(dataset.images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_how_many_there_are(kind: str) -> None:
    dataset = pictures(2 * CHUNK + 3, (1, 8, 8))
    whole = corrupt(dataset, kind, 2).images
    for count in (1, 10, CHUNK + 1):
        assert torch.equal(corrupt(dataset.subset(range(count)), kind, 2).images, whole[:count])


@pytest.mark.parametrize("kind", KINDS)
def test_the_worst_is_worse_than_the_mildest(kind: str) -> None:
    dataset = pictures(20, (3, 32, 32))

    def distance(severity: int) -> float:
        return float((corrupt(dataset, kind, severity).images.float() - dataset.images.float()).square().mean())

    distances = [distance(severity) for severity in SEVERITIES]
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[-1]


def test_the_seed_decides_the_noise_and_nothing_else() -> None:
    dataset = pictures()
    for kind in KINDS:
        same = torch.equal(corrupt(dataset, kind, 1, seed=0).images, corrupt(dataset, kind, 1, seed=1).images)
        assert same == (kind != "gaussian_noise")
    one = corrupt(ArrayDataset(dataset.images[:1].repeat(2, 1, 1, 1), torch.zeros(2).long()), "gaussian_noise", 1)
    assert not torch.equal(one.images[0], one.images[1])


def test_a_grey_wall_stays_one_under_all_but_noise() -> None:
    wall = ArrayDataset(torch.full((1, 3, 8, 8), 201, dtype=torch.uint8), torch.tensor([0]))
    for kind in set(KINDS) - {"gaussian_noise"}:
        assert int((corrupt(wall, kind, 5).images.int() - 201).abs().max()) <= (2 if kind == "jpeg" else 0)


def test_float_images_are_rounded_to_levels() -> None:
    dataset = pictures()
    for dtype in (torch.float32, torch.float64):
        floats = ArrayDataset(dataset.images.to(dtype) / 255, dataset.labels)
        assert torch.equal(quantised(floats).images, dataset.images)
        assert torch.equal(corrupt(floats, "contrast", 2).images, corrupt(dataset, "contrast", 2).images)
    overshoot = ArrayDataset(torch.tensor([[[[1.00005, -0.00005]]]]), torch.tensor([0]))
    assert quantised(overshoot).images.flatten().tolist() == [255, 0]


def test_any_dataset_of_pairs_will_do() -> None:
    dataset = pictures()
    expected = corrupt(dataset, "pixelate", 4)
    for other in (TensorDataset(dataset.images, dataset.labels), Subset(dataset, range(len(dataset)))):
        found = corrupt(other, "pixelate", 4)
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)


def test_the_digits_can_be_corrupted_and_the_source_says_how() -> None:
    digits = load_digits("test")
    found = corrupt(digits, "jpeg", 5)
    assert found.source == "digits:test (jpeg, severity 5)"
    assert not torch.equal(found.images, digits.images)
    assert torch.equal(found.labels, digits.labels)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match="no corruption 'fog', expected one of gaussian_noise, gaussian_blur"):
        corrupt(pictures(), "fog", 1)
    with pytest.raises(SubnetSearchError, match=r"'jpeg' has no severity 0, expected one of \(1, 2, 3, 4, 5\)"):
        corrupt(pictures(), "jpeg", 0)
    with pytest.raises(SubnetSearchError, match="there are no images to corrupt"):
        corrupt(Subset(pictures(), []), "jpeg", 1)


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 8, 8), (64,), (8, 8)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    dataset = ArrayDataset(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64), "spectra")
    with pytest.raises(SubnetSearchError, match=r"spectra: samples have shape .* \(1 or 3, height, width\) can be"):
        corrupt(dataset, "contrast", 1)
