"""Writing that never leaves half a file behind: everything goes to a temporary name first, then is renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subnet_search.errors import SubnetSearchError


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all; missing parent folders are made.

    Args:
        path: Target. A file there is replaced in one step, so a reader sees the old content or the new one.
        content: The bytes of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        temporary.replace(path)
    except BaseException:  # Ctrl-C too must leave nothing behind
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, content: str) -> None:
    """Writes UTF-8 text whole or not at all; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Writes indented JSON whole or not at all; see `write_bytes`.

    Raises:
        ValueError: where `content` holds NaN or infinity, which are not JSON. Absent figures are None.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_out(path: str | Path) -> None:
    """Looks, before a long job, whether its file can be written at the end; missing parent folders are made.

    Args:
        path: Target; what is there stays.

    Raises:
        SubnetSearchError: where it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
            pass
    except OSError as error:
        raise SubnetSearchError(f"{path} cannot be written ({error}); choose another --out") from error


def append_line(path: str | Path, line: str) -> None:
    """Adds a line to a UTF-8 file; it has reached the disk before the function returns.

    A last line without an end, of somebody whom the power failed or whose editor writes none, is ended first: neither
    of both lines is lost with the other.

    Args:
        path: Target; missing parent folders are made.
        line: The line, without its end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:  # reads anywhere, writes at the end
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Fills a folder that appears under its name only once it is complete.

    Args:
        path: Target; it must not exist, or be an empty folder.

    Yields:
        A temporary folder beside the target; it becomes the target when the block ends well, and is deleted when
        the block raises.

    Raises:
        SubnetSearchError: where something is at the target already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        found = "a folder that is not empty" if path.is_dir() else "a file"
        raise SubnetSearchError(
            f"{path}: found {found}, expected nothing there; choose another name or delete it first"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)  # onto an empty folder is allowed; onto one that has filled up since is not
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
