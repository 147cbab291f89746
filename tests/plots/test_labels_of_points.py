import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.plots.labels import _pass, place_labels, side_by_side, spread_out

AREA = np.array([0.0, 0.0, 450.0, 300.0])


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


def marks_of(anchors: np.ndarray) -> np.ndarray:
    return np.hstack([anchors - 3.5, anchors + 3.5])


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_crowded_points_do_not_overlap_and_stay_inside(seed: int) -> None:
    draw = np.random.default_rng(seed)
    anchors = np.stack([draw.choice([150.0, 250.0, 350.0], 20), draw.uniform(100, 200, 20)], axis=1)
    sizes = np.stack([draw.uniform(30, 110, 20), np.full(20, 11.0)], axis=1)
    boxes, ends = place_labels(anchors, sizes, AREA, marks_of(anchors), np.empty((0, 4)))
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], sizes)
    assert (boxes[:, :2] >= AREA[:2]).all()
    assert (boxes[:, 2:] <= AREA[2:]).all()
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert ((ends >= boxes[:, :2] - 1e-9) & (ends <= boxes[:, 2:] + 1e-9)).all()


def test_a_lonely_point_has_its_label_right_beside_it() -> None:
    anchors = np.array([[200.0, 100.0]])
    boxes, ends = place_labels(anchors, np.array([[50.0, 10.0]]), AREA, marks_of(anchors), np.empty((0, 4)))
    np.testing.assert_allclose(boxes, [[206, 95, 256, 105]])
    np.testing.assert_allclose(ends, [[206, 100]])


def test_labels_keep_off_lines() -> None:
    anchors = np.array([[200.0, 100.0]])
    line = np.array([[200.0, 99.0, 450.0, 101.0]])
    boxes, _ = place_labels(anchors, np.array([[50.0, 10.0]]), AREA, marks_of(anchors), line)
    assert not overlap(boxes[0], line[0])


def test_marks_on_each_other_move_to_the_nearest_free_place_only() -> None:
    boxes = np.array([[0, 0, 7, 20], [0, 10, 7, 30], [0, 15, 7, 25], [0, 40, 7, 50], [100, 0, 107, 20]], dtype=float)
    moved = side_by_side(boxes, 8.0, 3)
    assert sorted(moved[:3]) == [-8, 0, 8]
    assert moved[3] == moved[4] == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12))
def test_heights_move_apart_keep_their_order_and_no_further_than_they_must(wanted: list[float]) -> None:
    heights = np.array(wanted)
    placed = spread_out(heights, 0.5, 0.0, 10.0)
    order = np.argsort(heights, kind="stable")
    assert (np.diff(placed[order]) >= 0.5 - 1e-9).all()
    assert placed.min() >= -1e-9
    assert placed.max() <= 10 + 1e-9
    if (np.diff(heights[order]) >= 0.5).all():
        np.testing.assert_allclose(placed, heights)


def test_two_equal_heights_part_around_their_place() -> None:
    np.testing.assert_allclose(spread_out(np.array([5.0, 5.0]), 1.0, 0.0, 10.0), [4.5, 5.5])


def test_lines_pass_boxes_as_points_along_them_do() -> None:
    draw = np.random.default_rng(0)
    starts, ends = draw.uniform(0, 10, (2, 300, 2))
    ends[:20, 0] = starts[:20, 0]  # upright
    corners = draw.uniform(0, 10, (2, 300, 2))
    boxes = np.hstack([corners.min(axis=0), corners.max(axis=0)])
    share = np.linspace(0, 1, 2001)[:, None, None]
    points = starts * (1 - share) + ends * share
    naive = ((points > boxes[:, :2]) & (points < boxes[:, 2:])).all(axis=-1).any(axis=0)
    assert 50 < naive.sum() < 250
    assert (_pass(starts, ends, boxes) != naive).sum() <= 1  # a corner may be cut between two of the points
