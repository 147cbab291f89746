import re

import pytest
from matplotlib.figure import Figure

from subnet_search.plots.sheet import rendered_sheet
from subnet_search.report.inline_svg import inline_svg


@pytest.fixture
def drawn() -> bytes:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.plot([0, 1], [0, 1], marker="o", color="#D55E00")
    axes.imshow([[0, 1], [1, 0]], extent=(0, 1, 0, 1))
    axes.set_title("<b> & 'quotes'")
    return rendered_sheet(figure, "svg")


def test_it_needs_nothing_from_outside(drawn) -> None:
    text = inline_svg(drawn, "one", "what it says")
    assert text.startswith("<svg ")
    assert "<?xml" not in text
    assert "DOCTYPE" not in text
    assert "<style" not in text
    assert "metadata" not in text
    references = re.findall(r'href="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert references
    assert all(reference.startswith(("#one-", "data:image/png;base64,")) for reference in references)


def test_two_figures_on_a_page_have_no_id_in_common(drawn) -> None:
    ids = [set(re.findall(r' id="([^"]*)"', inline_svg(drawn, name, "words"))) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]
    text = inline_svg(drawn, "one", "words")
    for reference in re.findall(r'href="#([^"]*)"', text) + re.findall(r"url\(#([^)]*)\)", text):
        assert reference in ids[0]


def test_words_are_escaped_and_colours_those_of_the_page(drawn) -> None:
    text = inline_svg(drawn, "one", 'a "quoted" <alt> & more')
    assert 'role="img" aria-label="a &#34;quoted&#34; &lt;alt&gt; &amp; more"' in text
    assert "&lt;b&gt; &amp; 'quotes'" in text
    assert "var(--f-d55e00)" in text
    assert "#d55e00" not in text.lower()
