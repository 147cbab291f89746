"""Whether a process still runs, told apart from others that had or will have its number."""

import os
import subprocess
import sys
from pathlib import Path

import subnet_search.tune.liveness as liveness
from subnet_search.tune.liveness import host, runs, this_process


def test_this_process_runs() -> None:
    assert runs(this_process()) is True
    assert this_process() == this_process()


def test_a_process_that_ended_does_not_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    described = {**this_process(), "pid": process.pid, "started": liveness._started(process.pid)}
    assert runs(described) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked for its exit code yet
    assert runs(described) is False
    process.communicate()
    assert runs(described) is False


def test_another_process_of_the_same_number_is_another() -> None:
    assert runs({**this_process(), "started": "1"}) is False


def test_of_other_machines_nothing_is_known() -> None:
    assert runs({"host": "elsewhere", "pid": os.getpid(), "started": "1"}) is None
    assert this_process()["host"] == host()


def test_where_there_is_no_proc_the_number_has_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(liveness, "PROC", Path(tmp_path))
    assert runs({"host": host(), "pid": os.getpid(), "started": None})
    assert not runs({"host": host(), "pid": 2**22 + 1, "started": None})
