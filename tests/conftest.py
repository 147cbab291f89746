import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    # the networks of the tests are too small to gain from threads, and other jobs share the cores
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real images and pretrained weights: `data/` and `backbones/`."""
    folder = Path(os.environ.get("SUBNET_SEARCH_DATA", ""))
    if not os.environ.get("SUBNET_SEARCH_DATA") or not ((folder / "data").is_dir() and (folder / "backbones").is_dir()):
        pytest.skip("SUBNET_SEARCH_DATA does not point to a folder with data/ and backbones/")
    return folder
