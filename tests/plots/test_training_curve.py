import pytest

from subnet_search.plots.training_curve import training_curve


@pytest.mark.parametrize("losses", [(0.5,), (2.0, 1.0, 0.5), (0.1, -0.2)])
def test_there_is_a_point_for_each_epoch(losses) -> None:
    axes = training_curve(losses).axes[0]
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(range(1, len(losses) + 1))
    assert list(line.get_ydata()) == list(losses)
    assert axes.get_ylim()[0] <= min(0, *losses)


def test_epochs_are_whole_numbers() -> None:
    axes = training_curve((0.5,)).axes[0]
    assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
