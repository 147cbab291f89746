from dataclasses import replace

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.tune.pick import choose, settings_of_run
from subnet_search.tune.points import read_points


@pytest.fixture
def points(made_up_study):
    return read_points(made_up_study(64))


def test_the_best_of_those_that_meet_the_conditions_is_chosen(points) -> None:
    chosen = choose(points, "macs<=1.5")
    meeting = [p for p in points.full if p.values["macs"] <= 1.5]
    assert chosen.values["nll"] == min(p.values["nll"] for p in meeting)
    assert chosen in points.front()


def test_an_objective_that_is_named_counts_first(points) -> None:
    chosen = choose(points, "nll<=0.32,macs")
    assert chosen.values["macs"] == min(p.values["macs"] for p in points.full if p.values["nll"] <= 0.32)
    assert chosen in points.front()
    assert choose(points, "error_correlation") == min(points.full, key=lambda p: p.values["error_correlation"])


def test_conditions_on_metrics_and_on_other_objectives_count_too(points) -> None:
    figures = {p.number: p.metrics["cal/ECE"] for p in points.full}
    bound = sorted(figures.values())[2]
    best = min((p for p in points.full if figures[p.number] <= bound), key=lambda p: p.values["nll"])
    assert choose(points, f"cal/ECE<={bound}") == choose(points, f"ece<={bound}") == best


def test_trials_that_stopped_early_are_never_chosen(points) -> None:
    early = next(p for p in points.points if not p.full)
    perfect = replace(early, values=dict.fromkeys(points.lower, 0.0))
    assert choose(replace(points, points=(perfect, *points.points)), "macs").full


def test_the_nearest_is_named_where_nothing_meets_the_conditions(points) -> None:
    with pytest.raises(
        SubnetSearchError, match=r"none of the 18 trials in full meets this; the nearest is trial \d+: nll"
    ) as raised:
        choose(points, "nll<=0.25,macs<=0.8")
    words = str(raised.value)
    number = int(words.split("nearest is trial ")[1].split(":")[0])
    spans = [max(c) - min(c) for c in zip(*((p.values["nll"], p.values["macs"]) for p in points.full), strict=True)]
    distances = {
        p.number: max(0, p.values["nll"] - 0.25) / spans[0] + max(0, p.values["macs"] - 0.8) / spans[1]
        for p in points.full
    }
    assert distances[number] == min(distances.values())
    assert "too high" in words
    assert "There are nll from" in words


@pytest.mark.parametrize(
    ("prefer", "words"),
    [
        (
            "cls/NLL_TS<=0.3",
            "no trial has a figure cls/NLL_TS on the validation images; expected one of nll, error, ece",
        ),
        ("ood_auroc>=0.9", "no trial has a figure ood_auroc"),
        ("price<=1", "nothing is called 'price'"),
    ],
)
def test_what_nobody_has_is_explained(points, prefer: str, words: str) -> None:
    with pytest.raises(SubnetSearchError, match=words):
        choose(points, prefer)


def test_without_a_trial_in_full_there_is_nothing_to_choose(made_up_study) -> None:
    with pytest.raises(SubnetSearchError, match="no trial that was trained in full yet"):
        choose(read_points(made_up_study(0)), "nll")


def test_the_run_has_the_settings_of_the_trial(points, tmp_path) -> None:
    chosen = choose(points, "macs<=1.5")
    config = settings_of_run(chosen, tmp_path)
    assert config.out == tmp_path
    assert config.members == chosen.params["members"]
    assert config.budget.budget == chosen.params["budget"]
    assert config.search.algorithm == chosen.params["algorithm"]
