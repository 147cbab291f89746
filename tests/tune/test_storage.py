"""Where trials are kept: a journal that survives killed writers, and a database that may go away."""

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy

import subnet_search.tune.storage as storage
from subnet_search.errors import SubnetSearchError
from subnet_search.tune import TuneConfig
from subnet_search.tune.storage import Database, drop_half_line, explained, open_storage, shown
from subnet_search.tune.study import read_study


def journal(tmp_path: Path) -> TuneConfig:
    return TuneConfig(out=tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"one\n", b"one\n"),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"on", b""),
        (b"one\n" + b"x" * 10_000, b"one\n"),
        (b"x" * 10_000 + b"\n", b"x" * 10_000 + b"\n"),
        (b"x" * 4095 + b"\n" + b"y" * 4096, b"x" * 4095 + b"\n"),
    ],
)
def test_half_a_line_is_cut_off_and_nothing_else(tmp_path, before, after) -> None:
    path = tmp_path / "lines"
    path.write_bytes(before)
    drop_half_line(path)
    assert path.read_bytes() == after


def test_a_journal_can_be_read_and_written_after_a_writer_was_killed(tmp_path) -> None:
    study = optuna.create_study(storage=open_storage(journal(tmp_path)), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"dead","trial_id":0,"user_at')
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)  # one that had it open
    again = optuna.load_study(storage=open_storage(journal(tmp_path)), study_name="s")
    again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [t.number for t in again.trials] == [0, 1, 2, 3]
    assert all(json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines())
    assert len(study.trials) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"hello\nworld\n",
        b"hello",
        b"[]\n",
        b"{}\n",
        bytes(400),
        np.random.default_rng(0).bytes(400),
        np.random.default_rng(0).bytes(400).replace(b"\n", b"\t"),
    ],
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path, content: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    for touch in (open_storage, read_study):
        with pytest.raises(
            SubnetSearchError, match=r"journal.log is no journal of a study, or is damaged: line 1 is no"
        ):
            touch(journal(tmp_path))
    assert path.read_bytes() == content


def test_a_folder_is_no_journal(tmp_path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(SubnetSearchError, match=r"journal.log cannot be read .*use another --out"):
        open_storage(journal(tmp_path))


def test_records_that_lack_something_are_refused(tmp_path) -> None:
    (tmp_path / "journal.log").write_text('{"op_code":0,"worker_id":"x"}\n')
    with pytest.raises(SubnetSearchError, match=r"its records do not go together .*put back a copy"):
        open_storage(journal(tmp_path))


def test_a_damaged_last_line_is_named_and_nothing_is_written_behind_it(tmp_path) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_storage(journal(tmp_path)), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    whole = path.read_bytes()
    number = whole.count(b"\n")
    path.write_bytes(whole[:-9] + b"\n")
    words = rf"journal.log .* is damaged: line {number} is no record .*remove that line .*sed -i {number}d"
    with pytest.raises(SubnetSearchError, match=words):
        open_storage(journal(tmp_path))
    with pytest.raises(SubnetSearchError, match=words):  # of one that had it open
        study.set_user_attr("x", 1)
    assert path.read_bytes() == whole[:-9] + b"\n"
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert len(optuna.load_study(storage=open_storage(journal(tmp_path)), study_name="s").trials) == 1


def test_damage_that_another_worker_meets_is_named(tmp_path) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_storage(journal(tmp_path)), study_name="s")
    with path.open("ab") as file:
        file.write(b"\xff\n" + b'{"op_code":8,"worker_id":"other"}\n')
    with pytest.raises(SubnetSearchError, match=r"line 2 is no record"), explained(journal(tmp_path)):
        study.get_trials()
    with pytest.raises(ValueError, match="own"), explained(TuneConfig(out=tmp_path / "sound")):
        raise ValueError("own")


