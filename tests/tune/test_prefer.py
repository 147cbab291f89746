import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.tune.prefer import Condition, parse_preference

OBJECTIVES = ("nll", "error_correlation", "macs")
FIGURES = ("cal/ECE", "ood/svhn/AUROC/entropy", "nll")


def test_conditions_and_order() -> None:
    wanted = parse_preference(" nll <= 0.30, macs<=1 ,ood/svhn/AUROC/entropy>=9e-1,macs", OBJECTIVES, FIGURES)
    assert wanted.conditions == (
        Condition("nll", True, 0.3),
        Condition("macs", True, 1.0),
        Condition("ood/svhn/AUROC/entropy", False, 0.9),
    )
    assert wanted.order == ("macs", "nll", "error_correlation")
    assert parse_preference("error_correlation", OBJECTIVES, FIGURES).conditions == ()


@given(
    st.lists(
        st.tuples(st.sampled_from(OBJECTIVES + FIGURES), st.booleans(), st.integers(-1000, 1000)),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_again(parts: list[tuple[str, bool, int]]) -> None:
    conditions = tuple(Condition(name, at_most, bound / 100) for name, at_most, bound in parts)
    text = ",".join(map(str, conditions))
    assert parse_preference(text, OBJECTIVES, FIGURES).conditions == conditions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"cannot read ''; expected conditions between commas, such as nll<=0\.30"),
        ("nll<=0.3,", "cannot read ''"),
        ("nll <= 0.3 macs <= 1", "got the bound '0.3 macs <= 1'"),
        ("nll<0.3", "got '<' in 'nll<0.3', expected <= or >="),
        ("nll==0.3", "got '=='"),
        ("nll<=", "got the bound '' in 'nll<=', expected a number"),
        ("nll<=low", "got the bound 'low'"),
        ("nll<=inf", "expected a number"),
        ("loss<=0.3", r"nothing is called 'loss'; .*\(nll, error_correlation, macs\).*\(cal/ECE, ood/svhn"),
        ("cal/ECE", "cal/ECE alone does not say what is good; expected a bound"),
    ],
)
def test_what_cannot_be_read_is_explained(text: str, words: str) -> None:
    with pytest.raises(SubnetSearchError, match=words):
        parse_preference(text, OBJECTIVES, FIGURES)


def test_how_far_a_figure_is_beyond_a_bound() -> None:
    low, high = Condition("macs", True, 1.0), Condition("macs", False, 1.0)
    assert [low.excess(x) for x in (0.5, 1.0, 1.5, None)] == [0, 0, 0.5, math.inf]
    assert [high.excess(x) for x in (0.5, 1.0, 1.5, None)] == [0.5, 0, 0, math.inf]
