import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.tune.points import Point, Points, read_points


def point(number: int, values: tuple[float, ...], fidelity: float = 1.0, feasible: bool = True) -> Point:
    named = dict(zip(("nll", "ood_auroc"), values, strict=True))
    return Point(number, "search", fidelity, feasible, {}, named, {}, {}, None, None)


def points_of(found: list[Point]) -> Points:
    return Points("study", {"nll": True, "ood_auroc": False}, {}, {}, tuple(found), 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 1.0]), st.booleans())))
def test_the_front_is_what_no_other_trial_in_full_beats(trials) -> None:
    found = [point(k, (a, b), fidelity, feasible) for k, (a, b, fidelity, feasible) in enumerate(trials)]
    front = points_of(found).front()
    full = [p for p in found if p.fidelity == 1 and p.feasible]

    def beaten(p: Point) -> bool:
        worst = [(q.values["nll"] - p.values["nll"], p.values["ood_auroc"] - q.values["ood_auroc"]) for q in full]
        return any(max(differences) <= 0 > min(differences) for differences in worst)

    assert {p.number for p in front} == {p.number for p in full if not beaten(p)}
    assert [p.values["nll"] for p in front] == sorted(p.values["nll"] for p in front)


def test_a_study_is_read_with_everything_that_is_kept_of_it(made_up_study) -> None:
    study = made_up_study(16, max_macs=3.0)
    points = read_points(study)
    assert dict(points.lower) == {"nll": True, "error_correlation": True, "macs": True}
    assert [p.role for p in points.points[:3]] == ["default", "control", "search"]
    assert {p.number for p in points.full} == {
        t.number for t in study.trials if t.user_attrs["fidelity"] == 1 and t.values[2] <= 3
    }
    # the best trials of Optuna are the same, as it knows the constraints too
    assert {p.number for p in points.front()} == {t.number for t in study.best_trials}
    first = points.points[0]
    assert first.values == dict(zip(points.lower, study.trials[0].values, strict=True))
    assert first.artifact == "masks-of-0"
    np.testing.assert_array_equal(points.losses(points.points)[0], study.trials[0].values)


def test_trials_that_are_not_over_or_came_to_nothing_are_no_points(made_up_study) -> None:
    study = made_up_study(4)
    study.ask()
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"error": "cannot work"}))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"withdrawn": "too many"}))
    points = read_points(study)
    assert len(points.points) == 4
    assert points.failed == 1


def test_what_a_pruner_stopped_is_a_point_that_cannot_be_compared(made_up_study) -> None:
    study = made_up_study(4, objectives=("nll",))
    last = study.trials[-1]
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED,
            user_attrs={**last.user_attrs, "fidelity": 0.5, "rung_values": [[0.9], [0.7]]},
        )
    )
    found = read_points(study).points[-1]
    assert found.values == {"nll": 0.7}
    assert not found.full


def test_figures_go_by_the_names_of_objectives_and_of_metrics(made_up_study) -> None:
    points = read_points(made_up_study(2))
    metrics = points.points[0].metrics
    assert points.figure(metrics, "error") == pytest.approx(1 - metrics["cls/Acc"])
    assert points.figure(metrics, "cls/NLL") == points.figure(metrics, "nll") == metrics["cls/NLL"]
    assert points.figure(metrics, "ood_auroc") is None
    assert points.figure(points.dense, "error_correlation") is None


def test_studies_of_others_are_refused() -> None:
    study = optuna.create_study(study_name="theirs")
    with pytest.raises(SubnetSearchError, match="'theirs' has 1 objectives and says that they are None"):
        read_points(study)
    study.set_user_attr("objectives", ["nll"])
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(SubnetSearchError, match="trial 0 lacks settings, metrics, fidelity, rung_values"):
        read_points(study)


def test_what_a_trial_had_is_told_with_what_was_asked_for(lowered_study) -> None:
    for found in read_points(lowered_study).points:
        assert found.used == {**found.params, "budget": 0.25}
        words = {name: str(value) for name, value in found.params.items()}
        assert found.settings_in_words == {**words, "budget": f"0.25 ({found.params['budget']:.3g} asked)"}


def test_a_setting_that_was_had_as_asked_is_told_once(made_up_study) -> None:
    found = read_points(made_up_study(4)).points[2]
    assert found.used == found.params
    assert found.settings_in_words["budget"] == f"{found.params['budget']:.3g}"
