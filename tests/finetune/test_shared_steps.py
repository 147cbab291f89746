"""Two processes that train together come to what one comes to."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from subnet_search.ensemble.row_share import RowShare, drawn_rows, sharing

WORKER = Path(__file__).parent / "two_processes.py"
SYSTEMS = (
    "thin",
    "masked",
    "shared norms",
    "the same images",
    "bootstraps",
    "repeated images",
    "mc_dropout",
    "random+stochastic_depth",
    "mimo",
    "batch_ensemble",
    "bagging",
)


def run(folder: Path, processes: int) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "ACCELERATE_USE_CPU": "true",
    }
    path = folder / f"{processes}.pt"
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **common} if processes > 1 else {}
        started.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), str(path)],
                env={**os.environ, **own, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=600)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text
    return [torch.load(path.with_suffix(f".{rank}"), weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What one process has come to, and each of two."""
    folder = tmp_path_factory.mktemp("processes")
    (alone,), (first, second) = run(folder, 1), run(folder, 2)
    assert (alone["processes"], first["processes"]) == (1, 2)
    return alone, first, second


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_come_to_what_one_does(trained, name) -> None:
    alone, *both = (result[name] for result in trained)
    for found in both:
        assert found["samples"] == alone["samples"]
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        for key, tensor in alone["state"].items():
            torch.testing.assert_close(
                found["state"][key], tensor, rtol=2e-3, atol=2e-5, msg=lambda text, k=key: f"{k}: {text}"
            )


def test_what_processes_cannot_do_together_is_refused_by_all(trained) -> None:
    rows, gates, labels, main = trained[1]["refusals"]
    assert "a step has 1 rows of each member, which 2 processes cannot share" in rows
    assert "cannot be trained on 2 processes" in gates
    assert "some images have no label" in labels
    assert main == "only the main process has looked"
    assert trained[2]["refusals"] == trained[1]["refusals"]


def test_rows_draw_what_they_would_draw_alone() -> None:
    def draw(count: int) -> torch.Tensor:
        return drawn_rows(count, 4, 3, torch.Generator().manual_seed(3))

    whole = draw(15).unflatten(0, (3, 5))
    for start, stop in ((0, 2), (2, 5)):
        with sharing(RowShare(start, stop, 5)):
            assert torch.equal(draw(3 * (stop - start)).unflatten(0, (3, -1)), whole[:, start:stop])
