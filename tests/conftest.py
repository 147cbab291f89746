import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

import subnet_search

# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SLOWED = """
import sys, time, torch
from subnet_search import cli
step = torch.optim.SGD.step
def slow(*arguments, **named):
    time.sleep(0.05)
    return step(*arguments, **named)
torch.optim.SGD.step = slow
cli.main(sys.argv[1:])
"""


def pytest_collectstart() -> None:
    """What a file draws when it is imported is the same, whichever other files are collected before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    # the networks of the tests are too small to gain from threads, and other jobs share the cores
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real images and pretrained weights: `data/` and `backbones/`."""
    folder = Path(os.environ.get("SUBNET_SEARCH_DATA", ""))
    if not os.environ.get("SUBNET_SEARCH_DATA") or not ((folder / "data").is_dir() and (folder / "backbones").is_dir()):
        pytest.skip("SUBNET_SEARCH_DATA does not point to a folder with data/ and backbones/")
    return folder


@pytest.fixture(scope="session")
def kill_when_there() -> Callable[[Sequence[str], Path], None]:
    """`kill_when_there(arguments, file)` gives the command in a process of its own, and kills it once the file is there."""

    def kill(arguments: Sequence[str], file: Path) -> None:
        command = [sys.executable, "-c", SLOWED, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(subnet_search.__file__).parents[1])}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 120
            while not file.exists():
                assert process.poll() is None, process.communicate()[0].decode()
                assert time.monotonic() < deadline, f"{file} does not appear"
                time.sleep(0.02)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL

    return kill


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on a training step is an error; taking up a finished training is none."""

    def forbid() -> None:
        def step(*_: Any, **__: Any) -> None:
            raise AssertionError("a training step was made")

        monkeypatch.setattr(torch.optim.SGD, "step", step)

    return forbid
