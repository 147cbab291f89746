from itertools import pairwise

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.plots.sheet import new_sheet, rendered_sheet, shortened, sparse


@given(st.integers(1, 99), st.integers(2, 20))
def test_names_that_fit_are_spread_over_the_axis(count, most) -> None:
    names = [f"name{k}" for k in range(count)]
    places, chosen = sparse(names, most)
    assert chosen == [names[place] for place in places]
    assert len(places) == min(count, most)
    assert (places[0], places[-1]) == (0, count - 1)
    steps = {after - before for before, after in pairwise(places)}
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("text", "expected"), [("short", "short"), ("exactly10!", "exactly10!"), ("much too long", "much too …")]
)
def test_long_texts_are_cut(text, expected) -> None:
    assert shortened(text, 10) == expected


def test_a_sheet_keeps_text_as_text_whatever_the_callers_settings() -> None:
    figure = new_sheet(1.0)
    figure.text(0.1, 0.5, "$5 & more")
    with mpl.rc_context({"svg.fonttype": "path", "savefig.bbox": "tight"}):
        text = rendered_sheet(figure, "svg").decode()
    assert "$5 &amp; more" in text
    assert rendered_sheet(figure, "svg").decode() == text
    assert rendered_sheet(figure, "png").startswith(b"\x89PNG")
