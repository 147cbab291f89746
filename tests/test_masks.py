"""The masks of an ensemble."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet, full_masks


def bits(*rows: str) -> Tensor:
    """`bits("110", "011")` is a mask of two members and three channels."""
    return torch.tensor([[digit == "1" for digit in row] for row in rows])


@st.composite
def mask_sets(draw: st.DrawFn) -> MaskSet:
    members = draw(st.integers(1, 4))
    masks = {}
    for group in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 8))
        row = st.lists(st.booleans(), min_size=width, max_size=width).filter(any)
        masks[f"group{group}"] = torch.tensor(draw(st.lists(row, min_size=members, max_size=members)))
    return MaskSet(masks, "drawn")


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 3), torch.ones(2, 3, dtype=torch.uint8), torch.ones(3, dtype=torch.bool)]
)
def test_what_is_no_bool_matrix_is_refused(mask: Tensor) -> None:
    with pytest.raises(SubnetSearchError, match=r"mask of group 'a': got .*, expected torch.bool \[member, channel\]"):
        MaskSet({"a": mask}, "x")


def test_a_member_without_a_channel_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"group 'b': members \[1\] keep no channel"):
        MaskSet({"a": bits("10", "01"), "b": bits("11", "00")}, "x")


def test_different_numbers_of_members_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"masks disagree on the number of members: \{'a': 2, 'b': 1\}"):
        MaskSet({"a": bits("10", "01"), "b": bits("11")}, "x")


def test_members_and_widths() -> None:
    masks = MaskSet({"a": bits("110", "010"), "b": bits("11", "10")}, "x")
    assert masks.members == 2
    assert dict(masks.widths) == {"a": (2, 1), "b": (2, 1)}


def test_without_groups_there_is_one_member() -> None:
    assert MaskSet({}, "x").members == 1


def test_overlap_and_iou_by_hand() -> None:
    masks = MaskSet({"a": bits("1100", "0110", "0011"), "b": bits("10", "10", "01")}, "x")
    assert masks.overlap().tolist() == [[3, 2, 0], [2, 3, 1], [0, 1, 3]]
    torch.testing.assert_close(masks.iou(), torch.tensor([[1, 2 / 4, 0], [2 / 4, 1, 1 / 5], [0, 1 / 5, 1]]).double())
    assert masks.mean_iou() == pytest.approx((2 / 4 + 0 + 1 / 5) / 3)


def test_groups_that_all_keep_whole_do_not_count() -> None:
    thinned = bits("1100", "0110")
    masks, alone = MaskSet({"a": thinned, "whole": bits("11", "11")}, "x"), MaskSet({"a": thinned}, "x")
    assert torch.equal(masks.overlap(), alone.overlap())
    assert masks.mean_iou() == pytest.approx(1 / 3)


def test_iou_of_whole_or_single_members_is_one() -> None:
    assert full_masks({"a": 3}, 2).mean_iou() == 1.0
    assert torch.equal(full_masks({"a": 3}, 2).iou(), torch.ones(2, 2, dtype=torch.float64))
    assert MaskSet({"a": bits("10")}, "x").mean_iou() == 1.0


@settings(deadline=None)
@given(mask_sets())
def test_iou_is_symmetric_and_between_nothing_and_all(masks: MaskSet) -> None:
    iou = masks.iou()
    assert torch.equal(iou, iou.T)
    assert torch.equal(iou.diagonal(), torch.ones(masks.members, dtype=torch.float64))
    assert ((iou >= 0) & (iou <= 1)).all()
    for k in range(masks.members):
        for m in range(masks.members):
            sets = [
                {(name, c) for name, mask in masks.masks.items() if not mask.all() for c in mask[row].nonzero().flatten().tolist()}
                for row in (k, m)
            ]  # fmt: skip
            union = sets[0] | sets[1]
            assert iou[k, m].item() == pytest.approx(len(sets[0] & sets[1]) / len(union) if union else 1.0)


@settings(deadline=None)
@given(mask_sets(), st.data())
def test_the_digest_changes_with_every_bit(masks: MaskSet, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(masks.masks)))
    changed = masks.masks[name].clone()
    member, channel = (data.draw(st.integers(0, size - 1)) for size in changed.shape)
    changed[member, channel] = ~changed[member, channel]
    if changed.any(dim=1).all():
        assert MaskSet({**masks.masks, name: changed}, "drawn").digest() != masks.digest()


@settings(deadline=None)
@given(mask_sets())
def test_the_digest_is_of_the_masks_alone(masks: MaskSet) -> None:
    again = MaskSet(dict(reversed(masks.masks.items())), "another", 7, {"why": "not"})
    assert again.digest() == masks.digest()


def test_the_digest_knows_names_and_shapes() -> None:
    digests = {
        MaskSet({"a": bits("11", "11")}, "x").digest(),
        MaskSet({"a": bits("1111")}, "x").digest(),
        MaskSet({"b": bits("11", "11")}, "x").digest(),
        MaskSet({"a": bits("11"), "b": bits("11")}, "x").digest(),
    }
    assert len(digests) == 4


def test_the_digest_stays_what_it_was_in_earlier_versions() -> None:
    found = MaskSet({"a": bits("101", "010"), "b": bits("10", "11")}, "x").digest()
    assert found == "407c727f0834974280f1e85cf6da3f0445bd37e5b23025b13b7a6301d247bf13"


def test_nothing_can_be_changed_afterwards() -> None:
    given_mask, notes = bits("10", "01"), {"why": "because"}
    masks = MaskSet({"a": given_mask}, "x", 3, notes)
    digest = masks.digest()
    given_mask.fill_(True)
    notes["why"] = "changed"
    assert masks.digest() == digest
    assert masks.notes["why"] == "because"
    with pytest.raises(FrozenInstanceError, match="cannot assign to field"):
        masks.algorithm = "y"
    with pytest.raises(TypeError, match="does not support item assignment"):
        masks.masks["a"] = given_mask
    with pytest.raises(TypeError, match="does not support item assignment"):
        masks.notes["why"] = ""


def test_full_masks_keep_everything() -> None:
    masks = full_masks({"a": 3, "b": 2}, 4)
    assert masks.algorithm == "full"
    assert dict(masks.widths) == {"a": (3,) * 4, "b": (2,) * 4}


def test_branches_that_all_keep_are_not_held() -> None:
    given_depth = {"b1": torch.tensor([True, False]), "b2": torch.tensor([True, True])}
    masks = MaskSet({"a": bits("10", "01")}, "x", depth=given_depth)
    assert list(masks.depth) == ["b1"]
    assert (masks.left_out(0), masks.left_out(1)) == ((), ("b1",))
    given_depth["b1"].fill_(False)
    assert masks.left_out(0) == ()
    with pytest.raises(TypeError, match="does not support item assignment"):
        masks.depth["b1"] = given_depth["b1"]


def test_branches_are_a_part_of_the_digest_where_one_is_left_out() -> None:
    mask = {"a": bits("10", "01")}
    kept = {name: torch.tensor(values) for name, values in (("b", [True, True]), ("c", [True, False]))}
    plain = MaskSet(mask, "x").digest()
    assert MaskSet(mask, "x", depth={"b": kept["b"]}).digest() == plain  # files of earlier versions stay what they are
    digests = {
        plain,
        MaskSet(mask, "x", depth={"b": kept["c"]}).digest(),
        MaskSet(mask, "x", depth={"c": kept["c"]}).digest(),
        MaskSet(mask, "x", depth={"c": ~kept["c"]}).digest(),
        MaskSet(mask, "x", depth={"b": kept["c"], "c": kept["c"]}).digest(),
    }
    assert len(digests) == 5
    assert MaskSet(mask, "x", depth=kept).digest() == MaskSet(mask, "x", depth=dict(reversed(kept.items()))).digest()


@pytest.mark.parametrize("kept", [torch.ones(2), torch.ones(3, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)])
def test_what_is_no_bool_for_each_member_is_refused_of_a_branch(kept: Tensor) -> None:
    with pytest.raises(SubnetSearchError, match=r"depth mask of branch 'b': got .*, expected torch.bool \[2\]"):
        MaskSet({"a": bits("10", "01")}, "x", depth={"b": kept})
