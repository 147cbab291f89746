"""Small networks of every ordinary kind as fixtures."""

import pytest

from tests.architectures import BY_NAME, CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Every ordinary network in turn."""
    chosen: Case = request.param
    return chosen


@pytest.fixture
def named() -> dict[str, Case]:
    """The networks by name."""
    return BY_NAME


@pytest.fixture
def padded(named: dict[str, Case]) -> Case:
    """The network with zero-padded shortcuts."""
    return named["padded"]
