import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.search import SearchConfig, search_masks
from subnet_search.search.balanced import balanced
from subnet_search.search.draft import draft
from subnet_search.search.flow import Certificate, flow
from subnet_search.search.overlap import Mask, Scores, normalise, objective


def brute_force(scores: Scores, quotas: tuple[int, ...], weight: float, cover: bool) -> float:
    """The best objective over all assignments, one by one."""
    channels = scores.shape[1]
    cover = cover and sum(quotas) >= channels
    choices = [list(itertools.combinations(range(channels), quota)) for quota in quotas]
    best = -np.inf
    for sets in itertools.product(*choices):
        mask = np.zeros(scores.shape, dtype=np.bool_)
        for member, kept in enumerate(sets):
            mask[member, list(kept)] = True
        if not cover or mask.any(axis=0).all():
            best = max(best, objective(scores, mask, weight))
    return best


def check(scores: Scores, quotas: tuple[int, ...], weight: float, cover: bool = False) -> tuple[Mask, Certificate]:
    """Runs `flow`, asserts what always holds, and returns its answer."""
    mask, certificate = flow(scores, quotas, weight, cover)
    assert tuple(mask.sum(axis=1)) == quotas
    if cover and sum(quotas) >= scores.shape[1]:
        assert mask.any(axis=0).all()
    assert certificate.value == pytest.approx(objective(scores, mask, weight))
    assert certificate.bound >= certificate.value
    return mask, certificate


@st.composite
def problems(draw: st.DrawFn) -> tuple[Scores, tuple[int, ...], float, bool]:
    members = draw(st.integers(2, 3))
    channels = draw(st.integers(1, 8 if members == 2 else 5))
    quotas = tuple(draw(st.lists(st.integers(1, channels), min_size=members, max_size=members)))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = rng.exponential(size=(members, channels))
    if draw(st.booleans()):  # ties: the same few values for all members
        scores = np.repeat(rng.integers(0, 3, (1, channels)).astype(np.float64), members, axis=0)
    return normalise(scores), quotas, draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 1e3])), draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_small_groups_equal_brute_force(problem: tuple[Scores, tuple[int, ...], float, bool]) -> None:
    scores, quotas, weight, cover = problem
    expected = brute_force(scores, quotas, weight, cover)
    _, certificate = check(scores, quotas, weight, cover)
    assert certificate.value == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("limit", ["MILP_CELLS", "DUAL_CELLS"])
@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_the_certificate_of_large_groups_holds_on_small_ones(
    limit: str, problem: tuple[Scores, tuple[int, ...], float, bool]
) -> None:
    scores, quotas, weight, cover = problem
    expected = brute_force(scores, quotas, weight, cover)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"subnet_search.search.flow.{limit}", 0)
        _, certificate = check(scores, quotas, weight, cover)
    tolerance = 1e-6 * max(1.0, abs(expected))
    assert certificate.value <= expected + tolerance
    assert certificate.bound >= expected - tolerance


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("quotas", [(64,) * 4, (32,) * 4, (20, 100, 64, 128), (120,) * 4])
@pytest.mark.parametrize("kind", ["independent", "shared", "same"])
def test_the_gap_is_small_and_the_draft_is_not_better(kind: str, quotas: tuple[int, ...], weight: float) -> None:
    rng = np.random.default_rng(0)
    scores = {
        "independent": rng.exponential(size=(4, 128)),
        "shared": rng.lognormal(size=(1, 128)) * rng.lognormal(sigma=0.3, size=(4, 128)),
        "same": np.repeat(rng.exponential(size=(1, 128)), 4, axis=0),
    }[kind]
    scores = normalise(scores)
    _, certificate = check(scores, quotas, weight)
    assert certificate.gap < 5e-3
    for other in (draft(scores, quotas), balanced(128, quotas, rng)):
        assert objective(scores, other, weight) <= certificate.bound
        assert objective(scores, other, weight) <= certificate.value + 1e-9


def test_identical_scores_do_not_make_identical_members() -> None:
    # the per-channel count of sharers has members 0 and 1 equal, 2 and 3 their complement among its optima
    scores = np.ones((4, 48))
    mask, certificate = check(scores, (24,) * 4, 1.0)
    shared = mask.astype(int) @ mask.T.astype(int)
    off_diagonal = shared[np.triu_indices(4, k=1)]
    assert off_diagonal.tolist() == [8] * 6
    assert certificate.gap < 1e-6


def test_without_overlap_price_each_member_keeps_its_best() -> None:
    scores = normalise(np.random.default_rng(1).exponential(size=(3, 40)))
    mask, certificate = check(scores, (5, 10, 40), 0.0)
    for row, kept, quota in zip(scores, mask, (5, 10, 40), strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(-row)[:quota])
    assert certificate.exact


def test_a_high_price_keeps_members_apart_where_they_fit_side_by_side() -> None:
    scores = normalise(np.random.default_rng(2).exponential(size=(4, 80)))
    mask, certificate = check(scores, (20,) * 4, 1e6)
    assert mask.sum(axis=0).max() == 1
    assert certificate.exact


def test_many_members_get_a_certificate_too() -> None:
    scores = normalise(np.random.default_rng(3).exponential(size=(24, 96)))
    _, certificate = check(scores, (24,) * 24, 0.5, cover=True)
    assert certificate.gap < 0.05


def test_a_network_of_the_size_of_resnet50_takes_seconds() -> None:
    widths = [64] * 7 + [128] * 8 + [256] * 14 + [512] * 10 + [1024] * 8 + [2048] * 4
    generator = torch.Generator().manual_seed(0)
    scores = {f"g{i}": torch.rand(8, width, generator=generator) ** 3 for i, width in enumerate(widths)}
    quotas = {name: (value.shape[1] // 2,) * 8 for name, value in scores.items()}
    start = time.thread_time()
    masks = search_masks(scores, {n: v.shape[1] for n, v in scores.items()}, quotas, SearchConfig("flow"))
    seconds = time.thread_time() - start
    assert sum(widths) > 26_000
    assert masks.notes["gap"] < 1e-3
    assert masks.notes["gap_worst_group"] < 5e-3
    assert masks.notes["bound"] >= masks.notes["objective"]
    assert masks.notes["exact"] is False
    # about 2 s on one core; processor time of this thread, as those of BLAS burn theirs in waiting for each other
    assert seconds < 10
