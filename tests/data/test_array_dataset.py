from typing import Any

import pytest
import torch
from torch import Tensor

from subnet_search.data import ArrayDataset, check_labels, check_training
from subnet_search.errors import SubnetSearchError

IMAGES = torch.rand(6, 1, 2, 2)
LABELS = torch.arange(6)


def test_items_batches_and_subsets_agree() -> None:
    dataset = ArrayDataset(IMAGES, LABELS, "mine")
    assert len(dataset) == 6
    image, label = dataset[4]
    assert torch.equal(image, IMAGES[4])
    assert label == 4
    assert isinstance(label, int)
    images, labels = dataset.__getitems__([4, 0, 4])
    assert torch.equal(images, IMAGES[[4, 0, 4]])
    assert labels.tolist() == [4, 0, 4]
    for indices in ([5, 1], torch.tensor([5, 1])):
        part = dataset.subset(indices)
        assert torch.equal(part.images, IMAGES[[5, 1]])
        assert part.labels.tolist() == [5, 1]
        assert part.source == "mine"


def test_files_go_with_their_images() -> None:
    dataset = ArrayDataset(IMAGES, LABELS, "mine", tuple("abcdef"))
    assert dataset.subset([5, 1, 5]).files == ("f", "b", "f")
    assert ArrayDataset(IMAGES, LABELS).subset([5]).files == ()
    with pytest.raises(SubnetSearchError, match="mine: 6 images but 1 files"):
        ArrayDataset(IMAGES, LABELS, "mine", ("a",))


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.half(),
        IMAGES.double(),
        (IMAGES * 255).to(torch.uint8),
        IMAGES.round() * (1 + 1e-5),  # what interpolation may overshoot
        torch.rand(6, 5),
    ],
)
def test_accepts(images: Tensor) -> None:
    assert len(ArrayDataset(images, LABELS)) == 6


def with_value(value: float) -> Tensor:
    images = IMAGES.clone()
    images[3, 0, 1, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:0], LABELS[:0], r"mine: images have shape \(0, 1, 2, 2\), expected .* N at least 1"),
        (IMAGES[:, 0, 0, 0], LABELS, r"mine: images have shape \(6,\), expected"),
        (IMAGES, LABELS[:5], r"mine: 6 images but labels of shape \(5,\)"),
        (IMAGES, LABELS[:, None], r"mine: 6 images but labels of shape \(6, 1\)"),
        (IMAGES, LABELS.float(), r"mine: labels are torch\.float32, expected torch\.int64"),
        (LABELS[:, None], LABELS, r"mine: images are torch\.int64, expected torch\.uint8 or"),
        (with_value(float("nan")), LABELS, "mine: 1 of 6 images hold NaN or infinity, the first is image 3"),
        (with_value(float("inf")), LABELS, "mine: 1 of 6 images hold NaN or infinity, the first is image 3"),
        (with_value(-float("inf")), LABELS, "mine: 1 of 6 images hold NaN or infinity, the first is image 3"),
        (with_value(-1.5), LABELS, r"mine: float images range from -1\.5 to .* without normalisation"),
        (IMAGES.round() * 255, LABELS, "mine: float images range from 0 to 255, .* or as uint8"),
    ],
)
def test_refuses(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        ArrayDataset(images, labels, "mine")


def test_labels_outside_the_classes() -> None:
    check_labels(torch.tensor([0, 2, -1]), 3, "mine")
    with pytest.raises(SubnetSearchError, match=r"mine: labels -2, 3, 7 are outside the classes, expected 0\.\.2"):
        check_labels(torch.tensor([0, 7, 3, 3, -2]), 3, "mine")
    with pytest.raises(SubnetSearchError, match=r"labels 3, 4, 5, 6, 7, … are"):
        check_labels(torch.arange(10), 3, "mine")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "labels 3 are outside"),
        ([0, 1, -1], "1 of 3 images have no label"),
        ([2, 2, 2], r"all 3 labels are of class \[2\], expected at least two classes"),
    ],
)
def test_training_labels(labels: Any, message: str) -> None:
    check_training(torch.tensor([0, 1, 1]), 3, "mine")
    with pytest.raises(SubnetSearchError, match=message):
        check_training(torch.tensor(labels), 3, "mine")
