"""The settings of single systems."""

import pytest

from subnet_search.baselines import BaselineConfig
from subnet_search.errors import SubnetSearchError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("depth_drop", 1.0),
        ("depth_drop", float("nan")),
        ("inputs", 0),
        ("input_repetition", 1.0),
        ("batch_repetition", 0),
        ("alpha", 0.0),
        ("rounds", 0),
    ],
)
def test_values_outside_their_range_are_refused(name, value) -> None:
    with pytest.raises(SubnetSearchError, match=f"baselines.{name} is {value}, expected a value from"):
        BaselineConfig(**{name: value})
