"""The decisions of the ladder, against ones made by hand and by brute force."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.tune.ladder import ahead, crowding_distances, epochs_of_rungs, goes_on, non_dominated_ranks

Point = tuple[int, ...]
POINTS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 4)] * width), min_size=1, max_size=12)
)


def dominates(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def naive_ranks(points: Sequence[Point]) -> list[int]:
    """Deb et al. 2002: take the front away, again and again."""
    left, ranks, rank = dict(enumerate(points)), {}, 0
    while left:
        front = [i for i, p in left.items() if not any(dominates(q, p) for q in left.values())]
        for i in front:
            ranks[i] = rank
            del left[i]
        rank += 1
    return [ranks[i] for i in range(len(points))]


def naive_distances(points: Sequence[Point]) -> list[Fraction | float]:
    """Deb et al. 2002, `crowding-distance-assignment`, each place taken once."""
    places = sorted(set(points))
    found: dict[Point, Fraction | float] = dict.fromkeys(places, Fraction(0))
    for axis in range(len(points[0])):
        order = sorted(places, key=lambda p: p[axis])
        low, high = order[0][axis], order[-1][axis]
        if low == high:
            continue
        for k, place in enumerate(order):
            if place[axis] in (low, high):
                found[place] = math.inf
            elif found[place] != math.inf:
                found[place] += Fraction(order[k + 1][axis] - order[k - 1][axis], high - low)
    return [found[p] for p in points]


def naive_decision(points: Sequence[Point], eta: int) -> bool:
    """Sorts everything, the first trial last among its equals, and looks whether it is in the top."""
    ranks = naive_ranks(points)
    peers = [i for i, rank in enumerate(ranks) if rank == ranks[0]]
    distances = dict(zip(peers, naive_distances([points[i] for i in peers]), strict=True))
    better = [i for i in range(len(points)) if ranks[i] < ranks[0] or distances.get(i, -1) > distances[0]]
    return len(better) < max(1, len(points) // eta)


@settings(deadline=None, max_examples=300)
@given(points=POINTS, eta=st.integers(2, 4))
def test_it_decides_as_brute_force_does(points, eta) -> None:
    losses = np.array(points, dtype=float)
    assert non_dominated_ranks(losses).tolist() == naive_ranks(points)
    front = [p for p, rank in zip(points, naive_ranks(points), strict=True) if rank == 0]
    assert crowding_distances(np.array(front, dtype=float)) == pytest.approx([float(d) for d in naive_distances(front)])
    assert goes_on(points[0], points[1:], eta) == naive_decision(points, eta)


@settings(deadline=None, max_examples=200)
@given(points=POINTS, eta=st.integers(2, 4))
def test_some_always_go_on_and_a_better_one_before_a_worse(points, eta) -> None:
    on = {p: goes_on(p, points[:i] + points[i + 1 :], eta) for i, p in enumerate(points)}
    assert any(on.values())
    for one in points:
        for other in points:
            if dominates(one, other) and on[other]:
                assert on[one]


@settings(deadline=None, max_examples=100)
@given(points=POINTS, scale=st.sampled_from([0.001, 3.0, 1e6]))
def test_units_and_order_do_not_matter(points, scale) -> None:
    losses = np.array(points, dtype=float)
    places = [ahead(np.roll(losses, -i, axis=0)) for i in range(len(losses))]
    scaled = losses * np.linspace(1.0, scale, losses.shape[1])
    assert [ahead(np.roll(scaled, -i, axis=0)) for i in range(len(losses))] == places
    shuffled = [ahead(np.vstack([losses[i], np.delete(losses, i, axis=0)[::-1]])) for i in range(len(losses))]
    assert shuffled == places


def test_with_one_objective_the_best_go_on() -> None:
    others = [[float(v)] for v in range(1, 8)]
    assert [goes_on([v], others, 2) for v in (0.5, 3.5, 4.5)] == [True, True, False]
    assert goes_on([9.0], [], 2)
    assert not goes_on([9.0], [[1.0]], 2)
    assert goes_on([1.0], [[1.0]], 2)  # equals go on together


@pytest.mark.parametrize(
    ("epochs", "rungs", "expected"),
    [
        (9, (0.0, 1 / 3, 1.0), [0, 3, 9]),
        (10, (0.0, 1 / 3, 1.0), [0, 4, 10]),
        (1, (0.0, 1 / 3, 1.0), [0, 1]),
        (0, (0.0, 1 / 3, 1.0), [0]),
        (7, (1.0,), [7]),
        (3, (0.1, 0.2, 1.0), [1, 1, 3]),
    ],
)
def test_rungs_are_whole_epochs(epochs, rungs, expected) -> None:
    assert epochs_of_rungs(epochs, rungs) == expected
