import copy

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from subnet_search.errors import SubnetSearchError
from subnet_search.plots import reliability, risk_coverage
from subnet_search.plots.curves import curves_of, mean_risk, pooled_bins
from subnet_search.plots.risk_coverage import OTHERS, highlighted
from subnet_search.plots.summary import by_method


def line_with(bins: tuple[list, list, list], seed: int = 0) -> dict:
    return {
        "method": "m",
        "seed": seed,
        "reliability": dict(zip(("count", "confidence", "accuracy"), bins, strict=True)),
    }


def test_bins_are_weighted_with_their_samples() -> None:
    lines = [line_with(([0, 3, 0], [None, 0.5, None], [None, 1.0, None]))]
    lines += [line_with(([0, 1, 2], [None, 0.7, 0.9], [None, 0.0, 0.5]), 1)]
    count, confidence, accuracy = pooled_bins(lines)
    np.testing.assert_allclose(count, [0, 2, 1])
    np.testing.assert_allclose(confidence, [np.nan, 0.55, 0.9])
    np.testing.assert_allclose(accuracy, [np.nan, 0.75, 0.5])


def test_risks_are_averaged_on_equal_points_only() -> None:
    lines = [{"method": "m", "risk_coverage": {"coverage": [0.5, 1.0], "risk": [0.0, r]}} for r in (0.2, 0.4)]
    np.testing.assert_allclose(mean_risk(lines), [[0.5, 1.0], [0.0, 0.3]])
    lines[1]["risk_coverage"]["coverage"] = [1.0]
    with pytest.raises(SubnetSearchError, match="same test images"):
        mean_risk(lines)


def test_the_last_curve_of_a_seed_counts_and_those_of_other_rows_do_not(made_up) -> None:
    method = next(m for m in by_method(made_up.rows) if m.name == "search")
    own = [line for line in made_up.curves if line["method"] == "search"]
    again, stranger = {**own[0], "reliability": "again"}, {**own[0], "seed": 7}
    assert curves_of(method, [*made_up.curves, again, stranger]) == [again, *own[1:]]
    with pytest.raises(SubnetSearchError, match="curves of search have the settings digest, other"):
        curves_of(method, [*made_up.curves, {**own[0], "settings": "other"}])


def test_each_method_has_a_panel_with_its_bins_and_ece(made_up) -> None:
    figure = reliability(made_up.rows, made_up.curves, {"mimo+x": "no"})
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert list(panels) == [m.name for m in by_method(made_up.rows) if m.name != "bagging"]
    count, confidence, accuracy = pooled_bins([line for line in made_up.curves if line["method"] == "search"])
    search = panels["search"]
    np.testing.assert_allclose(search.collections[0].get_offsets(), np.stack([confidence, accuracy], axis=1)[count > 0])
    heights = np.array([bar.get_height() for bar in search.patches])
    np.testing.assert_allclose(heights / heights.sum(), count / count.sum())
    hollow = [to_hex(color) == "#ffffff" for color in search.collections[0].get_facecolors()]
    assert hollow == list(count[count > 0] < 10)
    (error,) = search.findobj(lambda artist: artist.get_gid() == "ECE")
    own = [row["metrics"]["cal/ECE"] for row in made_up.rows if row["method"] == "search"]
    assert error.get_text() == f"ECE {np.mean(own):.3f} ± {np.std(own, ddof=1):.3f}"
    (note,) = figure.findobj(lambda artist: artist.get_gid() == "note")
    assert "Not drawn, without a reliability curve: bagging." in note.get_text()
    assert "Could not be run: mimo+x." in note.get_text()


def test_curves_end_at_their_names_and_the_chosen_are_in_colour(made_up) -> None:
    figure = risk_coverage(made_up.rows, made_up.curves)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if line.get_label() != "_leader"}
    assert "bagging" not in lines
    own = [line for line in made_up.curves if line["method"] == "search"]
    np.testing.assert_allclose(lines["search"].get_data(), mean_risk(own))
    coloured = {name for name, line in lines.items() if line.get_color() != OTHERS}
    assert coloured == {"msp", "deep_ensemble", "deep_ensemble_finetuned", "search", "antirandom"}
    names = [text for text in axes.texts if text.get_gid() == "name"]
    assert len(names) == len(lines)
    assert any(name.get_text().startswith("antirandom") and "(best control)" in name.get_text() for name in names)
    boxes = [name.get_window_extent() for name in names]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_without_a_plain_search_the_best_searched_masks_are_chosen(made_up) -> None:
    methods = [m for m in by_method(made_up.rows) if m.name in ("search+core", "search+stochastic_depth")]
    assert highlighted(methods) == {"search+core": ""}


def test_error_rates_far_apart_get_a_square_root_axis(made_up) -> None:
    curves = copy.deepcopy(made_up.curves)
    curves[0]["risk_coverage"]["risk"] = [0.0] * 10
    axes = risk_coverage(made_up.rows, curves).axes[0]
    assert "square-root" in axes.get_ylabel()


@pytest.mark.parametrize("draw", [reliability, risk_coverage])
def test_no_text_of_curves_leaves_the_sheet_or_is_too_small(made_up, draw) -> None:
    figure = draw(made_up.rows, made_up.curves)
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert text.get_fontsize() >= 8
            assert min(box.min) >= 0, text
            assert box.x1 <= figure.bbox.width, text
            assert box.y1 <= figure.bbox.height, text


@pytest.mark.parametrize("draw", [reliability, risk_coverage])
def test_without_curves_there_is_no_figure(made_up, draw) -> None:
    assert draw(made_up.rows, []) is None
