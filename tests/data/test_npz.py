from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subnet_search.data.npz import load_npz
from subnet_search.errors import SubnetSearchError

X = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 3)  # [N, H, W, C]
Y = np.array([1, 0], dtype=np.uint8)
CHW = torch.from_numpy(X).permute(0, 3, 1, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.npz"


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("first", [False, True])
def test_orders_and_types(path: Path, dtype: Any, first: bool) -> None:
    x = X if dtype == np.uint8 else (X / 255).astype(dtype)
    np.savez(path, x=x.transpose(0, 3, 1, 2) if first else x, y=Y)
    dataset = load_npz(path, (3, 4, 5))
    assert dataset.images.shape == (2, 3, 4, 5)
    assert dataset.images.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    scale = 1 if dtype == np.uint8 else 255
    torch.testing.assert_close(dataset.images.float() * scale, CHW.float(), atol=0.2, rtol=0)
    assert dataset.labels.tolist() == [1, 0]
    assert str(path) in dataset.source


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 1, 4, 5)])
def test_grey(path: Path, shape: tuple[int, ...]) -> None:
    np.savez_compressed(path, x=X[..., 0].reshape(shape))
    dataset = load_npz(path, (1, 4, 5))
    assert torch.equal(dataset.images, CHW[:, :1])
    assert dataset.labels.tolist() == [-1, -1]


def test_vectors_for_networks_without_space(path: Path) -> None:
    np.savez(path, x=X.reshape(2, -1), y=Y)
    assert load_npz(path, (60,)).images.shape == (2, 60)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 3, 8, 8)])
def test_colours_of_another_size_for_a_network_of_grey(path: Path, shape: tuple[int, ...]) -> None:
    np.savez(path, x=np.full(shape, 9, dtype=np.uint8))
    assert torch.equal(load_npz(path, (1, 4, 5), resize=True).images, torch.full((2, 1, 4, 5), 9, dtype=torch.uint8))


def test_grey_of_another_size_for_a_network_of_colours(path: Path) -> None:
    np.savez(path, x=np.full((2, 28, 28, 1), 9, dtype=np.uint8))
    with pytest.raises(SubnetSearchError, match=r"set\.npz: images have shape \(1, 28, 28\).*expects \(3, 32, 32\)"):
        load_npz(path, (3, 32, 32))
    assert torch.equal(
        load_npz(path, (3, 32, 32), resize=True).images, torch.full((2, 3, 32, 32), 9, dtype=torch.uint8)
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "y": Y}, r"found the keys \['images', 'y'\], expected x \(images\) and y"),
        ({"x": X.astype(np.int64)}, "x is int64, expected uint8 or floating"),
        ({"x": X[:, :, :, 0, None, None]}, r"x has shape \(2, 4, 5, 1, 1\), expected \[N, H, W, C\]"),
        ({"x": X.reshape(2, -1)}, r"x has shape \(2, 60\), expected"),
        ({"x": X, "y": Y[:1]}, r"2 images but labels of shape \(1,\)"),
        ({"x": X, "y": Y.astype(float)}, r"y is float64 of shape \(2,\), expected integer class indices"),
        ({"x": X, "y": np.eye(2, dtype=int)}, r"y is int64 of shape \(2, 2\), expected"),
        ({"x": X[:0], "y": Y[:0]}, "expected .* N at least 1"),
        ({"x": X / np.nan}, "2 of 2 images hold NaN"),
        ({"x": X.astype(np.float32)}, "float images range from 0 to 119, expected"),
    ],
)
def test_arrays_that_cannot_be_used(path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(path, **arrays)
    with pytest.raises(SubnetSearchError, match=rf"set\.npz: .*{message}"):
        load_npz(path, (3, 4, 5))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SubnetSearchError, match=r"none\.npz: found nothing, expected an \.npz file"):
        load_npz(tmp_path / "none.npz", (3, 4, 5))
    with pytest.raises(SubnetSearchError, match="found a folder"):
        load_npz(tmp_path, (3, 4, 5))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_truncated(path: Path, keep: float) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 255, (9, 4, 5, 3), dtype=np.uint8), y=np.arange(9))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(SubnetSearchError, match=r"set\.npz: truncated or not an \.npz archive"):
        load_npz(path, (3, 4, 5))


def test_damaged_inside(path: Path) -> None:
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SubnetSearchError, match="damaged or not an"):
        load_npz(path, (3, 4, 5))


def test_something_else(path: Path) -> None:
    path.write_text("x,y")
    with pytest.raises(SubnetSearchError, match=r"truncated or not an \.npz archive; write it with numpy\.savez"):
        load_npz(path, (3, 4, 5))
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(SubnetSearchError, match=r"not an \.npz archive"):
        load_npz(path, (3, 4, 5))


@pytest.mark.parametrize("key", ["x", "y"])
def test_pickled_objects_are_not_loaded(path: Path, key: str) -> None:
    arrays: dict[str, Any] = {"x": X, "y": Y, key: np.array([print, print], dtype=object)}
    np.savez(path, **arrays)
    with pytest.raises(SubnetSearchError, match="pickled objects, which could execute code, and was not loaded"):
        load_npz(path, (3, 4, 5))
