import numpy as np
from matplotlib.colors import to_rgb

from subnet_search.plots.mask_map import ALL, ALONE, SOME, GroupMap, mask_map


def colour(text: str) -> list[int]:
    return [round(255 * value) for value in to_rgb(text)]


def test_cells_say_to_how_many_members_a_channel_belongs() -> None:
    kept = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=bool)
    figure = mask_map([GroupMap("conv1", kept), GroupMap("a_layer_with_a_very_long_name_indeed.conv", ~kept)])
    first, second = figure.axes
    cells = first.images[0].get_array()
    assert cells.shape == (3, 4, 4)
    assert np.array_equal(cells[..., 3] > 0, kept)
    shown = {(row, column): cells[row, column, :3].tolist() for row, column in np.argwhere(kept)}
    expected = {0: colour(ALL), 1: colour(SOME), 2: colour(ALONE)}
    assert all(value == expected[column] for (_, column), value in shown.items())
    assert first.get_title("left") == "conv1 · 4 channels"
    assert second.get_title("left").endswith("… · 4 channels")
    assert first.get_position().y0 > second.get_position().y1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["kept by all", "by several", "by one alone", "cut"]


def test_more_members_make_higher_maps() -> None:
    def height(members: int) -> float:
        return float(mask_map([GroupMap("a", np.ones((members, 5), dtype=bool))]).get_size_inches()[1])

    assert height(2) == height(1)
    assert height(16) > height(4) + 1
