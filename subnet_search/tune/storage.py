"""Where the trials of a study are kept: a journal file in its folder, or a database that many machines reach."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.tune.config import TuneConfig

log = logging.getLogger("subnet_search")

JOURNAL = "journal.log"
_START = b'{"op_code":'
"""How every line of a journal begins, as Optuna writes it."""
PATIENCE = 60.0
"""Seconds for which a worker waits for a database that went away: as long as a server takes to start again."""

AWAY = (StorageInternalError, SQLAlchemyError)
"""What Optuna raises where a database does not answer."""


def open_storage(config: TuneConfig) -> BaseStorage:
    """Opens the storage of a study, and makes it where there is none.

    Args:
        config: Settings of the study; the folder of a journal must be there.

    Raises:
        SubnetSearchError: where the journal is damaged, the URL is wrong, a driver is missing or nobody answers.
    """
    if config.storage is None:
        path = config.out / JOURNAL
        check_journal(path)  # Optuna takes a damaged last line for one that is being written, and would write behind it
        try:
            return JournalStorage(JournalFileBackend(str(path), lock_obj=WholeLines(str(path))))
        except (ValueError, KeyError, AssertionError) as problem:
            raise SubnetSearchError(
                f"{path} is no journal of a study, or is damaged: its records do not go together "
                f"({type(problem).__name__}: {problem}); put back a copy of it, or use another --out"
            ) from problem
    try:
        with explained(config):
            return Database(config.storage, config.heartbeat)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as problem:
        raise SubnetSearchError(
            f"storage {shown(config)} needs a driver that is not installed ({problem}); pip install 'subnet-search[postgres]'"
        ) from problem
    except sqlalchemy.exc.ArgumentError as problem:
        raise SubnetSearchError(
            f"storage is no URL of a database ({problem}); expected one as postgresql+psycopg://user@host/base"
        ) from problem


@contextmanager
def explained(config: TuneConfig) -> Iterator[None]:
    """Turns what a database raises that does not answer, or a journal that was damaged, into what a user can act on."""
    try:
        yield
    except SubnetSearchError:
        raise
    except ValueError:
        if config.storage is None:
            check_journal(config.out / JOURNAL)
        raise
    except (sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.ArgumentError):
        raise
    except AWAY as problem:
        if (file := file_of(config)) is not None:
            raise SubnetSearchError(_unusable(file, config, reason_of(problem))) from problem
        raise SubnetSearchError(
            f"storage {shown(config)} does not answer ({reason_of(problem)}); see to the server, then give the same command again: finished trials are kept"
        ) from problem


def reason_of(problem: BaseException) -> str:
    """Returns why a database did not answer, in one line; Optuna's own words guess at something else."""
    cause = problem.__cause__ if isinstance(problem, StorageInternalError) else problem
    return first_line(cause or problem)


def file_of(config: TuneConfig) -> Path | None:
    """Returns the file that holds the trials: the journal, or an SQLite database; None where a server has them."""
    if config.storage is None:
        return config.out / JOURNAL
    with suppress(sqlalchemy.exc.ArgumentError):
        url = sqlalchemy.engine.make_url(config.storage)
        name = url.database or ":memory:"
        if url.get_backend_name() == "sqlite" and name != ":memory:" and not name.startswith("file:"):
            return Path(name)
    return None


def _unusable(file: Path, config: TuneConfig, reason: str) -> str:
    """Says what is wrong with the file of a database, and what to do."""
    if not file.parent.is_dir():
        advice = f"there is no folder {file.parent}: make it, or give another --storage"
    elif "not a database" in reason or "malformed" in reason:
        advice = f"{file} is no SQLite database, or is damaged: put back a copy of it, or give another --storage"
    else:
        advice = (
            f"see that {file} can be read and written and its disk has room, then give the same command again: "
            "finished trials are kept"
        )
    return f"storage {shown(config)} cannot be used ({reason}); {advice}"


