import math

import numpy as np
import pytest

from subnet_search.plots.doubt_histogram import DECADES, STEPS, doubt_bins, doubt_histogram, doubt_shares


def test_every_value_is_in_one_bin() -> None:
    borders = doubt_bins(math.log(4))
    assert len(borders) == DECADES * STEPS + 1
    assert borders[-1] == pytest.approx(math.log(4))
    np.testing.assert_allclose(np.diff(np.log10(borders)), 1 / STEPS)
    shares = doubt_shares(np.array([0.0, 1e-9, 0.01, math.log(4), 2.0]), borders)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares[0], shares[-1]) == (pytest.approx(0.4), pytest.approx(0.4))


def test_test_images_and_all_foreign_sets_are_drawn() -> None:
    borders = doubt_bins(1.0)
    outside = {f"set{k}": np.full(10, 0.5) for k in range(7)}
    figure = doubt_histogram(np.full(10, 1e-3), outside, borders)
    steps = figure.axes[0].patches
    assert len(steps) == 2 + 7  # the test images are filled, too
    for step in steps:
        assert step.get_data().values.sum() == pytest.approx(1.0)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["test images", *(f"set{k} (foreign)" for k in range(7))]
    looks = {(step.get_edgecolor(), step.get_linestyle()) for step in steps[2:]}
    assert len(looks) == 7
