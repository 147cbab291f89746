import datetime
import json
from pathlib import Path

import optuna
import pytest

from benchmarks import rows, tune, tune_speed
from subnet_search.tune.points import read_points


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """An empty place for rows, figures and runs."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(tune, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(tune, "FIGURES", tmp_path / "figures")
    return tmp_path


def test_a_study_is_known_from_its_rows(made_up_study, results) -> None:
    study = made_up_study(20, out=results / "runs" / "digits-tpe-1-0")
    tune.record(study)
    points = read_points(study)
    (found,) = tune.studies().values()
    assert [(p.number, p.values, p.params, p.role, p.full) for p in found.points] == [
        (p.number, p.values, p.params, p.role, p.full) for p in points.points
    ]
    assert [p.number for p in found.front()] == [p.number for p in points.front()]
    assert (found.lower, found.dense, found.failed) == (points.lower, points.dense, 0)
    assert str(results) not in (results / "tune_studies.jsonl").read_text()


def test_a_trial_gets_one_row_however_often_the_study_is_taken_up(made_up_study, results) -> None:
    study = made_up_study(6, out=Path("runs/digits-tpe-1-0"))
    tune.record(study)
    before = (results / "tune.jsonl").read_text(), (results / "tune_studies.jsonl").read_text()
    tune.record(study)
    assert ((results / "tune.jsonl").read_text(), (results / "tune_studies.jsonl").read_text()) == before
    longer = made_up_study(9, out=Path("runs/digits-tpe-1-0"))
    tune.record(longer)
    assert [row["trial"] for row in rows.read("tune")] == list(range(9))
    for row in rows.read("tune"):
        assert {"values", "metrics", "params", "fidelity", "seconds", "commit", "versions", "device"} <= set(row)


@pytest.mark.usefixtures("results")
def test_the_table_says_what_beats_the_defaults(made_up_study) -> None:
    study = made_up_study(60, out=Path("runs/digits-tpe-1-0"))
    tune.record(study)
    points = read_points(study)
    default = points.points[0]
    beating = tune.beating(points, default)
    for point in beating:
        assert all(point.values[name] <= default.values[name] for name in points.lower)
    assert {p.number for p in points.full} - {p.number for p in beating} >= {default.number}
    best = tune.closest_to_all(points, default)

    def least(point) -> float:
        return min((default.values[n] - point.values[n]) / default.values[n] for n in points.lower)

    assert least(best) == max(least(point) for point in beating)
    _, _, first, second = tune.table().splitlines()
    assert f"| default | {default.values['nll']:.3f} |" in first
    assert f"| trial {best.number}, of {len(beating)} |" in first
    assert second.startswith("|  |  |  |  |  |  | control |")
    assert "| nothing |" in second


def test_studies_of_one_job_are_drawn_together_and_measured_from_one_reference(made_up_study, results) -> None:
    for sampler, trials in (("tpe", 24), ("random", 16)):
        tune.record(made_up_study(trials, out=Path(f"runs/digits-{sampler}-1-0")))
    tune.record(made_up_study(4, out=Path("runs/digits-tpe-2-0")))
    tune.draw()
    assert {path.name for path in (results / "figures").glob("*.svg")} == {
        "front-digits-tpe-1-0.svg", "front-digits-random-1-0.svg", "front-digits-tpe-2-0.svg",
        "hypervolume-digits-1.svg", "hypervolume-digits-2.svg",
    }  # fmt: skip
    known = tune.studies()
    assert tune._first(known, "digits-random-1-0").study == "digits-tpe-1-0"
    assert tune._first(known, "digits-tpe-2-0").study == "digits-tpe-2-0"


def test_without_rows_the_tables_are_empty_and_nothing_is_drawn(results) -> None:
    assert [len(table().splitlines()) for table in (tune.table, tune.confirm_table, tune_speed.table)] == [2, 2, 2]
    tune.draw()
    assert list(results.iterdir()) == []


def test_the_benchmark_runs_and_is_taken_up_on_digits(results, monkeypatch) -> None:
    monkeypatch.setattr(tune, "closest_to_all", lambda points, _: points.points[1])  # three trials may not have one
    grid = tune.Grid(network="digits", samplers=("random",), trials=3, epochs=1, confirm=True, confirm_seeds=(7,))
    tune.main(grid)
    assert [row["role"] for row in rows.read("tune")] == ["default", "control", "search"]
    (study,) = rows.read("tune_studies")
    assert 0 < study["overhead"] < 1
    confirmed = rows.read("tune_confirm")
    assert [(row["trial"], row["seed"], row["role"]) for row in confirmed] == [(0, 7, "default"), (1, 7, "control")]
    before = {path.name: path.read_text() for path in results.glob("*.jsonl")}
    tune.main(grid)  # all of it is there
    assert {path.name: path.read_text() for path in results.glob("*.jsonl")} == before
    for text in before.values():
        assert str(results) not in text
        assert [json.loads(line) for line in text.splitlines()]
    assert [line.split(" | ")[1] for line in tune.confirm_table().splitlines()[2:]] == ["default", "trial 1"]


def test_overhead_is_the_time_in_which_nothing_was_done_that_a_run_does() -> None:
    begin = datetime.datetime(2026, 1, 1)
    trials = []
    for number in range(3):  # each takes 10 s, of which 9 are work, and 2 s pass before the next one
        trial = optuna.trial.create_trial(value=0.0, user_attrs={"stages": {"finetune": 8.0, "evaluate": 1.0}})
        trial.datetime_start = begin + datetime.timedelta(seconds=12 * number)
        trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=10)
        trials.append(trial)
    assert tune_speed.overhead(trials) == pytest.approx(1 - 27 / 34)


@pytest.mark.usefixtures("results")
def test_the_table_of_speed_has_the_medians() -> None:
    rows.append(
        "tune_speed",
        {
            "trials": 32,
            "seconds": {"1": [100.0, 90.0, 200.0], "2": [50.0, 52.0, 60.0]},
            "speedup": 100 / 52,
            "overhead": [0.01, 0.03, 0.02],
            "load_before": 0.123,
            "device": "cpu: EPYC, 1 threads",
            "cores": 2,
        },
    )
    assert tune_speed.table().splitlines()[-1] == "| 32 | 100 | 52 | 1.92 | 2.0 % | 0.1 | cpu: EPYC, 2 cores |"
