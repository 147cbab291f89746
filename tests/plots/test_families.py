import pytest

from subnet_search.baselines import CONTROL_MASKS, SYSTEMS
from subnet_search.plots.families import BUILT_IN, INDEPENDENT, OTHER, SAMPLED, SEARCHED, SINGLE, UNSEARCHED, family_of
from subnet_search.search import ALGORITHMS


@pytest.mark.parametrize("method", [*SYSTEMS, *CONTROL_MASKS, "search", *(f"search+{name}" for name in ALGORITHMS)])
def test_every_method_has_a_family(method: str) -> None:
    assert family_of(method) != OTHER
    assert family_of(f"{method}+mimo") == family_of(method)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("msp", SINGLE),
        ("mc_dropout", SAMPLED),
        ("bagging", INDEPENDENT),
        ("packed", BUILT_IN),
        ("masksembles+bagging", UNSEARCHED),
        ("search+random", UNSEARCHED),
        ("search+draft+bagging", SEARCHED),
        ("search+progressive", SEARCHED),
        ("search+gates", SEARCHED),
        ("search+stochastic_depth", SEARCHED),
        ("somebody's own", OTHER),
    ],
)
def test_families(method, family) -> None:
    assert family_of(method) == family
