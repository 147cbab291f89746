import json
from pathlib import Path

from benchmarks import rows, tables
from subnet_search.evaluate import check_row


def test_the_tables_are_those_of_the_rows() -> None:
    text = tables.README.read_text()
    assert all(f"<!-- table: {name} -->" in text for name in tables.TABLES)
    assert tables.rendered(text) == text


def test_every_row_of_the_main_job_is_complete_and_unique() -> None:
    found = rows.read("main_job")
    assert found
    for row in found:
        check_row(row)  # raises where a key is missing, unknown or of another type
    cells = [(row["backbone"], row["method"], row["budget"], row["epochs"], row["seed"]) for row in found]
    assert len(set(cells)) == len(cells)


def test_rows_name_no_place_of_the_machine_that_made_them() -> None:
    for path in sorted(Path(rows.RESULTS).glob("*.jsonl")):
        for line in path.read_text().splitlines():
            assert "/work/" not in line, path
            assert "/tmp/" not in line, path
            json.loads(line)
