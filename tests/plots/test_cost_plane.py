import copy
import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from subnet_search.plots import nll_cost, ood_cost
from subnet_search.plots.cost_plane import front_of


def of_method(figure: Figure, method: str):
    """The point of a method and the ends of its vertical bar in the figure."""
    (container,) = (c for c in figure.axes[0].containers if c.get_label() == method)
    line, _, bars = container
    (x,), (y,) = line.get_data()
    return x, y, line.get_marker(), bars[0].get_segments()[0] if bars else None


def written(figure: Figure, gid: str) -> list[Text]:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def in_view(figure: Figure, label: Text) -> bool:
    low, high = figure.axes[0].get_ylim()
    return bool(low <= label.get_position()[1] <= high)


def note_of(figure: Figure) -> str:
    return written(figure, "note")[0].get_text().replace("\n", " ")


def test_points_are_at_the_means_and_bars_are_a_standard_deviation(made_up) -> None:
    figure = nll_cost(made_up.rows)
    for method in ("search", "deep_ensemble", "masksembles+stochastic_depth+mimo"):
        own = [row["metrics"] for row in made_up.rows if row["method"] == method]
        mean, sd = (f([m["cls/NLL"] for m in own]) for f in (statistics.mean, statistics.stdev))
        x, y, _, bar = of_method(figure, method)
        assert (x, y) == pytest.approx((own[0]["cplx/MACsRatio"], mean))
        np.testing.assert_allclose(bar, [(x, mean - sd), (x, mean + sd)])
    assert of_method(figure, "msp")[3] is None  # one seed has no spread
    assert "fewer: dense (msp) (1)" in note_of(figure)


def test_shapes_tell_the_origin_and_colours_the_family(made_up) -> None:
    figure = nll_cost(made_up.rows)
    assert of_method(figure, "mimo")[2] != of_method(figure, "search")[2]
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert {"from the backbone", "from scratch", "Pareto front", "searched masks", "sampled passes"} <= set(words)
    assert "other" not in words


@pytest.mark.parametrize("draw", [nll_cost, ood_cost])
def test_twenty_methods_are_named_without_overlaps(made_up, draw) -> None:
    figure = draw(made_up.rows)
    figure.draw_without_rendering()
    names = written(figure, "name")
    assert len(names) == len(figure.axes[0].containers) >= 19
    boxes = [Text.get_window_extent(name) for name in names]
    overlapping = [
        (a.get_text(), b.get_text())
        for (a, x), (b, y) in itertools.combinations(zip(names, boxes, strict=True), 2)
        if x.overlaps(y)
    ]
    assert overlapping == []
    axes = figure.axes[0].get_window_extent()
    assert all(axes.contains(*box.min) and axes.contains(*box.max) for box in boxes)


@pytest.mark.parametrize("draw", [nll_cost, ood_cost])
def test_everything_is_on_the_sheet_and_large_enough_to_be_read(made_up, draw) -> None:
    rows = [{**row, "data": "npz:" + "a_long_path/" * 12} for row in made_up.rows]
    for row in rows:
        row["metrics"] = {**row["metrics"], **{f"ood/another_set_{k}/AUROC/entropy": 0.8 for k in range(5)}}
    figure = draw(rows, {f"method_{k}": "could not" for k in range(20)})
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 8
    beyond = [label for label in figure.axes[0].get_yticklabels() if not in_view(figure, label)]
    for text in (text for text in texts if text not in beyond):
        box = Text.get_window_extent(text)
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    note, legend = written(figure, "note")[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert not note.overlaps(legend)


def test_the_note_names_what_is_not_drawn(made_up) -> None:
    figure = ood_cost(made_up.rows, {"singe+mimo": "no such thing", "msp": "seed 1: nan"})
    assert not any(container.get_label() == "singe" for container in figure.axes[0].containers)
    assert "Not drawn, without AUROC on all of these sets, or MACs: singe." in note_of(figure)
    assert "Could not be run: singe+mimo." in note_of(figure)


def test_the_note_says_where_settings_differ(made_up) -> None:
    rows = copy.deepcopy(made_up.rows[:4])
    rows[0]["settings"]["finetune"]["epochs"] = 20
    assert "differ between the methods: finetune.epochs." in note_of(nll_cost(rows))
    assert "differ" not in note_of(nll_cost(made_up.rows[:4]))


def test_ood_is_the_mean_over_the_sets_that_the_label_names(made_up) -> None:
    figure = ood_cost(made_up.rows)
    own = [row["metrics"] for row in made_up.rows if row["method"] == "search"]
    means = [(m["ood/svhn/AUROC/entropy"] + m["ood/cifar100/AUROC/entropy"]) / 2 for m in own]
    _, y, _, bar = of_method(figure, "search")
    assert y == pytest.approx(statistics.mean(means))
    assert bar[1][1] - bar[0][1] == pytest.approx(2 * statistics.stdev(means))
    label = figure.axes[0].get_ylabel()
    assert "predictive entropy" in label
    assert "svhn, cifar100" in label


def test_there_is_no_figure_of_nothing(made_up) -> None:
    assert ood_cost(made_up.rows, criterion="mi") is None


def test_one_point_has_a_figure_too(made_up) -> None:
    figure = nll_cost(made_up.rows[:1])
    assert [name.get_text() for name in written(figure, "name")] == ["dense (msp)"]


def test_figures_far_apart_get_a_logarithmic_axis(made_up) -> None:
    rows = copy.deepcopy(made_up.rows[:4])
    rows[0]["metrics"]["cls/NLL"] = 5.0
    assert nll_cost(rows).axes[0].get_yscale() == "log"
    assert nll_cost(made_up.rows[:4]).axes[0].get_yscale() == "linear"


figures = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=10)


@given(figures, st.booleans())
def test_the_front_is_what_no_point_dominates(points, lower) -> None:
    macs, values = (list(map(float, part)) for part in zip(*points, strict=True))
    sign = 1 if lower else -1
    costs = [(m, sign * v) for m, v in zip(macs, values, strict=True)]
    best = {a for a in costs if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in costs)}
    front = [costs[k] for k in front_of(macs, values, lower=lower)]
    assert front == sorted(best)
