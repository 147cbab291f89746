import pytest

from subnet_search.plots.layer_cost import BARS, LayerBars, layer_cost


@pytest.mark.parametrize(
    ("unit", "words"), [(1e9, "billion MACs"), (1e6, "million MACs"), (1e3, "thousand MACs"), (1, "MACs")]
)
def test_costs_are_in_a_unit_that_suits_them(unit, words) -> None:
    layers = [LayerBars("a", int(100 * unit), 50.0 * unit, int(200 * unit)), LayerBars("b", 0, 0.0, 0)]
    axes = layer_cost(layers).axes[0]
    assert axes.get_ylabel() == words
    assert [bar.get_height() for bar in axes.patches[:4]] == [100.0, 0.0, 50.0, 0.0]
    assert axes.get_ylim()[1] == pytest.approx(210)


def test_many_layers_are_steps() -> None:
    few, many = ([LayerBars(f"l{k}", 10, 5.0, 20) for k in range(count)] for count in (BARS, BARS + 1))
    assert len(layer_cost(few).axes[0].patches) == 2 * BARS + 1
    steps = layer_cost(many).axes[0].patches
    assert [step.get_data().values.tolist() for step in steps] == [[10.0] * 25, [5.0] * 25, [20.0] * 25]
    (legend,) = layer_cost(many).legends
    assert {text.get_text() for text in legend.get_texts()} == {"dense", "one member", "all members together"}
