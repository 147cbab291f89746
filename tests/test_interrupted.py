"""A run that is stopped in the middle of its training, by Ctrl-C or by force, is continued by the same command."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import subnet_search.cli as cli
from subnet_search.finetune import checkpoint

LONG = ["--members=3", "--relevance.samples=16", "--relevance.nodes=2", "--finetune.epochs=4", "--evaluate.latency-repeats=0", "--ood", "--relevance.precision=fp32", "--finetune.precision=fp32"]  # fmt: skip


def interrupted(out: Path) -> None:
    """Sends the signal that Ctrl-C sends after the second epoch."""
    save = checkpoint.save

    def then_interrupt(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        if len(state["losses"]) == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore it
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "save", then_interrupt)
            with pytest.raises(SystemExit, match="2"):
                cli.main(["run", "--out", str(out), *LONG])
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    cli.main(["run", "--out", str(out), *LONG])
    return out


@pytest.mark.parametrize("by", ["Ctrl-C", "force"])
def test_a_run_that_was_stopped_in_its_training_ends_with_the_same_numbers(
    tmp_path, undisturbed, kill_when_there, by
) -> None:
    out = tmp_path / "stopped"
    if by == "Ctrl-C":
        interrupted(out)
    else:
        kill_when_there(["run", "--out", str(out), *LONG], out / "checkpoint.pt")
    assert not (out / "metrics.json").exists()
    assert 1 <= len(torch.load(out / "checkpoint.pt", weights_only=True)["losses"]) < 4
    cli.main(["run", "--out", str(out), *LONG])
    rows = [json.loads((folder / "metrics.json").read_text()) for folder in (out, undisturbed)]
    assert [row["metrics"] for row in rows[0].values()] == [row["metrics"] for row in rows[1].values()]
    weights = [(folder / "ensemble" / "model.safetensors").read_bytes() for folder in (out, undisturbed)]
    assert weights[0] == weights[1]
