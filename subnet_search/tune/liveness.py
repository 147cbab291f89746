"""Whether a worker still runs: a process is known by its machine, its number and its start, as numbers come again."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """Returns what tells this process from all others, on any machine: plain JSON values."""
    return {"host": host(), "pid": os.getpid(), "started": _started(os.getpid())}


def runs(process: Mapping[str, Any]) -> bool | None:
    """Tells whether a process runs, as `this_process` described it; None where it is another machine's."""
    if process.get("host") != host():
        return None
    pid = process["pid"]
    started = _started(pid)
    if started is not None or (PROC / "self").exists():
        return started is not None and started == process["started"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def host() -> str:
    """Returns the name of this machine, its boot and its namespace of processes: containers have numbers of their own."""
    parts = [socket.gethostname()]
    for path in (PROC / "sys/kernel/random/boot_id", PROC / "self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())
        except OSError:  # not Linux, or hidden
            continue
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where there is no such process, or no telling."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