def shown(config: TuneConfig) -> str:
    """Returns where the trials are kept, without a password."""
    if config.storage is None:
        return str(config.out / JOURNAL)
    try:
        return sqlalchemy.engine.make_url(config.storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "of an unreadable URL"


class WholeLines(JournalFileSymlinkLock):
    """A lock of a journal that finds whole lines only, and nothing that cannot be read at its end.

    A worker that is killed while it writes can leave half a line, to which the next one would add its own; then nobody
    could read the journal again. Whoever has the lock is the only one to write, so half a line is a dead worker's.

    Args:
        path: The journal.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = Path(path)

    def acquire(self) -> bool:
        """Waits for the lock; cuts off what is no whole line.

        Raises:
            SubnetSearchError: where the last line is damaged: nobody could read what is written behind it.
        """
        acquired = super().acquire()
        try:
            drop_half_line(self._path)
            if _fault(_last_line(self._path)):
                check_journal(self._path)
        except BaseException:
            self.release()
            raise
        return acquired


def drop_half_line(path: Path) -> None:
    """Cuts a file of lines behind its last whole one."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        kept = end
        tail = b""
        while kept and b"\n" not in tail:
            kept = max(0, kept - 4096)
            file.seek(kept)
            tail = file.read(end - kept)
        if tail and not tail.endswith(b"\n"):
            file.truncate(kept + tail.rfind(b"\n") + 1)


def check_journal(path: Path) -> None:
    """Refuses a journal with a line that is no record; the beginning of one is a worker's that writes, or was killed.

    Raises:
        SubnetSearchError: where there is one (the message says which), or the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            faults = ((number, _fault(line)) for number, line in enumerate(lines, start=1))
            damage = next(((number, fault) for number, fault in faults if fault), None)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise SubnetSearchError(f"{path} cannot be read ({problem}); see to it, or use another --out") from problem
    if damage is not None:
        number, fault = damage
        raise SubnetSearchError(
            f"{path} is no journal of a study, or is damaged: line {number} is no record ({fault}). Put back a copy of "
            f"it, or remove that line and what it held (sed -i {number}d {shlex.quote(str(path))}); or use another --out"
        )


def _fault(line: bytes) -> str | None:
    """What is wrong with a line of a journal, in a few words; None where nothing is."""
    if not line.endswith(b"\n"):
        return None if line.startswith(_START[: len(line)]) else f"got {line[:40]!r}, expected {_START.decode()}…"
    try:
        record = json.loads(line)
    except ValueError as problem:
        return first_line(problem)
    if not isinstance(record, dict) or not {"op_code", "worker_id"} <= record.keys():
        return f"got {line[:40]!r}, expected {_START.decode()}…"
    return None


def _last_line(path: Path) -> bytes:
    """The last line of a journal; that of an empty one is empty, as before a record."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        tail = b""
        while start and b"\n" not in tail[:-1]:
            step = min(4096, start)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
    return tail[tail[:-1].rfind(b"\n") + 1 :]


class Database(RDBStorage):
    """A database that may go away for a while: connections are made again, and a missed sign of life is no end.

    Args:
        url: URL of the database, as SQLAlchemy has them.
        heartbeat: Seconds between signs of life of a running trial.
        patience: Seconds for which a lost connection is tried to be made again, `PATIENCE` by default; the first one is
            tried once.
    """

    def __init__(self, url: str, heartbeat: int, patience: float | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=heartbeat)
        self._patience = PATIENCE if patience is None else patience
        sqlalchemy.event.listen(self.engine, "do_connect", self._connect)

    def record_heartbeat(self, trial_id: int) -> None:
        """Leaves a sign of life, if it can: the thread that calls this would end with an error, and the trial with it."""
        try:
            super().record_heartbeat(trial_id)
        except AWAY as problem:
            log.warning("a sign of life could not be left: %s", problem)

    def _connect(self, dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
        deadline = None
        while True:
            try:
                return dialect.connect(*arguments, **named)
            except dialect.loaded_dbapi.OperationalError as problem:
                if deadline is None:
                    log.warning("the database does not answer, trying for %.0f s: %s", self._patience, problem)
                    deadline = time.monotonic() + self._patience
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(1.0, self._patience))
