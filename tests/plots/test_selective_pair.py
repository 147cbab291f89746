from subnet_search.plots.selective_pair import selective_pair


def test_both_curves_are_drawn_from_no_error_up() -> None:
    dense, ensemble = ([0.5, 1.0], [0.01, 0.1]), ([0.5, 1.0], [0.0, 0.05])
    axes = selective_pair(dense, ensemble).axes[0]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn == {"dense": dense, "ensemble": ensemble}
    assert axes.get_ylim() == (0, 1.05 * 0.1)
    assert axes.get_ylim()[0] == 0


def test_networks_without_errors_can_be_drawn() -> None:
    assert selective_pair(([1.0], [0.0]), ([1.0], [0.0])).axes[0].get_ylim()[1] > 0
