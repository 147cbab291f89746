import numpy as np

from subnet_search.plots.reliability_pair import reliability_pair


def test_both_networks_have_a_panel_of_their_bins() -> None:
    nan = float("nan")
    dense = (np.array([0.0, 5.0, 95.0]), np.array([nan, 0.5, 0.9]), np.array([nan, 0.4, 0.8]))
    ensemble = (np.array([50.0, 0.0, 50.0]), np.array([0.3, nan, 0.9]), np.array([0.3, nan, 1.0]))
    figure = reliability_pair(dense, ensemble)
    assert [axes.get_title("left") for axes in figure.axes] == ["dense", "ensemble"]
    for axes, bins in zip(figure.axes, (dense, ensemble), strict=True):
        dots = axes.collections[0].get_offsets()
        known = bins[0] > 0
        np.testing.assert_allclose(dots, np.column_stack([bins[1][known], bins[2][known]]))
        heights = np.array([bar.get_height() for bar in axes.patches])
        np.testing.assert_allclose(heights / heights.max(), bins[0] / bins[0].max())
    assert figure.axes[0].patches[2].get_height() > figure.axes[1].patches[2].get_height()  # one scale for both
