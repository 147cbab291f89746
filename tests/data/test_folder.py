import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from subnet_search.data.folder import load_folder, load_image
from subnet_search.errors import SubnetSearchError

RNG = np.random.default_rng(0)
CLASSES = ("cat", "dog", "ant")


def write(path: Path, shape: tuple[int, ...] = (4, 5, 3)) -> np.ndarray:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_classes(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    return [write(folder / name / f"{number}.png") for name in names for number in range(2)]


def test_labels_by_class_name_whatever_the_order(tmp_path: Path) -> None:
    pixels = write_classes(tmp_path, ["ant", "cat"])
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    dataset = load_folder(tmp_path, (3, 4, 5), CLASSES)
    assert dataset.labels.tolist() == [2, 2, 0, 0]
    assert dataset.images.dtype == torch.uint8
    assert torch.equal(dataset.images, torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))


def test_labels_by_sorted_order_where_no_name_is_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path, ["n02", "n01", "n03"])
    assert load_folder(tmp_path, (3, 4, 5), CLASSES).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_without_labels_any_tree_will_do(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "x" / "y" / "b.bmp")
    assert load_folder(tmp_path, (3, 4, 5), CLASSES, labelled=False).labels.tolist() == [-1, -1]


def test_copies_in_hidden_folders_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / ".data"  # what the folder itself lies in does not count
    write_classes(folder, ["cat"])
    for copy in ("cat/.thumbs/0.png", "cat/x/.ipynb_checkpoints/y/0.png", ".ipynb_checkpoints/0.png", "cat/.0.png"):
        write(folder / copy)
    for labelled in (True, False):
        assert load_folder(folder, (3, 4, 5), CLASSES, labelled=labelled).files == ("cat/0.png", "cat/1.png")


def test_files_are_named_from_the_folder_on(tmp_path: Path) -> None:
    write_classes(tmp_path, ["dog", "cat"])
    labelled = load_folder(tmp_path, (3, 4, 5), CLASSES)
    assert labelled.files == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    write(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "\udcff.png")  # a byte that is no UTF-8
    files = load_folder(tmp_path, (3, 4, 5), CLASSES, labelled=False).files
    assert set(files) == {*labelled.files, "\N{REPLACEMENT CHARACTER}.png"}


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_follow_the_network(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    pixels = write(tmp_path / "a.png", shape)
    image = load_image(tmp_path / "a.png", (channels, 4, 5))
    assert image.shape == (channels, 4, 5)
    if len(shape) == 2:
        assert torch.equal(image, torch.from_numpy(pixels).expand(channels, 4, 5))
    elif channels == 3:
        assert torch.equal(image, torch.from_numpy(pixels[..., :3]).permute(2, 0, 1))


def test_sizes_are_changed_only_when_asked(tmp_path: Path) -> None:
    write_classes(tmp_path, ["cat", "dog"])
    with pytest.raises(SubnetSearchError, match=r"0\.png: images have shape \(3, 4, 5\).*expects \(3, 8, 8\)"):
        load_folder(tmp_path, (3, 8, 8), CLASSES)
    assert load_folder(tmp_path, (3, 8, 8), CLASSES, resize=True).images.shape == (4, 3, 8, 8)


def test_folders_that_do_not_match_the_classes(tmp_path: Path) -> None:
    with pytest.raises(SubnetSearchError, match="none: found nothing, expected a folder of images"):
        load_folder(tmp_path / "none", (3, 4, 5), CLASSES)
    with pytest.raises(SubnetSearchError, match="found no sub-folders, expected one for each class: cat, dog, ant"):
        load_folder(tmp_path, (3, 4, 5), CLASSES)
    with pytest.raises(SubnetSearchError, match="no image files in"):
        load_folder(tmp_path, (3, 4, 5), CLASSES, labelled=False)
    write_classes(tmp_path, ["bee", "wasp"])
    with pytest.raises(SubnetSearchError, match="found 2 sub-folders, none named after a class, expected 3"):
        load_folder(tmp_path, (3, 4, 5), CLASSES)
    write_classes(tmp_path, ["cat"])
    with pytest.raises(SubnetSearchError, match=r"sub-folders \['bee', 'wasp'\] are no classes"):
        load_folder(tmp_path, (3, 4, 5), CLASSES)
    (tmp_path / "file").write_text("")
    with pytest.raises(SubnetSearchError, match="file: found a file"):
        load_folder(tmp_path / "file", (3, 4, 5), CLASSES)


def test_a_class_without_images(tmp_path: Path) -> None:
    write_classes(tmp_path, ["cat"])
    (tmp_path / "dog").mkdir()
    with pytest.raises(SubnetSearchError, match=r"no image files in .*dog"):
        load_folder(tmp_path, (3, 4, 5), CLASSES)


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_damaged_image(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.png"
    write(path, (16, 16, 3))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SubnetSearchError, match=r"a\.png: cannot be read as an image"):
        load_image(path, (3, 16, 16))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 65535, 257], [32768, 128, 129]], dtype=np.uint16)
    (tmp_path / "grey.pgm").write_bytes(b"P5 3 2 65535\n" + values.astype(">u2").tobytes())
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values).save(tmp_path / name)
    for name in ("grey.png", "grey.tif", "grey.pgm"):
        assert load_image(tmp_path / name, (1, 2, 3)).tolist() == [[[0, 255, 1], [128, 0, 1]]]


def test_twelve_bits_are_not_almost_black(tmp_path: Path) -> None:
    packed = bytes.fromhex("000fff 800010")  # two values a row: 0 and 4095, 2048 and 16
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    (tmp_path / "a.tif").write_bytes(start + packed + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert load_image(tmp_path / "a.tif", (1, 2, 2)).tolist() == [[[0, 255], [128, 1]]]


def test_values_without_a_white_are_refused(tmp_path: Path) -> None:
    for values in (np.zeros((2, 3), dtype=np.int32), np.zeros((2, 3), dtype=np.float32)):
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(SubnetSearchError, match=r"^image \S*a\.tif: its values have 32 bits.*use npz:FILE"):
            load_image(tmp_path / "a.tif", (1, 2, 3))


def test_images_need_a_network_for_images(tmp_path: Path) -> None:
    with pytest.raises(
        SubnetSearchError, match=r"the network expects \(5,\), image files need \(1 or 3, height, width\)"
    ):
        load_image(tmp_path / "a.png", (5,))
