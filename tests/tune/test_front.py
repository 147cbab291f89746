import csv
import json

import numpy as np
import optuna
import pytest
from PIL import Image

from subnet_search.settings import RunConfig, from_dict
from subnet_search.tune.front import write_front
from subnet_search.tune.hypervolume import hypervolume
from subnet_search.tune.pictures import drawn_objectives
from subnet_search.tune.points import read_points
from subnet_search.tune.reference import reference_of


def test_the_front_is_written_as_a_table_and_with_all_that_is_known(made_up_study, tmp_path) -> None:
    study = made_up_study(32, max_macs=3.0)
    front = write_front(study, tmp_path)
    best = sorted(study.best_trials, key=lambda trial: trial.values[0])
    content = json.loads((tmp_path / "front.json").read_text())
    assert [entry["trial"] for entry in content["front"]] == [trial.number for trial in best]
    assert content["objectives"] == {"nll": "minimize", "error_correlation": "minimize", "macs": "minimize"}
    assert sum(content["trials"][kind] for kind in ("full", "stopped_early", "infeasible")) == 32
    for entry, trial in zip(content["front"], best, strict=True):
        assert list(entry["values"].values()) == trial.values
        assert entry["params"] == trial.params
        assert entry["metrics"] == trial.user_attrs["metrics"]
        assert entry["artifact"] == f"masks-of-{trial.number}"
        assert isinstance(from_dict(RunConfig, entry["settings"], "settings"), RunConfig)
    with (tmp_path / "front.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["trial"]) for line in lines] == [trial.number for trial in best]
    assert [float(line["nll"]) for line in lines] == [trial.values[0] for trial in best]
    assert [line["params/algorithm"] for line in lines] == [trial.params["algorithm"] for trial in best]
    assert {line["cls/NLL_TS"] for line in lines} == {""}  # absent
    assert set(front.files) == {path for path in tmp_path.rglob("*") if path.is_file()}


def test_the_table_has_the_settings_that_trials_had(lowered_study, tmp_path) -> None:
    front = write_front(lowered_study, tmp_path).front
    with (tmp_path / "front.csv").open(newline="") as file:
        assert {line["params/budget"] for line in csv.DictReader(file)} == {"0.25"}
    for entry, point in zip(json.loads((tmp_path / "front.json").read_text())["front"], front, strict=True):
        assert entry["params"]["budget"] == 0.25
        assert entry["asked"] == point.params


def test_the_pictures_are_drawn_and_the_same_again(made_up_study, tmp_path) -> None:
    study = made_up_study(16)
    written = write_front(study, tmp_path).files
    files = {path: path.read_bytes() for path in written if path.name != "dashboard.log"}  # which has dates
    assert {path.name for path in files} == {
        "front.csv", "front.json", "front.svg", "front.png", "hypervolume.svg", "hypervolume.png"
    }  # fmt: skip
    with Image.open(tmp_path / "figures" / "front.png") as picture:
        assert picture.width == 1400
    write_front(study, tmp_path)
    assert {path: path.read_bytes() for path in files} == files


def test_a_study_of_one_objective_has_a_best_trial_and_no_plane(made_up_study, tmp_path) -> None:
    study = made_up_study(12, objectives=("nll",))
    front = write_front(study, tmp_path)
    assert [point.number for point in front.front] == [study.best_trial.number]
    assert not (tmp_path / "figures" / "front.svg").exists()
    assert (tmp_path / "figures" / "hypervolume.svg").exists()


def test_a_study_without_trials_has_an_empty_front(made_up_study, tmp_path) -> None:
    front = write_front(made_up_study(0), tmp_path)
    assert front.front == ()
    assert {path.name for path in front.files} == {"front.csv", "front.json", "dashboard.log"}
    assert json.loads((tmp_path / "front.json").read_text())["hypervolume"]["value"] == 0


def test_hypervolumes_are_shares_of_a_box_that_the_default_fixes(made_up_study) -> None:
    few, many = read_points(made_up_study(4)), read_points(made_up_study(60))
    reference = reference_of(many)
    assert reference == reference_of(few)
    default = many.points[0].values
    wanted = {"nll": 2 * default["nll"], "error_correlation": 1.0, "macs": 1.1 * 4.0}
    assert reference.worst == pytest.approx(wanted)
    volumes = reference.volumes(many)
    assert len(volumes) == 60
    assert volumes[:4] == reference.volumes(few)
    assert volumes[0] == pytest.approx(0.5 * (1 - default["error_correlation"]) * (1 - default["macs"] / 4.4))
    box = np.array(list(reference.worst.values()))
    assert volumes[-1] == pytest.approx(hypervolume(many.losses(many.full), box) / box.prod())


def test_the_reference_follows_the_limit_of_the_study_and_its_objectives(made_up_study) -> None:
    assert reference_of(read_points(made_up_study(2, max_macs=2.0))).worst["macs"] == pytest.approx(2.2)
    points = read_points(made_up_study(2, objectives=("ece", "mask_iou", "error")))
    default = points.points[0].values
    wanted = {"ece": 2 * default["ece"], "mask_iou": 1.0, "error": 2 * default["error"]}
    assert reference_of(points).worst == pytest.approx(wanted)
    unfinished = read_points(made_up_study(0, objectives=("ece",)))
    assert reference_of(unfinished).worst == {"ece": 0.1}  # the dense network's


def test_the_cost_is_drawn_across() -> None:
    assert drawn_objectives(("nll", "error_correlation", "macs")) == ("macs", "nll", "error_correlation")
    assert drawn_objectives(("nll", "ece")) == ("ece", "nll")
    assert drawn_objectives(("error", "macs", "ece", "nll")) == ("macs", "error", "ece")
    assert drawn_objectives(("nll",)) == ("nll",)


def test_enqueued_trials_that_are_unfinished_do_not_matter(made_up_study, tmp_path) -> None:
    study = made_up_study(6)
    study.enqueue_trial({"members": 4})
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"error": "too thin"}))
    write_front(study, tmp_path)
    assert json.loads((tmp_path / "front.json").read_text())["trials"]["failed"] == 1
