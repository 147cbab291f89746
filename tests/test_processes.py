"""Several processes started by accelerate: what they agree on, and the commands as a user starts them."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from accelerate import Accelerator

import subnet_search.cli as cli
from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.processes import check_processes, from_main, open_accelerator, started
from subnet_search.run_folder import RunFolder

TINY = ["--members=3", "--finetune.epochs=1", "--evaluate.latency-repeats=0", "--ood", "--relevance.samples=16", "--relevance.nodes=2", "--relevance.precision=fp32", "--finetune.precision=fp32"]  # fmt: skip


def test_one_process_computes_by_itself() -> None:
    accelerator = open_accelerator()
    assert from_main(accelerator, lambda: [1, 2]) == [1, 2]
    with pytest.raises(SubnetSearchError, match="as it is"):
        from_main(accelerator, lambda: (_ for _ in ()).throw(SubnetSearchError("as it is")))


def test_masks_can_be_handed_over() -> None:
    masks = MaskSet({"a": torch.eye(2, 3) > 0}, "flow", 3, {"gap": 0.5}, {"b": torch.tensor([True, False])})
    back = pickle.loads(pickle.dumps(masks))
    assert (back.digest(), back.algorithm, back.notes) == (masks.digest(), "flow", {"gap": 0.5})
    assert isinstance(back.masks, MappingProxyType)


def test_processes_that_share_out_a_network_are_refused() -> None:
    class Sharded(Accelerator):
        distributed_type = "FSDP"

    with pytest.raises(SubnetSearchError, match="processes of the kind FSDP are not supported, expected plain"):
        check_processes(Sharded())


def test_the_launcher_says_which_process_this_is(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert started() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert started() == (2, 3)


@pytest.mark.parametrize("command", ["inspect", "predict", "bench", "tune", "pick"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_commands_that_do_not_train_are_refused(command, rank, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cli.console, "quiet", False)
    monkeypatch.setattr(cli.errors, "quiet", False)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert (f"{command} runs in one process, got 2; start it without accelerate launch" in said) == (rank == "0")


def launched(folder: Path, *arguments: str) -> str:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launch, "-m", "subnet_search", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_run_on_two_processes_is_the_run_on_one(tmp_path) -> None:
    cli.main(["finetune", "--out", str(tmp_path / "one"), *TINY])
    said = launched(tmp_path, "finetune", "--out", "two", *TINY)
    assert said.count("mean IoU of the members") == 1  # the main process alone prints
    assert (tmp_path / "two" / "log.txt").read_text().count("fine-tuned on") == 1
    names = [sorted(path.name for path in (tmp_path / run).iterdir()) for run in ("one", "two")]
    assert names[0] == names[1]
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert one.masks().digest() == two.masks().digest()
    expected, got = (torch.load(run.checkpoint, weights_only=True) for run in (one, two))
    assert got["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    for name, tensor in expected["ensemble"].items():
        torch.testing.assert_close(
            got["ensemble"][name], tensor, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_comparison_on_two_processes_has_one_row_of_each(tmp_path) -> None:
    methods = ["--methods", "msp", "mc_dropout", "masksembles", "--seeds", "0", "--budget=0.0001"]
    said = launched(tmp_path, "compare", "--out", "both", *methods, *TINY)
    rows = [json.loads(line) for line in (tmp_path / "both" / "rows.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["msp", "mc_dropout"]
    assert list(json.loads((tmp_path / "both" / "missing.json").read_text())) == ["masksembles"]  # no budget for it
    assert said.count("in both, the report") == 1
