from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from subnet_search.backbones import Backbone, load_backbone
from subnet_search.data import UNLABELLED, ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.inputs import (
    Splits,
    check_splits,
    evaluation_digests,
    example_of,
    open_backbone,
    open_images,
    open_splits,
    training_digests,
)
from subnet_search.settings import BackboneConfig, DataConfig

CARD = load_backbone("digits").card


def digits_like(labels: list[int], source: str = "mine") -> ArrayDataset:
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8)
    return ArrayDataset(images, torch.tensor(labels), source)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


IMAGES = np.zeros((20, 8, 8), dtype=np.uint8)
LABELS = np.arange(20) % 10


def test_settings_of_the_network_change_its_card() -> None:
    backbone = open_backbone(BackboneConfig(mean=(0.5,), std=(0.25,), classes=tuple("abcdefghij")))
    assert (backbone.card.mean, backbone.card.std, backbone.card.classes[2]) == ((0.5,), (0.25,), "c")


def test_random_weights_are_a_word_and_no_file() -> None:
    assert open_backbone(BackboneConfig("resnet20", Path("random"))).card.name == "resnet20"


def test_digits_come_with_their_own_test_part() -> None:
    splits = open_splits(DataConfig(), CARD)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1079, 269, 449)
    assert list(splits.ood) == ["photos"]
    assert example_of(splits.train, CARD).shape == (2, 1, 8, 8)


def test_other_data_have_no_test_part_of_their_own(tmp_path) -> None:
    splits = open_splits(DataConfig(npz(tmp_path / "a.npz", x=IMAGES, y=LABELS), ood=()), CARD)
    assert (len(splits.train), len(splits.validation), splits.test, dict(splits.ood)) == (16, 4, None, {})


@pytest.mark.parametrize("entry", ["photos", "=photos", "a=", "a/b=photos", "a=photos\x00"])
def test_ood_sets_need_a_name_and_a_source(entry) -> None:
    with pytest.raises(SubnetSearchError, match=r"OOD set|no data source"):
        open_splits(DataConfig(ood=(entry,)), CARD)


def test_ood_sets_need_a_name_of_their_own() -> None:
    with pytest.raises(SubnetSearchError, match="a name of its own"):
        open_splits(DataConfig(ood=("a=photos", "a=noise")), CARD)


def test_validation_images_of_ones_own_leave_all_others_to_the_training(tmp_path) -> None:
    own = npz(tmp_path / "own.npz", x=IMAGES[:5], y=LABELS[:5])
    splits = open_splits(DataConfig(npz(tmp_path / "a.npz", x=IMAGES, y=LABELS), held_out=own, ood=()), CARD)
    assert (len(splits.train), len(splits.validation)) == (20, 5)


def test_validation_images_are_not_the_training_images_and_have_labels(tmp_path) -> None:
    first, second = (npz(tmp_path / name, x=IMAGES, y=LABELS) for name in ("a.npz", "b.npz"))
    with pytest.raises(SubnetSearchError, match=r"b\.npz are the training images.*leave --held-out away"):
        open_splits(DataConfig(first, held_out=second), CARD)
    with pytest.raises(SubnetSearchError, match=r"validation data .* has images without labels"):
        open_splits(DataConfig(first, held_out=npz(tmp_path / "c.npz", x=IMAGES)), CARD)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_test_images_are_none_that_were_trained_or_chosen_on_whatever_their_file_is_called(tmp_path, part) -> None:
    data = digits_like(list(range(10)) * 4).images[:, 0].numpy()
    labels = np.arange(40) % 10
    first, second, copy = (npz(tmp_path / name, x=x, y=y) for name, x, y in (("a.npz", data[:20], labels[:20]), ("b.npz", data[20:], labels[20:]), ("c.npz", data[:15] if part == "training" else data[25:], labels[:15])))  # fmt: skip
    with pytest.raises(
        SubnetSearchError, match=rf"c\.npz: 15 of 15 different images are {part} images, expected others"
    ):
        open_splits(DataConfig(first, held_out=second, test=copy), CARD)


def test_a_source_is_no_test_set_of_itself() -> None:
    with pytest.raises(SubnetSearchError, match=r"images.test is 'npz:a.npz', and so is images.data; expected"):
        DataConfig("npz:a.npz", test="npz:a.npz")
    with pytest.raises(SubnetSearchError, match=r"and so is images.held_out"):
        DataConfig("npz:a.npz", test="npz:b.npz", held_out="npz:b.npz")


