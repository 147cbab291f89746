"""Reports as a browser shows them: Debian's Chromium, without a window."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from subnet_search.compare import CompareConfig
from subnet_search.report import write_compare_report, write_run_report
from subnet_search.run_folder import RunFolder

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
PHONE, DESK = (390, 844), (1280, 800)
VIEWS = [(PHONE, "light"), (PHONE, "dark"), (DESK, "light"), (DESK, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        where = CHROMIUM or playwright.chromium.executable_path
        if not Path(where).exists():
            pytest.skip("no browser is installed: apt-get install chromium, or python -m playwright install chromium")
        started = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])  # tests may run as root
        yield started
        started.close()


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory, made_up_comparison: Any) -> Path:
    """The report of a comparison of twenty methods, three of which are missing."""
    out = tmp_path_factory.mktemp("compare")
    missing = {"a": "budget 0.01 cannot be met with 3 members", "b_c_d_e": "no residual branches", "x+y": "a < b & c"}
    return write_compare_report(out, made_up_comparison.rows, made_up_comparison.curves, missing, CompareConfig())


@pytest.fixture(scope="session")
def reports(
    digits_run: RunFolder, made_up_run: Callable[..., RunFolder], compared: Path, made_up_study: Path
) -> dict[str, Path]:
    resnet = write_run_report(made_up_run("resnet20"))
    return {"digits": digits_run.report, "resnet20": resnet, "compare": compared, "study": made_up_study}


@pytest.fixture
def opened(browser, reports) -> Iterator[Callable[..., Any]]:
    """Opens a report and fails where it complains, or asks for anything but itself."""
    contexts = []

    def show(name: str, size: tuple[int, int], scheme: str) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(f"file://{reports[name]}")
        assert complaints == [f"file://{reports[name]}"]
        return page

    yield show
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["digits", "resnet20", "compare", "study"])
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_every_figure_is_there_readable_and_within_the_page(opened, reports, name, size, scheme) -> None:
    page = opened(name, size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    figures = page.evaluate(
        """[...document.querySelectorAll("figure")].map(figure => {
            const seen = [...figure.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width);
            const box = seen[0].getBoundingClientRect();
            const letters = [...seen[0].querySelectorAll("text")].map(text => {
                const scale = box.width / seen[0].viewBox.baseVal.width;
                return parseFloat(getComputedStyle(text).fontSize) * scale;
            });
            return {id: figure.id, seen: seen.length, left: box.left, right: box.right, height: box.height,
                    alt: seen[0].getAttribute("aria-label"), letters: Math.min(...letters),
                    words: figure.querySelector("figcaption").innerText};
        })"""
    )
    drawn = {path.stem for path in (reports[name].parent / "report").glob("*.svg")}
    assert {figure["id"] for figure in figures} == {f"figure-{stem}" for stem in drawn}
    assert drawn
    for figure in figures:
        assert figure["seen"] == 1  # the wide or the narrow one
        assert figure["left"] >= 0
        assert figure["right"] <= size[0]
        assert figure["height"] > 100
        assert figure["letters"] >= 8, figure["id"]
        assert len(figure["alt"]) > 30
        assert len(figure["words"]) > 30
    inside = page.evaluate(
        """[...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && !e.classList.contains("hidden")
            && getComputedStyle(e).display != "inline" && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 99))"""
    )
    assert inside == []


@pytest.mark.parametrize("name", ["digits", "resnet20", "compare", "study"])
@pytest.mark.parametrize(("size", "scheme"), VIEWS[::3])
def test_axe_finds_nothing(opened, name, size, scheme) -> None:
    page = opened(name, size, scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["help"], v["nodes"][0]["html"][:200]) for v in found] == []


@pytest.mark.parametrize("name", ["digits", "compare", "study"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_figures_can_be_told_from_what_is_behind_them(opened, name, scheme) -> None:
    """axe does not look into drawings; 4.5 is what WCAG 2 asks for text (AA)."""
    page = opened(name, DESK, scheme)
    page.evaluate(f"() => {{{CONTRAST}}}")
    found = page.evaluate(
        """[...document.querySelectorAll("figure")].flatMap(figure => {
            const svg = [...figure.querySelectorAll("svg")].find(svg => svg.getBoundingClientRect().width);
            const paper = figure.querySelector(".drawing");
            const card = channels(getComputedStyle(figure.matches(".paper") ? paper : figure).backgroundColor);
            return [...svg.querySelectorAll("text")].map(text => ({
                id: figure.id, words: text.textContent, contrast: contrast(channels(getComputedStyle(text).fill), card)}));
        })"""
    )
    assert len(found) > 20
    assert [text for text in found if text["contrast"] < 4.5] == []


CONTRAST = """
window.channels = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
window.luminance = colour => channels_linear(colour).reduce((sum, value, k) => sum + value * [0.2126, 0.7152, 0.0722][k], 0);
window.channels_linear = colour => colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
window.contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
};
"""


@pytest.mark.parametrize("name", ["digits", "compare", "study"])
def test_it_is_printed_in_the_light_and_loses_nothing_at_the_border(opened, name) -> None:
    page = opened(name, (718, 1000), "dark")  # what A4 leaves of 14 mm at each side
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(json.loads(f"[{ink[4:-1]}]")) < 64
    assert page.evaluate("[...document.querySelectorAll('figure')].every(f => f.getBoundingClientRect().height > 100)")
