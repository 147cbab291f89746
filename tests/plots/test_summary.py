import copy

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.plots.summary import Spread, by_method, differing_settings, spread_of


def test_spread_is_of_what_is_known() -> None:
    assert spread_of([1.0, None, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)
    assert spread_of([1.0]) == Spread(1.0, None, 1)
    assert spread_of([None]) is None


def test_methods_keep_their_order_rows_and_origin(made_up) -> None:
    methods = {method.name: method for method in by_method(made_up.rows)}
    assert list(methods) == list(dict.fromkeys(row["method"] for row in made_up.rows))
    assert methods["mimo"].scratch
    assert not methods["search"].scratch
    assert [row["seed"] for row in methods["search"].rows] == [0, 1, 2]
    assert (methods["msp"].title, methods["search"].title) == ("dense (msp)", "search")


def test_rows_of_several_comparisons_are_refused(made_up) -> None:
    with pytest.raises(SubnetSearchError, match="no rows"):
        by_method([])
    with pytest.raises(SubnetSearchError, match="several backbone: net, other"):
        by_method([*made_up.rows, {**made_up.rows[0], "backbone": "other"}])
    with pytest.raises(SubnetSearchError, match=r"rows of msp have seeds \[0, 0\]"):
        by_method([*made_up.rows, made_up.rows[0]])
    longer = copy.deepcopy(made_up.rows)
    longer[1]["settings"]["finetune"]["epochs"] = 20
    with pytest.raises(SubnetSearchError, match=r"mc_dropout .* differ in the settings \['finetune.epochs'\]"):
        by_method(longer)


def test_settings_that_decide_nothing_may_differ() -> None:
    rows = [
        {"settings": {"out": "a", "seed": 0, "search": {"seed": 0}}},
        {"settings": {"out": "b", "seed": 1, "search": {"seed": 1}}},
    ]
    assert differing_settings(rows) == ["search.seed"]


def test_a_setting_that_an_older_version_did_not_have_does_not_differ() -> None:
    settings = [{"seed": 0, "search": {"cover": False}}, {"search": {"cover": False, "swaps": 9}}, {"search": {}}]
    assert differing_settings([{"settings": given} for given in settings]) == []
    settings.append({"search": {"swaps": 8}})
    assert differing_settings([{"settings": given} for given in settings]) == ["search.swaps"]
