from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from subnet_search.backbones import Card
from subnet_search.data import load_data, source_name, split
from subnet_search.errors import SubnetSearchError

DIGITS = Card("digits", (1, 8, 8), tuple("0123456789"))
COLOUR = Card("net", (3, 4, 5), ("cat", "dog"))


def test_digits_are_three_disjoint_parts_of_the_set() -> None:
    train, validation = split(load_data("digits", DIGITS))
    parts = [train, validation, load_data("digits:test", DIGITS)]
    assert [len(part) for part in parts] == [1079, 269, 449]
    together = sorted((*image.flatten().tolist(), label) for part in parts for image, label in part)
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted((*np.round(row / 16 * 255).astype(int), label) for row, label in zip(pixels, labels, strict=True))
    assert together == expected


def test_digits_default_to_their_training_part() -> None:
    assert torch.equal(load_data("digits", DIGITS).images, load_data("digits:train", DIGITS).images)


def test_digits_for_another_network() -> None:
    card = Card("net", (3, 16, 16), tuple("0123456789"))
    with pytest.raises(SubnetSearchError, match=r"digits:train: images have shape \(1, 8, 8\)"):
        load_data("digits", card)
    assert load_data("digits:test", card, resize=True).images.shape == (449, 3, 16, 16)


def test_photos_are_patches_of_the_two_photographs() -> None:
    dataset = load_data("photos", COLOUR)
    assert dataset.images.shape == (1000, 3, 4, 5)
    assert dataset.labels.unique().tolist() == [-1]
    for index, photo in enumerate(load_sample_images().images):
        windows = np.lib.stride_tricks.sliding_window_view(photo, (4, 5, 3))
        assert (windows == dataset.images[index].permute(1, 2, 0).numpy()).all(axis=(-1, -2, -3)).any()


def test_grey_photos_and_noise_are_seeded() -> None:
    for kind in ("photos", "noise"):
        first, again = load_data(kind, DIGITS), load_data(kind, DIGITS)
        assert first.images.shape == (1000, 1, 8, 8)
        assert first.images.dtype == torch.uint8
        assert torch.equal(first.images, again.images)
    assert 0.49 < load_data("noise", DIGITS).images.double().mean() / 255 < 0.51


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 500, 8), (8,)])
def test_photos_that_cannot_be_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(SubnetSearchError, match=r"photos: cannot cut .* expected \(1 or 3, at most 427, at most 640\)"):
        load_data("photos", Card("net", shape, ("a", "b")))


def test_files(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1])
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(x[0]).save(tmp_path / "set" / name / "0.png")
    for spec in (f"npz:{tmp_path / 'a.npz'}", f"folder:{tmp_path / 'set'}"):
        assert load_data(spec, COLOUR).labels.tolist() == [0, 1]
        assert load_data(spec, COLOUR, labelled=False).labels.tolist() == [-1, -1]


def test_labels_must_be_the_networks_but_for_foreign_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 5, 3), dtype=np.uint8), y=[0, 99])
    with pytest.raises(SubnetSearchError, match=r"a\.npz: labels 99 are outside the classes, expected 0\.\.1"):
        load_data(f"npz:{tmp_path / 'a.npz'}", COLOUR)
    assert load_data(f"npz:{tmp_path / 'a.npz'}", COLOUR, labelled=False).labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar", "no data source 'cifar', expected one of digits, digits:train"),
        ("", "no data source ''"),
        ("noise:3", "no data source 'noise:3'"),
        ("npz", "names no file, expected npz:PATH"),
        ("folder:", "names no folder, expected folder:PATH"),
        ("digits:all", "digits have no part 'all', expected digits:train or digits:test"),
    ],
)
def test_names_that_lead_nowhere(spec: str, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        load_data(spec, DIGITS)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["cifar100", "mnist-test"])
def test_real_images_as_npz(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(str(shared_data / "data"))
    import arrays

    x, y = arrays.load(name)
    np.savez(tmp_path / "set.npz", x=x[:100], y=y[:100])
    card = Card("net", (3, 32, 32), tuple(map(str, range(10))))
    dataset = load_data(f"npz:{tmp_path / 'set.npz'}", card, resize=True, labelled=False)
    assert dataset.images.shape == (100, 3, 32, 32)
    assert dataset.images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("npz:/data/cifar10-train.npz", "cifar10-train"),
        ("folder:a/b/", "b"),
        ("digits", "digits"),
        ("digits:test", "digits:test"),
    ],
)
def test_figures_name_a_source_without_its_path(spec: str, name: str) -> None:
    assert source_name(spec) == name
