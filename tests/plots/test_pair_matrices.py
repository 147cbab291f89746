import numpy as np
import pytest
from matplotlib.patches import Rectangle

from subnet_search.plots.pair_matrices import STRENGTH, Matrix, pair_matrices


def test_numbers_and_strengths_are_those_of_the_pairs() -> None:
    values = np.array([[1.0, 0.25, np.nan], [0.25, 1.0, -0.1], [np.nan, -0.1, 1.0]])
    figure = pair_matrices([Matrix("one", values), Matrix("other", np.ones((3, 3)))])
    axes = figure.axes[0]
    words = {text.get_position(): text.get_text() for text in axes.texts}
    assert words == {
        (1.5, 0.5): "0.25", (2.5, 0.5): "–", (0.5, 1.5): "0.25", (2.5, 1.5): "-0.10", (0.5, 2.5): "–", (1.5, 2.5): "-0.10",
    }  # fmt: skip
    cells = {patch.get_xy(): patch.get_alpha() for patch in axes.patches if isinstance(patch, Rectangle)}
    assert cells[1, 0] == pytest.approx(0.25 * STRENGTH)
    assert cells[0, 0] == cells[2, 0] == cells[2, 1] == 0  # itself, unknown, negative
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert figure.axes[1].get_title("left") == "other"


def test_many_members_get_colours_without_numbers() -> None:
    axes = pair_matrices([Matrix("one", np.full((20, 20), 0.5))]).axes[0]
    assert not axes.texts
    assert len(axes.patches) == 400
    assert len(axes.get_xticks()) < 10
