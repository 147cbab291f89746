import pytest

from benchmarks import lab, rows
from subnet_search.errors import SubnetSearchError
from subnet_search.search import CONTROLS


def test_an_idea_says_what_it_changes() -> None:
    assert lab.changes("best-of-n") == {"search.algorithm": "best-of-n"}
    assert lab.changes("flow-trunk-36-overlap-0.3-repeat-shuffled") == {
        "search.algorithm": "flow",
        "ensemble.trunk": 0.36,
        "search.lambda_overlap": 0.3,
        "finetune.mode": "repeat",
    }


def test_the_settings_of_a_cell_are_those_of_its_idea() -> None:
    config = lab.settings(lab.Grid(epochs=3), "random-trunk-68-distill-50-bagging", 1.0, 7)
    assert config.search.algorithm == "random"
    assert (config.ensemble.trunk, config.finetune.distill, config.finetune.bagging) == (0.68, 0.5, True)
    assert (config.finetune.epochs, config.budget.budget, config.seed) == (3, 1.0, 7)


@pytest.mark.parametrize("name", ["nothing", "flows", "flow-trunks-36", "flow-36", "flow-trunk-", "flow-trunk"])
def test_a_name_that_is_not_understood_is_refused(name: str) -> None:
    with pytest.raises(SubnetSearchError, match="expected"):
        lab.changes(name)


def test_every_row_and_control_is_an_idea() -> None:
    for name in {row["method"] for row in rows.read("lab")} - {"dense"} | CONTROLS:
        assert lab.changes(name)["search.algorithm"] in lab.ALGORITHMS
