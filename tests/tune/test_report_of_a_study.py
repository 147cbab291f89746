import csv

from subnet_search.tune.config import TuneConfig
from subnet_search.tune.front import write_front
from subnet_search.tune.report import report_front


def test_the_front_is_reported_with_its_data(made_up_study, tmp_path) -> None:
    study = made_up_study(40, out=tmp_path)
    front = write_front(study, tmp_path)
    page = report_front(front, TuneConfig(out=tmp_path))
    text = page.read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert page == tmp_path / "report.html"
    assert f"{len(front.front)} of {len(front.points.full)} trials in full are beaten by no other" in text
    assert f"{100 * front.volumes[-1]:.0f} % of what could be had" in text
    names = {path.name for path in (tmp_path / "report").iterdir()}
    drawn = {f"{name}.{kind}" for name in ("front", "hypervolume") for kind in ("svg", "png", "csv")}
    assert drawn <= names
    assert "front-trials.csv" in names
    with (tmp_path / "report" / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["trial"]) for row in rows if row["front"] == "1"} == {point.number for point in front.front}
    assert {int(row["trial"]): float(row["nll"]) for row in rows} == {
        p.number: p.values["nll"] for p in front.points.full
    }
    for point in front.front:
        assert f'<th scope="row">{point.number}' in text
    best = min(front.front, key=lambda point: point.values["macs"])
    assert f"{best.values['macs']:.2f} ×" in text
    assert f"trial {best.number}" in text


def test_the_trials_of_the_front_are_told_in_words_on_the_page_and_as_numbers_beside_it(
    lowered_study, tmp_path
) -> None:
    front = write_front(lowered_study, tmp_path)
    page = report_front(front, TuneConfig(out=tmp_path))
    with (tmp_path / "report" / "front-trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "trial",
        "role",
        *front.points.lower,
        *(f"params/{name}" for name in front.front[0].params),
    ]
    for row, point in zip(rows, front.front, strict=True):
        assert (int(row["trial"]), row["role"]) == (point.number, point.role)
        assert {name: float(row[name]) for name in point.values} == point.values
        assert row["params/budget"] == "0.25"
        assert f"budget=0.25 ({point.params['budget']:.3g} asked)" in page.read_text()


def test_the_address_of_a_database_is_not_told(made_up_study, tmp_path) -> None:
    secret = "postgresql+psycopg://me:secret@host/base"
    page = report_front(write_front(made_up_study(12), tmp_path), TuneConfig(out=tmp_path, storage=secret))
    text = page.read_text()
    assert "secret" not in text
    assert "give its address with --storage" in text


def test_a_study_without_trials_says_so(made_up_study, tmp_path) -> None:
    page = report_front(write_front(made_up_study(0), tmp_path), TuneConfig(out=tmp_path))
    text = page.read_text()
    assert "No trial has been trained in full yet" in text
    assert "<figure" not in text
    assert "too few: 0 trials in full" in text
