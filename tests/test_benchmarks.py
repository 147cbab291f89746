import json
from pathlib import Path

import pytest

from benchmarks import main_job, rows, tables
from subnet_search.compare import settings_digest
from subnet_search.evaluate import check_row


def test_the_tables_are_those_of_the_rows() -> None:
    texts = [page.read_text() for page in tables.PAGES]
    assert all(any(f"<!-- table: {name} -->" in text for text in texts) for name in tables.TABLES)
    assert [tables.rendered(text) for text in texts] == texts


def test_a_table_that_is_empty_so_far_takes_nothing_else_with_it(monkeypatch) -> None:
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: r"| a \ b |", "two": lambda: "| c |"})
    page = "<!-- table: one -->\n<!-- end -->\nwords\n<!-- table: two -->\nold\n<!-- end -->\n"
    made = "<!-- table: one -->\n| a \\ b |\n<!-- end -->\nwords\n<!-- table: two -->\n| c |\n<!-- end -->\n"
    assert tables.rendered(page) == made
    assert tables.rendered(made) == made


@pytest.mark.parametrize("name", ["main_job", "compare", "compare_choice", "singe", "lab"])
def test_every_row_is_complete(name: str) -> None:
    for row in rows.read(name):
        check_row(row)  # raises where a key is missing, unknown or of another type


def test_every_comparison_has_one_row_for_a_method_and_seed() -> None:
    found = rows.read("compare")
    cells = [(row["method"], row["seed"], settings_digest(row)) for row in found]
    assert len(set(cells)) == len(cells)
    drawn = {(line["method"], line["seed"], line["settings"]) for line in rows.read("compare_curves")}
    assert set(cells) <= drawn


def test_every_cell_of_the_main_job_counts_once() -> None:
    found = main_job.measured()
    assert found
    cells = [(row["backbone"], row["method"], row["budget"], row["epochs"], row["seed"]) for row in found]
    assert len(set(cells)) == len(cells)


def test_rows_name_no_place_of_the_machine_that_made_them() -> None:
    for path in sorted(Path(rows.RESULTS).glob("*.jsonl")):
        for line in path.read_text().splitlines():
            assert "/work/" not in line, path
            assert "/tmp/" not in line, path
            json.loads(line)
