"""Masks written and read as a NumPy archive."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.mask_file import load_masks, save_masks
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet

MEMBERS = 3


@pytest.fixture(scope="module")
def graph() -> GroupGraph:
    backbone = load_backbone("digits", "random", width=4)
    return find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape))


@pytest.fixture(scope="module")
def masks(graph: GroupGraph) -> MaskSet:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.rand(MEMBERS, width, generator=generator) < 0.5 for name, width in graph.widths.items()}
    for mask in drawn.values():
        mask[:, 0] = True
    depth = {graph.branches[0].site: torch.tensor([True, False, True])}
    return MaskSet(drawn, "random", 4, {"overlap": 0.5}, depth)


def written(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def test_masks_are_read_as_they_were_written(graph, masks, tmp_path) -> None:
    found = load_masks(save_masks(masks, tmp_path / "new" / "masks.npz"), graph)
    assert found.digest() == masks.digest()
    assert (found.algorithm, dict(found.notes)) == ("file", {})
    assert list(found.masks) == list(graph.widths)


def test_the_file_is_plain_numpy(graph, masks, tmp_path) -> None:
    with np.load(save_masks(masks, tmp_path / "masks.npz"), allow_pickle=False) as archive:
        assert set(archive) == {*graph.widths, f"depth/{graph.branches[0].site}"}
        for name, mask in masks.masks.items():
            assert np.array_equal(archive[name], mask.numpy())


def test_equal_masks_give_equal_bytes(masks, tmp_path) -> None:
    first, second = (save_masks(masks, tmp_path / name).read_bytes() for name in ("a.npz", "b.npz"))
    assert first == second


def test_a_group_may_be_called_file(tmp_path) -> None:
    mask = torch.tensor([[True, False]])
    with np.load(save_masks(MaskSet({"file": mask}, "random"), tmp_path / "masks.npz")) as archive:
        assert np.array_equal(archive["file"], mask.numpy())


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float64, np.float16])
def test_arrays_of_0_and_1_may_have_any_type(graph, masks, tmp_path, dtype) -> None:
    arrays = {name: mask.numpy().astype(dtype) for name, mask in masks.masks.items()}
    depth = {f"depth/{site}": kept.numpy().astype(dtype) for site, kept in masks.depth.items()}
    assert load_masks(written(tmp_path / "masks.npz", **arrays, **depth), graph).digest() == masks.digest()


def test_groups_that_the_file_does_not_name_are_kept_whole(graph, masks, tmp_path) -> None:
    name = "layer1.0.conv1"
    found = load_masks(written(tmp_path / "masks.npz", **{name: masks.masks[name].numpy()}), graph)
    others = [other for other in graph.widths if other != name]
    assert torch.equal(found.masks[name], masks.masks[name])
    assert all(found.masks[other].all() for other in others)
    assert found.notes["kept_whole"] == others


def test_branches_alone_are_enough(graph, tmp_path) -> None:
    site = graph.branches[1].site
    found = load_masks(written(tmp_path / "masks.npz", **{f"depth/{site}": np.array([1, 0])}), graph)
    assert found.members == 2
    assert found.left_out(1) == (site,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"conv9": np.ones((2, 4))}, r"no group 'conv9', expected some of \['conv1', "),
        ({"depth/bn1": np.ones(2)}, r"no residual branch 'bn1', expected some of \['layer1.0.bn2'"),
        ({"conv1": np.ones((2, 5))}, r"'conv1' has shape \[2, 5\], expected \[member, 4\]"),
        ({"conv1": np.ones(4)}, r"'conv1' has shape \[4\], expected \[member, 4\]"),
        ({"conv1": np.ones((0, 4))}, r"'conv1' has shape \[0, 4\]"),
        ({"conv1": np.full((2, 4), 0.5)}, r"'conv1' holds values from 0.5 to 0.5, expected 0 and 1"),
        ({"conv1": np.full((2, 4), np.nan)}, r"'conv1' holds values from nan"),
        ({"conv1": np.full((2, 4), "x")}, r"'conv1' is <U1, expected 0 and 1 \[member, 4\]"),
        ({"conv1": np.ones((2, 4)), "layer1.0.conv1": np.ones((3, 4))}, "disagree on the number of members"),
        ({"conv1": np.array([[1, 1, 1, 1], [0, 0, 0, 0]])}, r"'conv1': members \[1\] keep no channel"),
        ({"conv1": np.array([[None] * 4] * 2)}, "pickled objects, which could execute code"),
        ({}, "holds no arrays"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(graph, tmp_path, arrays, message) -> None:
    path = written(tmp_path / "masks.npz", **arrays)
    with pytest.raises(SubnetSearchError, match=f"{re.escape(str(path))}: .*{message}"):
        load_masks(path, graph)


def test_damaged_files_are_refused(graph, masks, tmp_path) -> None:
    content = save_masks(masks, tmp_path / "masks.npz").read_bytes()
    path = tmp_path / "damaged.npz"
    for kept in (0, 10, len(content) // 2, len(content) - 60):
        path.write_bytes(content[:kept])
        with pytest.raises(SubnetSearchError, match=r"truncated or not an \.npz archive|damaged"):
            load_masks(path, graph)
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:  # a few bytes, such as the date, mean nothing
            assert load_masks(path, graph).digest() == masks.digest()
        except SubnetSearchError as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize(("name", "found"), [("nothing.npz", "nothing"), ("", "a folder")])
def test_missing_files_are_refused(graph, tmp_path, name, found) -> None:
    with pytest.raises(SubnetSearchError, match=f"found {found}, expected an .npz file"):
        load_masks(tmp_path / name, graph)


def test_nothing_is_left_where_writing_fails(masks, tmp_path, monkeypatch) -> None:
    def fail(_self: Path, _target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_masks(masks, tmp_path / "masks.npz")
    assert list(tmp_path.iterdir()) == []
