"""Where the trials of a study are kept: a journal file in its folder, or a database that many machines reach."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
        try:
            return JournalStorage(JournalFileBackend(str(path), lock_obj=WholeLines(str(path))))
        except (ValueError, KeyError, AssertionError) as problem:
            raise SubnetSearchError(
                f"{path} is no journal of a study, or is damaged ({problem}); use another --out, or delete it"
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
    """Turns what a database raises that does not answer into what a user can act on."""
    try:
        yield
    except (sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.ArgumentError):
        raise
    except AWAY as problem:
        raise SubnetSearchError(
            f"storage {shown(config)} does not answer ({reason_of(problem)}); see to the server, then give the same command again: finished trials are kept"
        ) from problem


def reason_of(problem: BaseException) -> str:
    """Returns why a database did not answer, in one line; Optuna's own words guess at something else."""
    cause = problem.__cause__ if isinstance(problem, StorageInternalError) else problem
    return first_line(cause or problem)


def shown(config: TuneConfig) -> str:
    """Returns where the trials are kept, without a password."""
    if config.storage is None:
        return str(config.out / JOURNAL)
    try:
        return sqlalchemy.engine.make_url(config.storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "of an unreadable URL"


class WholeLines(JournalFileSymlinkLock):
    """A lock of a journal that finds whole lines only.

    A worker that is killed while it writes can leave half a line, to which the next one would add its own; then nobody
    could read the journal again. Whoever has the lock is the only one to write, so half a line is a dead worker's.

    Args:
        path: The journal.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = Path(path)

    def acquire(self) -> bool:
        """Waits for the lock; cuts off what is no whole line."""
        acquired = super().acquire()
        try:
            drop_half_line(self._path)
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
