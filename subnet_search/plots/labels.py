"""Names beside points, without overlaps: greedy placement, then each label once more while that helps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GAPS = (6.0, 12.0, 22.0, 36.0, 54.0, 76.0)
SHIFTS = np.arange(-160.0, 161.0, 4.0)
SWEEPS = 6
_TOGETHER, _THROUGH, _ACROSS, _COVERS = 1e5, 150.0, 60.0, 40.0
"""Costs in points of leader: labels on each other, a leader through a label or mark, leaders that cross, a label on a mark."""


def place_labels(anchors: Array, sizes: Array, area: Array, marks: Array, lines: Array) -> tuple[Array, Array]:
    """Finds a place for each label beside its point.

    The cost of a place is the length of the leader from the point to the label; overlaps and crossings cost more.

    Args:
        anchors: Points that are named, `[label, 2]`, in any unit of about 1/72 inch.
        sizes: Widths and heights of the labels, `[label, 2]`.
        area: Where labels may be: left, bottom, right, top.
        marks: What the points take with their error bars, `[label, 4]`: labels should not cover it, nor leaders pass it.
        lines: Boxes that labels should not cover, `[box, 4]`.

    Returns:
        Boxes of the labels, `[label, 4]`, and where the leader from the point meets its box, `[label, 2]`. Boxes
        overlap only where there is no room.
    """
    options = [_options(anchor, size, area) for anchor, size in zip(anchors, sizes, strict=True)]
    boxes, ends = np.full((len(anchors), 4), np.nan), np.full((len(anchors), 2), np.nan)
    distances = np.linalg.norm(anchors[:, None] - anchors[None], axis=-1)
    order = np.argsort(np.sort(distances, axis=1)[:, :4].sum(axis=1), kind="stable")  # the most crowded first
    for _ in range(SWEEPS):
        before = boxes.copy()
        for label in order:
            others = np.array([k for k in order if k != label and not np.isnan(boxes[k, 0])], dtype=int)
            place, end = options[label]
            cost = np.linalg.norm(end - anchors[label], axis=1)
            cost += _COVERS * _overlap(place, np.vstack([marks, lines])).sum(axis=1)
            cost += _THROUGH * _pass(anchors[label], end[:, None], np.delete(marks, label, axis=0)).sum(axis=1)
            cost += _TOGETHER * _overlap(place, boxes[others]).sum(axis=1)
            cost += _THROUGH * _pass(anchors[label], end[:, None], boxes[others]).sum(axis=1)
            cost += _THROUGH * _pass(anchors[others], ends[others], place[:, None]).sum(axis=1)
            cost += _ACROSS * _cross(anchors[label], end, anchors[others], ends[others]).sum(axis=1)
            best = int(cost.argmin())
            boxes[label], ends[label] = place[best], end[best]
        if np.array_equal(before, boxes):
            break
    return boxes, ends


def side_by_side(boxes: Array, step: float, most: int) -> Array:
    """Moves marks that lie on each other sideways, each to the nearest free place.

    Args:
        boxes: Left, bottom, right and top of each mark, `[mark, 4]`.
        step: Distance between places.
        most: Number of places on each side.

    Returns:
        How far each mark is moved to the right, `[mark]`; one that finds no place stays where fewest are.
    """
    moves = sorted((k * step for k in range(-most, most + 1)), key=lambda move: (abs(move), -move))
    moved = np.zeros(len(boxes))
    placed = np.empty((0, 4))
    for mark in np.lexsort((-boxes[:, 3], boxes[:, 0])):
        places = boxes[mark] + np.outer(moves, [1.0, 0.0, 1.0, 0.0])
        best = int(_overlap(places, placed).sum(axis=1).argmin())
        moved[mark] = moves[best]
        placed = np.vstack([placed, places[best]])
    return moved


def spread_out(wanted: Array, step: float, low: float, high: float) -> Array:
    """Moves heights apart until neighbours are a step from each other, each no further than it must.

    Args:
        wanted: Heights, `[label]`, in any order.
        step: Least distance.
        low: Least height.
        high: Greatest height; it gives way where there is no room.

    Returns:
        Heights in the order of `wanted`, `[label]`, sorted as these are.
    """
    order = np.argsort(wanted, kind="stable")
    blocks: list[list[float]] = []  # [sum of what its labels want for its lowest, number of labels]
    top = max(high, low + step * (len(wanted) - 1))
    for height in wanted[order]:
        blocks.append([float(height), 1])
        while len(blocks) > 1 and _lowest(blocks[-1]) < _lowest(blocks[-2]) + step * blocks[-2][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total - step * blocks[-1][1] * count
            blocks[-1][1] += count
    placed = np.array([_lowest(block) + step * k for block in blocks for k in range(int(block[1]))])
    ranks = np.arange(len(placed))
    placed = np.clip(placed, low + step * ranks, top - step * (len(placed) - 1 - ranks))
    result = np.empty_like(wanted)
    result[order] = placed
    return result


def _lowest(block: list[float]) -> float:
    return block[0] / block[1]


def _options(anchor: Array, size: Array, area: Array) -> tuple[Array, Array]:
    """All places of a label to the right and left of its point, higher and lower: boxes and ends of the leaders."""
    (x, y), (width, height) = anchor, size
    boxes, ends = [], []
    for shift in SHIFTS:
        low = y + shift - height / 2
        for gap in GAPS:
            boxes += [(x + gap, low, x + gap + width, low + height), (x - gap - width, low, x - gap, low + height)]
            ends += [(x + gap, y + shift), (x - gap, y + shift)]
    place, end = np.array(boxes), np.array(ends)
    inside = (place[:, :2] >= area[:2]).all(axis=1) & (place[:, 2:] <= area[2:]).all(axis=1)
    return (place[inside], end[inside]) if inside.any() else (place, end)


def _overlap(places: Array, boxes: Array) -> NDArray[np.bool_]:
    """Which boxes each place overlaps, `[place, box]`."""
    a, b = places[:, None], boxes[None]
    return np.asarray((a[..., :2] < b[..., 2:]).all(axis=-1) & (b[..., :2] < a[..., 2:]).all(axis=-1))


def _pass(starts: Array, ends: Array, boxes: Array) -> NDArray[np.bool_]:
    """Which lines pass which boxes, by the shares of a line that are between its sides; shapes are broadcast."""
    way = ends - starts
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    low, high = (boxes[..., :2] - starts) / way, (boxes[..., 2:] - starts) / way
    enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
    return np.asarray((enter < leave) & (enter < 1) & (leave > 0))


def _cross(start: Array, ends: Array, starts: Array, others: Array) -> NDArray[np.bool_]:
    """Which lines from starts to others the lines from a start to each end cross, `[end, other]`."""
    a, b = start[None, None], ends[:, None]
    c, d = starts[None], others[None]
    return np.asarray((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0))


def _side(a: Array, b: Array, c: Array) -> Array:
    """Positive where c is left of the line from a to b."""
    return np.asarray((b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0])
