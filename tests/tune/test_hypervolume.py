import itertools

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from subnet_search.errors import SubnetSearchError
from subnet_search.tune.hypervolume import hypervolume, hypervolume_history


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """The naive twin: volumes of the points' boxes, minus those of the intersections of two, plus those of three, …"""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total += (-1) ** (size + 1) * float(np.maximum(reference - np.max(chosen, axis=0), 0).prod())
    return total


def test_of_boxes_by_hand() -> None:
    reference = np.array([4.0, 4.0])
    assert hypervolume(np.array([[1.0, 1.0]]), reference) == 9
    assert hypervolume(np.array([[1.0, 3.0], [3.0, 1.0]]), reference) == 3 + 3 - 1
    assert hypervolume(np.array([[1.0, 4.0], [5.0, 0.0]]), reference) == 0  # not below the reference in both
    assert hypervolume(np.empty((0, 2)), reference) == 0
    assert hypervolume(np.array([[2.0], [3.0]]), np.array([4.0])) == 2


@given(st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[st.integers(-2, 5)] * m), min_size=1, max_size=6)))
def test_agrees_with_inclusion_and_exclusion(points: list[tuple[int, ...]]) -> None:
    matrix = np.array(points, dtype=float)
    reference = np.full(matrix.shape[1], 4.0)
    assert hypervolume(matrix, reference) == pytest.approx(by_inclusion_and_exclusion(matrix, reference))


@given(st.lists(st.one_of(st.none(), st.tuples(*[st.integers(0, 5)] * 3)), max_size=8))
def test_the_history_is_the_volume_of_what_is_there_so_far(trials: list[tuple[int, ...] | None]) -> None:
    points = [None if trial is None else np.array(trial, dtype=float) for trial in trials]
    reference = np.full(3, 4.0)
    history = hypervolume_history(points, reference)
    for k, volume in enumerate(history):
        known = [point for point in points[: k + 1] if point is not None]
        assert volume == pytest.approx(hypervolume(np.array(known).reshape(-1, 3), reference))
    assert len(history) == len(trials)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("directions", [("minimize", "maximize"), ("minimize", "minimize", "maximize")])
def test_agrees_with_what_optuna_draws(directions: tuple[str, ...]) -> None:
    study = optuna.create_study(directions=directions)
    draw = np.random.default_rng(0)
    for number in range(40):
        study.add_trial(
            optuna.trial.create_trial(
                values=list(draw.uniform(0, 1.2, len(directions))), constraints={"fidelity": float(number % 4 - 2)}
            )
        )
    signs = np.array([1 if direction == "minimize" else -1 for direction in directions])
    reference = np.where(signs > 0, 1.0, 0.1)
    with plt.style.context("default"):
        axes = optuna.visualization.matplotlib.plot_hypervolume_history(study, list(reference))
    drawn = axes.lines[0].get_ydata()
    plt.close(axes.figure)
    feasible = [
        signs * np.array(trial.values) if trial.constraints["fidelity"] <= 0 else None for trial in study.trials
    ]
    np.testing.assert_allclose(hypervolume_history(feasible, signs * reference), drawn)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"points of shape \(2, 2\) and a reference of shape \(3,\)"):
        hypervolume(np.zeros((2, 2)), np.ones(3))
    with pytest.raises(SubnetSearchError, match="not finite"):
        hypervolume(np.array([[np.nan, 0.0]]), np.ones(2))