def test_the_last_line_may_be_longer_than_what_is_read_at_once(tmp_path) -> None:
    study = optuna.create_study(storage=open_storage(journal(tmp_path)), study_name="s")
    for size in (10, 4095, 4096, 9000):
        study.set_user_attr("long", "x" * size)
    assert optuna.load_study(storage=open_storage(journal(tmp_path)), study_name="s").user_attrs == {"long": "x" * 9000}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("somewhere", "is no URL of a database"),
        (
            "oracle+nothing://host/base",
            r"needs a driver that is not installed .* pip install 'subnet-search\[postgres\]'",
        ),
        (
            "sqlite:////no/such/folder/x.db",
            "sqlite:////no/such/folder/x.db cannot be used .*there is no folder /no/such/folder: make it",
        ),
    ],
)
def test_databases_that_cannot_be_opened(tmp_path, url, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        open_storage(TuneConfig(out=tmp_path, storage=url))


def test_a_file_that_is_no_database_is_named(tmp_path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(SubnetSearchError, match=r"cannot be used .*x.db is no SQLite database, or is damaged"):
        open_storage(TuneConfig(out=tmp_path, storage=f"sqlite:///{path}"))


def test_to_look_for_a_study_makes_no_database(tmp_path) -> None:
    config = TuneConfig(out=tmp_path, storage=f"sqlite:///{tmp_path / 'nothere.db'}")
    with pytest.raises(SubnetSearchError, match=r"there is no study .* in sqlite:///.*nothere.db"):
        read_study(config)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/base"
    config = TuneConfig(out=tmp_path, storage=url)
    began = time.monotonic()
    with pytest.raises(
        SubnetSearchError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/base does not answer"
    ) as refused:
        open_storage(config)
    assert "secret" not in str(refused.value)
    assert time.monotonic() - began < 30  # the first connection is tried once
    assert shown(config) == "postgresql+psycopg://me:***@127.0.0.1:1/base"


def test_only_what_a_database_raises_is_explained(tmp_path) -> None:
    config = TuneConfig(out=tmp_path, storage="sqlite:///x")
    with pytest.raises(SubnetSearchError, match=r"cannot be used .no more room.*its disk has room"), explained(config):
        raise optuna.exceptions.StorageInternalError("commit") from sqlite3.OperationalError("no more room")
    with pytest.raises(KeyError, match="own"), explained(config):
        raise KeyError("own")


def test_a_connection_that_was_lost_is_made_again(tmp_path, monkeypatch) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}", heartbeat=60, patience=20.0)
    study = optuna.create_study(storage=database, study_name="s")
    dialect = database.engine.dialect
    connect, failures = dialect.connect, iter(range(3))

    def away(*arguments, **named):
        if next(failures, None) is not None:
            raise sqlite3.OperationalError("the server is starting up")
        return connect(*arguments, **named)

    monkeypatch.setattr(dialect, "connect", away)
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    database.engine.dispose()
    assert study.get_trials() == []


def test_patience_ends(tmp_path, monkeypatch) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}", heartbeat=60, patience=0.0)

    def away(*_, **__):
        raise sqlite3.OperationalError("gone")

    monkeypatch.setattr(database.engine.dialect, "connect", away)
    database.engine.dispose()
    config = TuneConfig(out=tmp_path, storage=database.url)
    with pytest.raises(SubnetSearchError, match=r"cannot be used .*gone"), explained(config):
        optuna.load_study(storage=database, study_name="s")


def test_a_sign_of_life_that_cannot_be_left_is_no_error(tmp_path, monkeypatch, caplog) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}", heartbeat=60)

    def away(*_):
        raise sqlalchemy.exc.OperationalError("insert", {}, Exception("gone"))

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", away)
    database.record_heartbeat(0)
    assert "a sign of life could not be left" in caplog.text


def test_a_journal_is_shown_by_its_path(tmp_path) -> None:
    assert shown(journal(tmp_path)) == str(tmp_path / "journal.log")
    assert "secret" not in shown(replace(journal(tmp_path), storage="://me:secret@host"))
