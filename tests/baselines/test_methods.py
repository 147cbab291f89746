"""The names of the methods."""

import pytest

from subnet_search.baselines import CONTROL_MASKS, SYSTEMS, check
from subnet_search.baselines.composed import PARTS
from subnet_search.errors import SubnetSearchError
from subnet_search.search import ALGORITHMS


@pytest.mark.parametrize(
    "method",
    [
        *SYSTEMS,
        *CONTROL_MASKS,
        "search",
        *(f"search+{algorithm}" for algorithm in ALGORITHMS),
        *(f"masksembles+{part}" for part in PARTS),
        "search+flow+mimo+bagging",
        "+".join(("random", *PARTS)),
    ],
)
def test_what_there_is(method) -> None:
    check(method)


@pytest.mark.parametrize(
    "method",
    [
        "",
        "magic",
        "Search",
        "search+",
        "search+magic",
        "search+bagging+flow",
        "search+flow+draft",
        "random+flow",
        "random+bagging+bagging",
        "msp+bagging",
        "mimo+stochastic_depth",
        "+bagging",
    ],
)
def test_what_there_is_not_is_refused_with_the_list(method) -> None:
    with pytest.raises(SubnetSearchError) as refused:
        check(method)
    words = str(refused.value)
    assert words.startswith(f"method {method!r}: expected one of msp, mc_dropout")
    for name in (*SYSTEMS, *CONTROL_MASKS, *ALGORITHMS, *PARTS):
        assert name in words
