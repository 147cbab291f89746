"""The 1,797 handwritten digits of 8 × 8 pixels that scikit-learn brings along.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch

from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.data.split import split_indices
from subnet_search.errors import SubnetSearchError

TEST_FRACTION = 0.25


def load_digits(part: str = "train") -> ArrayDataset:
    """Returns one part of the digits; both are stratified, disjoint and always the same.

    Args:
        part: `train` (1,348 images, from which validation data is split off) or `test` (449).

    Returns:
        Images uint8 `[N, 1, 8, 8]` and labels 0..9.

    Raises:
        SubnetSearchError: where there is no such part.
    """
    if part not in ("train", "test"):
        raise SubnetSearchError(f"digits have no part {part!r}, expected digits:train or digits:test")
    from sklearn.datasets import load_digits as read_digits  # takes a second to import

    pixels, labels = read_digits(return_X_y=True)
    # the pixels count 0..16 dots
    images = torch.from_numpy(pixels / 16 * 255).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    everything = ArrayDataset(images, torch.from_numpy(labels).to(torch.int64), f"digits:{part}")
    train, test = split_indices(everything.labels, TEST_FRACTION, seed=0)
    return everything.subset(train if part == "train" else test)
