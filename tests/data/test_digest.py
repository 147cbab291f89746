import torch

from subnet_search.data import ArrayDataset, digest


def test_images_are_told_apart_by_every_pixel_and_label() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(3, 1, 2, 4)
    one = ArrayDataset(images, torch.tensor([0, 1, 1]))
    brighter = images.clone()
    brighter[2, 0, 1, 3] += 1
    others = [
        ArrayDataset(brighter, one.labels),
        ArrayDataset(images, torch.tensor([0, 1, 0])),
        ArrayDataset(images.flip(0), one.labels.flip(0)),
        ArrayDataset(images.view(3, 2, 1, 4), one.labels),
        one.subset([0, 1]),
    ]
    assert digest(ArrayDataset(images.clone(), one.labels.clone(), "elsewhere")) == digest(one)
    assert len({digest(one), *map(digest, others)}) == 6
