"""`subnet-search tune` as a user meets it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import subnet_search.cli as cli

QUICK = [
    "--trials=3", "--members=3", "--relevance.samples=8", "--relevance.nodes=2", "--finetune.epochs=0", "--ood",
    "--relevance.precision=fp32", "--finetune.precision=fp32", "--space.names", "budget", "algorithm",
    "--space.budget", "1", "2", "--space.algorithm", "antirandom",
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "width", 200)
    return tmp_path


def refused(arguments: list[str], capsys: Any) -> str:
    """Exit code 2 with a message, and no traceback."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    assert "Traceback" not in text
    return text


def test_a_study_is_printed_kept_and_continued(elsewhere, capsys) -> None:
    cli.main(["tune", "--out", "mine", *QUICK])
    captured = capsys.readouterr()
    for words in ("study mine: 3 trials", "nll", "error_correlation", "macs", "the job's own", "in mine"):
        assert words in captured.out
    assert re.search(r"trials .*3/3", captured.err)
    assert {"journal.log", "cache", "artifacts", "trials", "front.csv", "front.json"} <= {
        path.name for path in (elsewhere / "mine").iterdir()
    }
    assert json.loads((elsewhere / "mine" / "front.json").read_text())
    cli.main(["tune", "--out", "mine", *QUICK, "--trials=4"])
    assert "study mine: 4 trials" in capsys.readouterr().out


def test_one_objective_is_asked_for_as_such(capsys) -> None:
    cli.main(["tune", "--out", "mine", *QUICK, "--objective", "nll", "--pruner", "hyperband", "--sampler", "random"])
    text = capsys.readouterr().out
    assert "study mine: 3 trials" in text
    assert "error_correlation" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "trials is 0, expected at least 1"),
        (["--pruner", "hyperband"], "judges by one objective, got 3"),
        (["--objectives", "beauty"], "expected different ones of nll, error"),
        (["--objective", "ood_auroc"], "give --choose-ood NAME=SOURCE"),
        (["--objective", "ood_auroc", "--choose-ood", "far=photos"], "is one of the OOD sets of the final figures"),
        (["--keep", "0.5"], "give --budget instead of --keep"),
        (["--storage", "somewhere"], "is no URL of a database"),
        (["--storage", "sqlite:////no/such/folder/x.db"], "there is no folder /no/such/folder: make it"),
        (["--data", "npz:missing.npz"], "missing.npz: found nothing"),
        (["--space.members", "1", "4"], "space.members is (1, 4)"),
    ],
)
def test_what_cannot_be_done_is_refused(capsys, arguments, message) -> None:
    assert message in refused(["tune", "--out", "mine", *arguments], capsys)


def test_a_study_of_other_settings_is_refused(capsys) -> None:
    cli.main(["tune", "--out", "mine", *QUICK])
    assert "seed: 0 there, 1 asked for" in refused(["tune", "--out", "mine", *QUICK, "--seed", "1"], capsys)
