import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from subnet_search.plots.front import Axis, Mark, front
from subnet_search.plots.hypervolume import Course, hypervolume

AXES = (Axis("cost", lower=True), Axis("loss", lower=True), Axis("likeness", lower=True))


def made_up(count: int, axes: int) -> list[Mark]:
    """Trials with values of their own, the enqueued ones first; the front is that of the first two."""
    draw = np.random.default_rng(0)
    values = draw.uniform(0.5, 1.5, (count, axes))
    marks = []
    for number, row in enumerate(values):
        beaten = ((values[:, :2] <= row[:2]).all(axis=1) & (values[:, :2] < row[:2]).any(axis=1)).any()
        role = ("default", "control")[number] if number < 2 else "search"
        marks.append(Mark(str(number), role, tuple(map(float, row)), not beaten))
    return marks


def drawn(figure: Figure, gid: str):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


@pytest.mark.parametrize("axes", [2, 3])
def test_every_trial_is_where_its_objectives_are(axes: int) -> None:
    marks = made_up(40, axes)
    figure = front("title", AXES[:axes], marks, [0.75, 0.75, None][:axes], "note")
    for gid, wanted in (("on the front", True), ("beaten", False)):
        points = {tuple(float(v[0]) for v in line.get_data()) for line in drawn(figure, gid)}
        assert points == {mark.values[:2] for mark in marks if mark.front is wanted}
    (dense,) = drawn(figure, "dense")
    assert [float(v[0]) for v in dense.get_data()] == [0.75, 0.75]
    assert len(figure.axes) == axes - 1  # the third objective has a colour bar
    assert figure.axes[0].get_xlabel() == "cost (lower is better)"


def test_the_third_objective_is_the_colour_and_better_is_up() -> None:
    marks = made_up(30, 3)
    best, worst = (choose(marks, key=lambda mark: mark.values[2]) for choose in (min, max))
    figure = front("title", AXES, marks, [None] * 3, "note")
    low, high = figure.axes[1].get_ylim()
    assert (high, low) == pytest.approx((best.values[2], worst.values[2]))
    fills = {line.get_label(): line.get_markeredgecolor() for line in drawn(figure, "beaten")}
    fills |= {line.get_label(): line.get_markerfacecolor() for line in drawn(figure, "on the front")}
    assert sum(fills[best.name][:3]) < sum(fills[worst.name][:3])  # dark is good
    turned = (*AXES[:2], replace(AXES[2], lower=False))
    low, high = front("title", turned, marks, [None] * 3, "note").axes[1].get_ylim()
    assert (low, high) == pytest.approx((best.values[2], worst.values[2]))


def test_two_objectives_are_joined_by_the_steps_of_the_front() -> None:
    marks = made_up(30, 2)
    (steps,) = drawn(front("title", AXES[:2], marks, [None, None], "note"), "front")
    corners = sorted(mark.values for mark in marks if mark.front)
    x, y = steps.get_data()
    assert list(zip(x, y, strict=True))[:-1] == corners
    assert drawn(front("title", AXES, made_up(30, 3), [None] * 3, "note"), "front") == []


def test_what_is_on_the_front_or_enqueued_is_named_without_overlaps() -> None:
    marks = [replace(mark, front=True) if mark.role == "search" else mark for mark in made_up(24, 3)]
    figure = front("title", AXES, marks, [0.2, 0.9, None], "note")
    figure.draw_without_rendering()
    names = drawn(figure, "name")
    assert {name.get_text() for name in names} == {mark.name for mark in marks}
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    window = figure.axes[0].get_window_extent()
    assert all(window.contains(*box.min) and window.contains(*box.max) for box in boxes)


def test_the_legend_counts_and_everything_is_on_the_sheet() -> None:
    marks = made_up(40, 3)
    figure = front("A long title " * 12, AXES, marks, [1.0, None, None], "A long note. " * 40)
    figure.draw_without_rendering()
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    best = sum(mark.front for mark in marks)
    assert {f"on the front (n = {best})", f"beaten by another (n = {40 - best})", "control (n = 1)"} <= set(words)
    assert "dense network" in words
    for text in (text for text in figure.findobj(Text) if text.get_text() and text.get_visible()):
        assert text.get_fontsize() >= 8
    for place in (figure.legends[0], *drawn(figure, "note"), *drawn(figure, "title")):
        box = place.get_window_extent()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    assert not drawn(figure, "note")[0].get_window_extent().overlaps(figure.legends[0].get_window_extent())


def test_a_dense_network_with_one_of_the_figures_is_a_line() -> None:
    (line,) = drawn(front("title", AXES, made_up(9, 3), [0.75, None, None], "note"), "dense")
    assert list(line.get_xdata()) == [0.75, 0.75]
    (line,) = drawn(front("title", AXES, made_up(9, 3), [None, 0.75, 0.1], "note"), "dense")
    assert list(line.get_ydata()) == [0.75, 0.75]
    assert drawn(front("title", AXES, made_up(9, 3), [None, None, 0.1], "note"), "dense") == []


def test_values_far_apart_get_a_logarithmic_axis() -> None:
    marks = [*made_up(9, 3), Mark("far", "search", (0.5, 40.0, 0.5), False)]
    plane = front("title", AXES, marks, [None] * 3, "note").axes[0]
    assert (plane.get_xscale(), plane.get_yscale()) == ("linear", "log")
    assert plane.get_ylabel() == "loss (lower is better), log scale"


def test_there_is_no_plane_of_one_objective_or_of_nothing() -> None:
    assert front("title", AXES[:1], made_up(9, 1), [0.5], "note") is None
    assert front("title", AXES, [], [None] * 3, "note") is None


def test_one_trial_has_a_figure_too() -> None:
    assert drawn(front("title", AXES, made_up(1, 3), [None] * 3, "note"), "name")


def test_courses_are_drawn_trial_by_trial_beside_what_else_is_reached() -> None:
    courses = [Course("tpe", (0.1, 0.1, 0.3), 2), Course("random", (0.1, 0.2), 1), Course("unfinished", (), 0)]
    figure = hypervolume("title", courses, {"default alone": 0.1}, "note")
    (axes,) = figure.axes
    level, first, second = axes.lines
    assert list(first.get_xdata()) == [1, 2, 3]
    assert list(first.get_ydata()) == [0.1, 0.1, 0.3]
    assert list(second.get_ydata()) == [0.1, 0.2]
    assert list(level.get_ydata()) == [0.1, 0.1]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[1] == "tpe: 0.300 after 3 trials, 2 of them in full"
    assert first.get_color() != second.get_color()
    assert hypervolume("title", courses[-1:], {}, "note") is None
