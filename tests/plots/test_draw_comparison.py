import io
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from subnet_search.errors import SubnetSearchError
from subnet_search.plots import draw_comparison

NAMES = ("nll_cost", "ood_cost", "reliability", "risk_coverage")


@pytest.fixture
def few(made_up):
    """Rows and curves of three methods."""
    wanted = ("msp", "random", "search")
    return tuple([line for line in lines if line["method"] in wanted] for lines in (made_up.rows, made_up.curves))


def test_every_figure_is_a_valid_svg_and_png_and_the_same_again(few, tmp_path) -> None:
    before = dict(mpl.rcParams)
    files = draw_comparison(*few, tmp_path / "figures")
    assert files == [tmp_path / "figures" / f"{name}.{kind}" for name in NAMES for kind in ("svg", "png")]
    assert sorted(files) == sorted((tmp_path / "figures").iterdir())
    for path in files:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
            assert "<dc:date>" not in path.read_text()
        else:
            picture = Image.open(io.BytesIO(path.read_bytes()))
            assert picture.width == 1400
            assert np.asarray(picture).std() > 5
    content = [path.read_bytes() for path in files]
    with mpl.rc_context({"font.size": 20, "savefig.bbox": "tight"}):  # not the caller's settings
        draw_comparison(*few, tmp_path / "figures")
    assert [path.read_bytes() for path in files] == content
    assert dict(mpl.rcParams) == before


def test_what_nobody_has_is_not_drawn(few, tmp_path) -> None:
    rows, _ = few
    rows = [{**row, "metrics": {k: v for k, v in row["metrics"].items() if "ood" not in k}} for row in rows]
    assert draw_comparison(rows, [], tmp_path) == [tmp_path / "nll_cost.svg", tmp_path / "nll_cost.png"]


def test_nothing_is_written_where_something_is_wrong(few, tmp_path) -> None:
    rows, curves = few
    with pytest.raises(SubnetSearchError, match="curves of search"):
        draw_comparison(rows, [*curves, {**curves[-1], "settings": "other"}], tmp_path / "figures")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SubnetSearchError, match="found a file, expected a folder"):
        draw_comparison(rows, curves, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
