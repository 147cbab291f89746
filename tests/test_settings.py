import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.compare import CompareConfig
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import ALGORITHMS, BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig, from_dict, to_dict
from subnet_search.tune import SpaceConfig, TuneConfig

words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8)
fractions = st.floats(0.01, 1.0)
positive = st.integers(1, 10**6)
precisions = st.sampled_from(["auto", "fp32", "bf16"])
lists = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3).map(tuple)

runs = st.builds(
    RunConfig,
    out=words.filter(lambda word: "/" not in word).map(Path),
    members=st.integers(2, 64),
    seed=st.integers(0, 2**31),
    network=st.builds(
        BackboneConfig,
        backbone=words,
        weights=st.none() | st.sampled_from([Path("w.safetensors"), Path("/x/y.th")]),
        input_shape=st.none() | st.lists(positive, min_size=1, max_size=3).map(tuple),
        classes=st.none() | st.lists(words, max_size=3).map(tuple),
        mean=st.none() | lists,
        std=st.none() | lists,
    ),
    images=st.builds(
        DataConfig,
        data=words.map("npz:{}".format),
        test=st.none() | words,
        ood=st.lists(words, max_size=2).map(tuple),
        validation=fractions,
    ),
    budget=st.builds(BudgetConfig, budget=fractions) | st.builds(BudgetConfig, budget=st.none(), keep=fractions),
    relevance=st.builds(
        RelevanceConfig, criterion=st.sampled_from(["ig", "singe", "random"]), nodes=positive, power=fractions
    ),
    search=st.builds(SearchConfig, algorithm=st.sampled_from(ALGORITHMS), cover=st.booleans()),
    ensemble=st.builds(EnsembleConfig, head=st.sampled_from(["member", "shared"])),
    finetune=st.builds(
        FinetuneConfig, epochs=st.integers(0, 300), distill=fractions, bagging=st.booleans(), precision=precisions
    ),
    evaluate=st.builds(EvaluateConfig, batch_size=positive, precision=precisions),
)


@given(runs)
def test_settings_survive_json(config: RunConfig) -> None:
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config))), "here") == config


def test_missing_settings_take_their_defaults() -> None:
    assert from_dict(RunConfig, {"seed": 3, "search": {"cover": True}}, "here") == replace(
        RunConfig(), seed=3, search=SearchConfig(cover=True)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 3}, r"here: unknown settings \['sed'\], expected some of .*'seed'"),
        ({"finetune": {"epoch": 3}}, r"here.finetune: unknown settings \['epoch'\]"),
        ({"seed": "3"}, "here.seed: got '3', expected int"),
        ({"members": True}, "here.members: got True, expected int"),
        ({"images": {"ood": "photos=photos"}}, "here.images.ood: got 'photos=photos', expected tuple"),
        ({"images": {"ood": [1]}}, "here.images.ood: got 1, expected str"),
        ({"search": {"algorithm": "magic"}}, r"here.search.algorithm: got 'magic', expected .*'flow'"),
        ({"search": ["flow"]}, r"here.search: got \['flow'\], expected a mapping"),
        ([], r"here: got \[\], expected a mapping"),
        ({"seed": -1}, "seed is -1, expected an integer of at least 0"),
        ({"members": 1}, "members is 1, expected at least 2"),
    ],
)
def test_values_that_no_run_has_are_refused(values, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        from_dict(RunConfig, values, "here")


@pytest.mark.parametrize("kind", [RunConfig, CompareConfig, TuneConfig])
def test_the_folder_may_be_text(kind: Any) -> None:
    assert kind(out="runs/x") == kind(out=Path("runs/x"))


def test_a_range_needs_both_ends() -> None:
    assert from_dict(SpaceConfig, {"members": [2, 3]}, "space").members == (2, 3)
    with pytest.raises(SubnetSearchError, match=r"space.members: got \[2\], expected tuple\[int, int\]"):
        from_dict(SpaceConfig, {"members": [2]}, "space")


def test_the_seed_of_the_run_is_added_to_those_of_the_stages() -> None:
    config = RunConfig(seed=5, search=SearchConfig(seed=2))
    assert (config.seeded("search").seed, config.seeded("finetune").seed) == (7, 5)
    assert config.search.seed == 2


@pytest.mark.parametrize("kind", [RunConfig, TuneConfig, CompareConfig])
def test_a_folder_may_be_given_as_text(kind) -> None:
    assert kind(out="runs/own").out == Path("runs/own")
