"""Cutting channels of members that have already lost some."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet, full_masks
from subnet_search.search import SearchConfig, search_masks
from subnet_search.search import flow as flow_module
from subnet_search.search.cut import cut
from subnet_search.search.overlap import objective


def drawn(members: int, width: int, has: int, seed: int) -> MaskSet:
    """Members that have `has` random channels each."""
    rng = np.random.default_rng(seed)
    mask = torch.zeros(members, width, dtype=torch.bool)
    for member in range(members):
        mask[member, rng.choice(width, has, replace=False)] = True
    return MaskSet({"g": mask}, "hand", seed)


def scores_of(members: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    return {"g": torch.rand(members, width, generator=torch.Generator().manual_seed(seed))}


def best_of_all(scores: torch.Tensor, present: torch.Tensor, quota: tuple[int, ...], weight: float) -> float:
    """The best objective of all masks inside the present ones, by trying them all."""
    normalised = (scores.double() * present / scores.double()[present].mean()).numpy()
    choices = [list(combinations(row.nonzero().flatten().tolist(), q)) for row, q in zip(present, quota, strict=True)]
    best = -np.inf
    for chosen in product(*choices):
        mask = np.zeros(present.shape, dtype=np.bool_)
        for member, channels in enumerate(chosen):
            mask[member, list(channels)] = True
        best = max(best, objective(normalised, mask, weight))
    return best


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_small_cut_is_the_best_of_all(weight: float, seed: int) -> None:
    present, scores, quota = drawn(3, 6, 4, seed), scores_of(3, 6, seed), (2, 3, 2)
    after = cut(present, scores, {"g": quota}, SearchConfig("progressive", lambda_overlap=weight))
    wanted = best_of_all(scores["g"], present.masks["g"], quota, weight)
    assert after.notes["objective"] == pytest.approx(wanted)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    members=st.integers(1, 5),
    width=st.integers(1, 24),
    weight=st.sampled_from([0.0, 0.3, 1.0, 10.0]),
    cover=st.booleans(),
    data=st.data(),
)
def test_masks_stay_inside_and_quotas_are_exact(
    seed: int, members: int, width: int, weight: float, cover: bool, data: st.DataObject
) -> None:
    has = data.draw(st.integers(1, width))
    quota = tuple(data.draw(st.lists(st.integers(1, has), min_size=members, max_size=members)))
    present, scores = drawn(members, width, has, seed), scores_of(members, width, seed)
    config = SearchConfig("progressive", lambda_overlap=weight, cover=cover, seed=3)
    after = cut(present, scores, {"g": quota}, config)
    assert after.widths == {"g": quota}
    assert (after.masks["g"] <= present.masks["g"]).all()
    assert (after.algorithm, after.seed) == ("progressive", 3)
    assert after.digest() == cut(present, scores, {"g": quota}, config).digest()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), weight=st.sampled_from([0.5, 2.0]))
def test_the_numbers_of_the_channels_do_not_matter(seed: int, weight: float) -> None:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(12))
    present, scores, config = drawn(3, 12, 9, seed), scores_of(3, 12, seed), SearchConfig(lambda_overlap=weight)
    straight = cut(present, scores, {"g": (5, 5, 5)}, config)
    permuted = cut(
        MaskSet({"g": present.masks["g"][:, order]}, "hand"), {"g": scores["g"][:, order]}, {"g": (5, 5, 5)}, config
    )
    assert torch.equal(straight.masks["g"][:, order], permuted.masks["g"])


@pytest.mark.parametrize("width", [8, 40])
def test_the_first_cut_is_that_of_flow(width: int) -> None:
    scores, quota = scores_of(4, width, 0), (width // 2,) * 4
    first = cut(full_masks({"g": width}, 4), scores, {"g": quota}, SearchConfig("progressive"))
    flow = search_masks(scores, {"g": width}, {"g": quota}, SearchConfig("flow"))
    assert first.digest() == flow.digest()
    for figure in ("overlap", "relevance", "objective"):
        assert first.notes[figure] == pytest.approx(flow.notes[figure])


def test_what_the_members_share_is_paid_for_as_if_lost_channels_were_there() -> None:
    """Channels that nobody has change nothing, but for the C that overlaps are divided by."""
    scores = scores_of(2, 6, 1)["g"]
    present = torch.ones(2, 12, dtype=torch.bool)
    present[:, 6:] = False
    wide = cut(
        MaskSet({"g": present}, "hand"),
        {"g": torch.cat([scores, torch.full((2, 6), 9.0)], dim=1)},
        {"g": (3, 3)},
        SearchConfig(lambda_overlap=2.0),
    )
    narrow = cut(full_masks({"g": 6}, 2), {"g": scores}, {"g": (3, 3)}, SearchConfig(lambda_overlap=1.0))
    assert torch.equal(wide.masks["g"][:, :6], narrow.masks["g"])
    assert wide.notes["objective"] == pytest.approx(narrow.notes["objective"])


def test_members_cover_what_they_still_can() -> None:
    present = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0]], dtype=torch.bool)
    scores = {"g": torch.tensor([[1.0, 9, 9, 9, 9, 9], [9.0, 9, 9, 1, 1, 9]])}
    masks = MaskSet({"g": present}, "hand")
    covering = cut(masks, scores, {"g": (2, 3)}, SearchConfig(lambda_overlap=0.0, cover=True)).masks["g"]
    assert covering[:, :5].any(dim=0).all()  # channel 5 is lost for good
    careless = cut(masks, scores, {"g": (2, 3)}, SearchConfig(lambda_overlap=0.0)).masks["g"]
    assert not careless[:, 0].any()
    # channels 3 and 4 are the second member's alone, but it has room for one of them
    tight = cut(masks, scores, {"g": (3, 1)}, SearchConfig(lambda_overlap=0.0, cover=True))
    assert tight.widths == {"g": (3, 1)}
    assert (tight.masks["g"] <= present).all()


def test_a_lone_member_keeps_its_best_and_of_equals_the_lower() -> None:
    present = MaskSet({"a": torch.tensor([[True, True, False, True]]), "b": torch.ones(1, 2, dtype=torch.bool)}, "hand")
    scores = {"a": torch.tensor([[2.0, 0.0, 9.0, 0.0]])}
    after = cut(present, scores, {"a": (2,), "b": (2,)}, SearchConfig())
    assert after.masks["a"].tolist() == [[True, True, False, False]]
    assert after.masks["b"].all()


@pytest.mark.parametrize("cover", [False, True])
def test_many_members_stay_inside_too(monkeypatch: pytest.MonkeyPatch, cover: bool) -> None:
    """Where the sets of members are too many to list, the start of the local search knows nothing of lost channels."""
    monkeypatch.setattr(flow_module, "DUAL_CELLS", 0)
    present, scores = drawn(5, 60, 36, 0), scores_of(5, 60, 0)
    after = cut(present, scores, {"g": (20,) * 5}, SearchConfig("progressive", cover=cover))
    assert after.widths == {"g": (20,) * 5}
    assert (after.masks["g"] <= present.masks["g"]).all()
    if cover:
        assert (after.masks["g"].any(dim=0) == present.masks["g"].any(dim=0)).all()


def test_every_cut_leaves_its_figures() -> None:
    scores, depth = scores_of(3, 10, 0), {"branch": torch.tensor([True, False, True])}
    whole = MaskSet(full_masks({"g": 10, "h": 4}, 3).masks, "full", depth=depth)
    first = cut(whole, scores, {"g": (8, 8, 8)}, SearchConfig("progressive"))
    second = cut(first, scores, {"g": (5, 5, 5), "h": (4, 4, 4)}, SearchConfig("progressive"))
    assert [set(figures) for figures in second.notes["rounds"]] == [{"overlap", "relevance", "objective"}] * 2
    assert second.notes["rounds"][0] == first.notes["rounds"][0]
    assert second.notes["rounds"][1]["overlap"] == second.notes["overlap"] < first.notes["overlap"]
    assert second.notes["settings"]["algorithm"] == "progressive"
    assert second.left_out(1) == ("branch",)
    assert second.masks["h"].all()


@pytest.mark.parametrize(
    ("scores", "quota", "message"),
    [
        ({}, (2, 2), r"group 'g' is to be cut: its scores are none, expected \[member, channel\] = \(2, 4\)"),
        ({"g": torch.ones(2, 3)}, (2, 2), r"its scores are \(2, 3\)"),
        ({"g": torch.full((2, 4), torch.nan)}, (2, 2), "NaN"),
        ({"g": torch.full((2, 4), -1.0)}, (2, 2), "below 0"),
        ({"g": torch.ones(2, 4)}, (0, 2), r"quotas are \(0, 2\)"),
        ({"g": torch.ones(2, 4)}, (2, 5), r"from 1 to what it has, \(4, 4\)"),
        ({"g": torch.ones(2, 4)}, (2,), "one for each member"),
    ],
)
def test_what_cannot_be_cut_is_an_error(scores: dict, quota: tuple[int, ...], message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        cut(full_masks({"g": 4}, 2), scores, {"g": quota}, SearchConfig())


def test_scores_of_lost_channels_may_be_anything() -> None:
    present = MaskSet({"g": torch.tensor([[True, True, False], [True, True, True]])}, "hand")
    scores = {"g": torch.tensor([[1.0, 2.0, torch.nan], [3.0, 0.0, 1.0]])}
    after = cut(present, scores, {"g": (1, 2)}, SearchConfig(lambda_overlap=0.0))
    assert after.masks["g"].tolist() == [[False, True, False], [True, False, True]]
