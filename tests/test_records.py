"""Tensors and masks on disk, with what is known of them."""

from pathlib import Path

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.records import read_masks, read_record, write_masks, write_record


def test_a_record_comes_back(tmp_path: Path) -> None:
    tensors = {"a.b": torch.arange(6.0).view(2, 3).T, "none": torch.zeros(0, dtype=torch.int64)}
    write_record(tmp_path / "new" / "file", tensors, {"seed": 3, "list": [None, "ü"]})
    found = read_record(tmp_path / "new" / "file", lambda *both: both)
    assert found is not None
    assert found[1] == {"seed": 3, "list": [None, "ü"]}
    assert {name: tensor.tolist() for name, tensor in found[0].items()} == {"a.b": [[0, 3], [1, 4], [2, 5]], "none": []}
    assert read_record(tmp_path / "other", lambda *both: both) is None


def test_masks_come_back_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    masks = MaskSet(
        {"b": torch.eye(2, dtype=torch.bool), "a": torch.ones(2, 3, dtype=torch.bool)},
        "flow",
        7,
        {"gap": 0.0, "rounds": [{"overlap": 1.5}]},
        {"branch": torch.tensor([True, False])},
    )
    write_masks(tmp_path / "masks", masks)
    found = read_masks(tmp_path / "masks")
    assert found is not None
    assert found.digest() == masks.digest()
    assert (found.algorithm, found.seed, dict(found.notes)) == ("flow", 7, dict(masks.notes))
    assert found.left_out(1) == ("branch",)
    assert read_masks(tmp_path / "other") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_masks(tmp_path / "masks", MaskSet({"a": torch.ones(2, 3, dtype=torch.bool)}, "flow"))
    (tmp_path / "masks").write_bytes((tmp_path / "masks").read_bytes()[:-3])
    with pytest.raises(SubnetSearchError, match=r"masks is damaged .*delete it"):
        read_masks(tmp_path / "masks")


@pytest.mark.parametrize(
    ("tensors", "notes", "message"),
    [
        ({"a": torch.ones(2, 3)}, {"criterion": "ig"}, "no 'depth' in it"),
        ({"a": torch.ones(2, 3)}, {"algorithm": "", "seed": 0, "notes": {}, "depth": {}}, "expected torch.bool"),
        ({}, [], "list indices must be integers"),
    ],
)
def test_a_sound_file_of_something_else_is_named(tmp_path: Path, tensors, notes, message) -> None:
    write_record(tmp_path / "masks", tensors, notes)
    with pytest.raises(
        SubnetSearchError, match=f"masks is damaged .*{message}.*; delete it, and the stage is run again"
    ):
        read_masks(tmp_path / "masks")
