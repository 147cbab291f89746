"""nbmake runs the notebooks of the folder `notebooks` as tests of their own; here is what it does not look at."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def first_line(cell: dict[str, Any]) -> str:
    return "".join(cell["source"]).splitlines()[0]


def test_they_are_numbered_in_the_order_in_which_they_are_to_be_read() -> None:
    numbers = [path.name.split("_")[0] for path in NOTEBOOKS]
    assert len(numbers) >= 3
    assert numbers == [f"{k:02}" for k in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path) -> None:
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), f"{path.name}: clear all outputs before saving"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_it_was_written_on_is_kept(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell["metadata"] == {} for cell in content["cells"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_a_title_and_one_variable_makes_it_small(path: Path) -> None:
    assert first_line(cells(path, "markdown")[0]).startswith("# ")
    assert first_line(cells(path, "code")[0]).startswith("SMALL = True  # False ")
    code = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    assert "if SMALL else" in code