def test_test_images_without_labels_are_refused(tmp_path) -> None:
    test = npz(tmp_path / "test.npz", x=IMAGES)
    with pytest.raises(SubnetSearchError, match=r"test data .* has images without labels"):
        open_splits(DataConfig(test=test), CARD)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS * 0, r"all 20 labels are of class \[0\]"),
        (LABELS + 1, r"labels 10 are outside the classes, expected 0\.\.9"),
        (LABELS - 1, "2 of 20 images have no label"),
    ],
)
def test_training_labels_from_which_nothing_can_be_learned_are_refused(tmp_path, labels, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        open_splits(DataConfig(npz(tmp_path / "a.npz", x=IMAGES, y=labels)), CARD)


class Poison(Dataset):
    """Must not be read."""

    def __len__(self) -> int:
        raise AssertionError("was asked for its length")

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        raise AssertionError("was read")


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: TensorDataset(d.images, d.labels), lambda d: Subset(d, range(4))]
)
def test_checks_read_neither_test_nor_ood_images(wrap) -> None:
    data = wrap(digits_like([3, 1, 2, 0]))
    check_splits(Splits(data, data, Poison(), {"far": Poison()}), CARD)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([1, 1], [1, 2], r"all 2 labels are of class \[1\]"),
        ([1, 10], [1, 2], "labels 10 are outside the classes"),
        ([1, UNLABELLED], [1, 2], "1 of 2 images have no label"),
        ([1, 2], [1, 10], "labels 10 are outside the classes"),
        ([1, 2], [1, UNLABELLED], "mine has images without labels"),
    ],
)
def test_labels_of_the_callers_own_images_are_checked(train, validation, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        check_splits(Splits(digits_like(train), digits_like(validation)), CARD)


def test_images_are_opened_by_path_or_source(tmp_path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.new("L", (8, 8), 200).save(tmp_path / "folder" / name)
    npz(tmp_path / "x.npz", x=IMAGES)
    for place, count, files in (
        ("folder", 2, ("a.png", "sub/b.png")),
        ("folder/sub/b.png", 1, ("b.png",)),
        ("x.npz", 20, ()),
    ):
        dataset = open_images(str(tmp_path / place), CARD)
        assert dataset.files == files
        assert (len(dataset), set(dataset.labels.tolist())) == (count, {UNLABELLED})
    assert len(open_images(f"npz:{tmp_path / 'x.npz'}", CARD)) == 20
    assert set(open_images("digits:test", CARD).labels.tolist()) == {UNLABELLED}


def test_images_that_are_not_there_are_refused(tmp_path) -> None:
    with pytest.raises(SubnetSearchError, match="no data source"):
        open_images(str(tmp_path / "nothing.png"), CARD)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SubnetSearchError, match="cannot be read as an image"):
        open_images(str(tmp_path / "text.png"), CARD)


def digests(backbone: Backbone, splits: Splits) -> dict[str, str]:
    return {**training_digests(backbone, splits), **evaluation_digests(splits)}


def test_digests_tell_weights_and_images_apart() -> None:
    backbone, other = load_backbone("digits"), load_backbone("digits", "random")
    sets = [digits_like([number, 1]) for number in range(4)]
    splits = Splits(sets[0], sets[1], sets[2], {"svhn": sets[3]})
    first = digests(backbone, splits)
    assert list(first) == ["network", "training set", "validation set", "test set", "OOD set svhn"]
    assert first == digests(load_backbone("digits"), splits)
    assert first["network"] != digests(other, splits)["network"]
    for field, name in zip(("train", "validation", "test"), list(first)[1:4], strict=True):
        brighter = ArrayDataset(getattr(splits, field).images // 2, getattr(splits, field).labels)
        changed = digests(backbone, replace(splits, **{field: brighter}))
        assert {key for key in first if first[key] != changed[key]} == {name}
    changed = digests(backbone, replace(splits, ood={"svhn": sets[0]}))
    assert {key for key in first if first[key] != changed[key]} == {"OOD set svhn"}


def test_images_that_are_drawn_anew_are_told_apart_by_their_labels() -> None:
    class Noisy(Dataset):
        def __init__(self, targets) -> None:
            self.targets = targets

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index):
            return torch.rand(1, 8, 8), self.targets[index]

    backbone, noisy = load_backbone("digits"), Splits(Noisy([0, 1]), digits_like([1, 0]))
    first = digests(backbone, noisy)
    assert first == digests(backbone, noisy)
    assert first["training set"] != digests(backbone, replace(noisy, train=Noisy([1, 0])))["training set"]
