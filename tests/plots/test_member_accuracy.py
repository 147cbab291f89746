import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from subnet_search.plots.member_accuracy import interval, member_accuracy


def test_every_network_has_its_dot_and_number() -> None:
    axes = member_accuracy(0.9, 0.85, [0.8, 0.82], 100).axes[0]
    dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [0.9, 0.85, 0.8, 0.82]
    assert [text.get_text() for text in axes.texts] == ["90.00 %", "85.00 %", "80.00 %", "82.00 %"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ensemble", "dense", "member 1", "member 2"]
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
    assert [tuple(bar) for bar in bars] == [interval(value, 100) for value in dots]


@given(st.integers(1, 500), st.data())
def test_intervals_are_those_of_wilson(samples, data) -> None:
    right = data.draw(st.integers(0, samples))
    expected = binomtest(right, samples).proportion_ci(0.95, method="wilson")
    assert interval(right / samples, samples) == pytest.approx((expected.low, expected.high), abs=1e-4)
