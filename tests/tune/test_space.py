"""From what a sampler chooses to the settings of a run."""

from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.inputs import example_of
from subnet_search.search import SCORE_DRIVEN, BudgetConfig, SearchConfig
from subnet_search.settings import RunConfig
from subnet_search.tune.space import STAGES, SpaceConfig, dimensions, enqueued, suggest


@pytest.fixture(scope="module")
def graph(network, few) -> GroupGraph:
    return find_groups(network.model, example_of(few.train, network.card))


def test_everything_that_was_chosen_is_a_setting_of_the_run(graph) -> None:
    run = RunConfig()
    chosen = {
        "algorithm": "flow", "members": 3, "budget": 1.5, "depth": True, "trunk": 0.25, "lambda_overlap": 7.0,
        "criterion": "ig", "rescoring": 1, "lambda_corr": 0.5, "epochs": 4, "distill": 0.25, "bagging": True,
    }  # fmt: skip
    found = suggest(FixedTrial(chosen), dimensions(SpaceConfig(), run, graph), run)
    assert found == replace(
        run,
        members=3,
        budget=BudgetConfig(budget=1.5, depth=True),
        search=SearchConfig(algorithm="flow", lambda_overlap=7.0, rescoring=1),
        relevance=replace(run.relevance, lambda_corr=0.5),
        ensemble=replace(run.ensemble, trunk=0.25),
        finetune=FinetuneConfig(mode=None, epochs=4, distill=0.25, bagging=True),
    )


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**20), names=st.sets(st.sampled_from(sorted(STAGES)), min_size=1))
def test_any_choice_makes_settings_and_leaves_the_others(graph, seed, names) -> None:
    run = RunConfig(search=SearchConfig(core_share=0.3), seed=4)
    space = dimensions(SpaceConfig(names=tuple(names)), run, graph)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    found = suggest(trial, space, run)
    assert (found.search.core_share, found.seed) == (0.3, 4)
    assert set(trial.params) <= names
    assert ("lambda_overlap" in trial.params) == (
        "lambda_overlap" in names and found.search.algorithm in ("flow", "pairs")
    )
    assert ("criterion" in trial.params) == ("criterion" in names and found.search.algorithm in SCORE_DRIVEN)
    assert ("lambda_corr" in trial.params) == ("lambda_corr" in names and found.search.rescoring > 0)
    for name in set(STAGES) - names:
        stage, setting = STAGES[name]
        own, other = (value if stage is None else getattr(value, stage) for value in (run, found))
        assert getattr(own, setting) == getattr(other, setting)


@settings(deadline=None, max_examples=40)
@given(
    members=st.integers(2, 4),
    budget=st.floats(0.1, 9.0),
    overlap=st.floats(0.0, 100.0),
    epochs=st.integers(0, 50),
    distill=st.floats(0.0, 1.0),
    algorithm=st.sampled_from(["flow", "magnitude", "masksembles", "random"]),
)
def test_the_jobs_own_settings_are_always_among_the_choices(
    graph, members, budget, overlap, epochs, distill, algorithm
) -> None:
    run = RunConfig(
        members=members,
        ensemble=EnsembleConfig(trunk=0.9),  # deeper than the space
        budget=BudgetConfig(budget=budget),
        search=SearchConfig(algorithm=algorithm, lambda_overlap=overlap),
        finetune=FinetuneConfig(epochs=epochs, distill=distill),
    )
    space = dimensions(SpaceConfig(epochs=(1, 5)), run, graph)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for role in ("default", "control"):  # an enqueued value out of its range would be a warning, which is an error
        study.enqueue_trial(enqueued(space, run, role), user_attrs={"role": role})
    expected = {"default": run, "control": replace(run, search=replace(run.search, algorithm="random"))}
    for role, settings_of_role in expected.items():
        assert suggest(study.ask(), space, run, role) == settings_of_role


def test_the_control_has_random_masks_where_the_algorithm_is_not_searched_too(graph) -> None:
    run = RunConfig()
    space = dimensions(SpaceConfig(names=("budget", "lambda_overlap")), run, graph)
    chosen = enqueued(space, run, "control")
    assert chosen == {"budget": 2.0}
    assert suggest(FixedTrial(chosen), space, run, "control").search.algorithm == "random"
    assert suggest(FixedTrial({**chosen, "lambda_overlap": 1.0}), space, run).search.algorithm == "flow"


def test_what_the_network_cannot_have_is_not_asked_for(graph) -> None:
    run = RunConfig(members=2)
    narrow = min(group.width for group in graph.groups)
    members = {d.name: d for d in dimensions(SpaceConfig(members=(2, 99)), run, graph)}["members"]
    assert (members.distribution.low, members.distribution.high) == (2, narrow)
    flat = replace(graph, branches=())
    assert "depth" not in enqueued(dimensions(SpaceConfig(), run, flat), run, "default")
    for name in ("decorrelate", "joint"):
        alike = replace(run, finetune=FinetuneConfig(mode="repeat", **{name: 1.0}))
        assert "bagging" not in enqueued(dimensions(SpaceConfig(), alike, graph), alike, "default")


def test_only_what_can_be_scored_inside_masks_is(graph) -> None:
    run = RunConfig(search=SearchConfig(rescoring=2))
    names = ("criterion", "rescoring", "lambda_corr")
    space = dimensions(SpaceConfig(names=names), run, graph)
    assert enqueued(space, run, "default") == {"criterion": "ig", "rescoring": 2, "lambda_corr": 0.0}
    fisher = suggest(FixedTrial({"criterion": "fisher"}), space, run)
    assert (fisher.relevance.criterion, fisher.search.rescoring) == ("fisher", 0)
    joint = replace(run, relevance=replace(run.relevance, path="joint"))
    assert enqueued(dimensions(SpaceConfig(names=names), joint, graph), joint, "default") == {"criterion": "ig"}
    rounds = replace(run, search=SearchConfig("progressive"))
    assert enqueued(dimensions(SpaceConfig(names=names), rounds, graph), rounds, "default") == {
        "criterion": "ig", "lambda_corr": 0.0,
    }  # fmt: skip


def test_epochs_go_from_a_quarter_of_the_jobs(graph) -> None:
    for own, ends in ((10, (2, 10)), (1, (1, 1)), (40, (10, 40))):
        run = RunConfig(finetune=FinetuneConfig(epochs=own))
        found = {d.name: d for d in dimensions(SpaceConfig(), run, graph)}["epochs"].distribution
        assert (found.low, found.high) == ends


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("budget", "colour")}, "expected different ones of members, budget, depth"),
        ({"names": ()}, "expected different ones"),
        ({"members": (1, 4)}, "space.members is .1, 4., expected the smallest and the largest value, from 2"),
        ({"budget": (2.0, 1.0)}, "space.budget is"),
        ({"budget": (0.0, 1.0)}, "space.budget is"),
        ({"distill": (-0.1, 1.0)}, "space.distill is"),
        ({"trunk": (-0.1, 0.5)}, "space.trunk is"),
        ({"trunk": (0.0, 1.0)}, "space.trunk is .0.0, 1.0., expected shares of the dense MACs below 1"),
        ({"algorithm": ()}, "space.algorithm is empty"),
    ],
)
def test_spaces_that_are_none(changes, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        SpaceConfig(**changes)
