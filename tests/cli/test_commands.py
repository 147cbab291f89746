"""What the commands do."""

import json
import sys
from pathlib import Path

import pytest

import subnet_search.cli as cli


def test_help_names_the_commands(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for command in (
        "run",
        "score",
        "search",
        "finetune",
        "evaluate",
        "export",
        "compare",
        "inspect",
        "report",
        "predict",
        "bench",
        "tune",
        "pick",
    ):
        assert f"• {command} " in text


def test_options_are_short_and_those_of_stages_have_their_name(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    for option in ("--out", "--members", "--budget", "--backbone", "--weights FILE", "--data SOURCE", "--test", "--ood", "--seed", "--search.algorithm", "--finetune.epochs", "--relevance.criterion", "--evaluate.batch-size", "--ensemble.norm"):  # fmt: skip
        assert f"{option} " in text.replace("\n", " ")


@pytest.mark.parametrize("arguments", [[], ["foo"], ["run", "--bakbone", "digits"], ["run", "--members", "many"], ["predict"]])  # fmt: skip
def test_what_is_no_command_is_refused(refuses, elsewhere, arguments) -> None:
    refuses(arguments, "help", elsewhere)


def test_the_default_run_needs_no_arguments(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(cli, "run", lambda config, until, **_: asked.append((config, until)) or pytest.skip("enough"))
    with pytest.raises(pytest.skip.Exception):
        cli.main(["run"])
    assert asked == [(cli.RunConfig(), "export")]


def test_a_run_prints_both_networks_side_by_side(finished, capsys) -> None:
    cli.main(["run", "--out", str(finished)])
    captured = capsys.readouterr()
    assert "digits on digits" in captured.out
    assert "ensemble of 3" in captured.out
    assert f"in {finished}" in captured.out.replace("\n", "")
    assert "continuing the run" in captured.err


def test_commands_take_the_settings_of_the_folder(tmp_path, capsys, tiny) -> None:
    out = tmp_path / "run"
    cli.main(["score", "--out", str(out), *tiny])
    assert {path.name for path in out.iterdir()} == {"config.json", "inputs.json", "log.txt", "relevance.safetensors"}
    cli.main(["search", f"--out={out}", "--search.algorithm", "draft"])
    assert "draft: mean IoU of the members" in capsys.readouterr().out
    for command in ("finetune", "evaluate", "export"):
        cli.main([command, "--out", str(out)])
    settings = json.loads((out / "config.json").read_text())
    assert (settings["members"], settings["search"]["algorithm"], settings["finetune"]["epochs"]) == (3, "draft", 1)
    cli.main(["evaluate", "--out", str(out), "--test", "digits:test", "--ood", "noise=noise", "far=photos"])
    text = capsys.readouterr().out
    assert "OOD noise, AUROC by entropy" in text
    assert "OOD far, AUROC by entropy" in text


def test_a_kept_fraction_takes_the_place_of_the_budget(tmp_path, tiny) -> None:
    out = tmp_path / "run"
    cli.main(["search", "--out", str(out), "--keep", "0.5", *tiny])
    assert json.loads((out / "config.json").read_text())["budget"]["keep"] == 0.5


def test_inspect_needs_no_images(elsewhere, capsys, contents) -> None:
    cli.main(["inspect"])
    assert "inner" in capsys.readouterr().out
    cli.main(["inspect", "--backbone", "resnet20", "--weights", "random"])
    assert "layer3.2.conv1" in capsys.readouterr().out
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("out", ["predictions.csv", "new/p.json"])
def test_predict_writes_what_other_programs_read(finished, elsewhere, capsys, out, contents) -> None:
    cli.main(["predict", str(finished / "ensemble"), "digits:test", "--out", out])
    assert f"449 predictions in {out}" in capsys.readouterr().out
    assert list(contents(elsewhere)) == [out]


def test_predict_refuses_what_is_beyond_the_limits_of_the_run(finished, elsewhere, refuses) -> None:
    cli.main(["predict", str(finished / "ensemble"), "photos", "--out", "p.json", "--refuse", "total", "energy"])
    far = [record["refused"] for record in json.loads(Path("p.json").read_text())]
    cli.main(["predict", str(finished / "ensemble"), "digits:test", "--out", "p.json", "--refuse", "total", "energy"])
    own = [record["refused"] for record in json.loads(Path("p.json").read_text())]
    assert sum(own) / len(own) < 0.3 < 0.5 < sum(far) / len(far)
    Path("p.json").unlink()
    refuses(["predict", str(finished / "ensemble"), "photos", "--refuse", "aleatoric"], "aleatoric", elsewhere)


def test_predict_imports_code_only_where_it_is_told_to(tmp_path, monkeypatch, elsewhere, refuses, tiny) -> None:
    (tmp_path / "cli_net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--backbone=cli_net:build", "--input-shape", "1", "8", "8", "--classes", *"abcdefghij"]
    cli.main(["run", "--out", "run", *own, *tiny])
    sys.modules.pop("cli_net")
    refuses(["predict", "run/ensemble", "digits:test"], "(--import-code)", elsewhere)
    assert "cli_net" not in sys.modules
    cli.main(["predict", "run/ensemble", "digits:test", "--import-code"])
    assert Path("predictions.csv").exists()


def test_bench_prints_the_forms_and_writes_their_figures(finished, elsewhere, capsys, monkeypatch, contents) -> None:
    monkeypatch.setattr(cli.console, "width", 80)
    quick = ["--batch", "1", "2", "--seconds", "0", "--forms", "dense", "masked", "grouped", "onnx"]
    cli.main(["bench", str(finished / "ensemble"), *quick, "--precision", "bf16", "--out", "new/bench.json"])
    text = capsys.readouterr().out
    for words in (
        "batch 1, bf16",
        "batch 2, bf16",
        "/dense",
        "grouped",
        "onnx: its file is in fp32",
        "in new/bench.json",
    ):
        assert words in text
    assert list(contents(elsewhere)) == ["new/bench.json"]
    rows = json.loads(Path("new/bench.json").read_text())["rows"]
    assert [(row["form"], row["batch"]) for row in rows] == [
        (form, batch) for batch in (1, 2) for form in ("dense", "masked", "grouped")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["."], "has no manifest.json, expected the folder of an exported ensemble"),
        (["missing"], "missing: found nothing"),
        (["ENSEMBLE", "--batch", "0"], "batch is (0,), expected positive numbers"),
        (["ENSEMBLE", "--forms", "thin"], "thin"),
        (["ENSEMBLE", "--device", "toaster"], "device 'toaster' cannot be used"),
        (["ENSEMBLE", "--forms", "dense", "--seconds=0", "--batch=1", "--out", "old/b.json"], "old/b.json cannot be"),
    ],
)
def test_costs_that_cannot_be_measured(finished, elsewhere, refuses, arguments, message) -> None:
    Path("old").write_text("old")
    given = [str(finished / "ensemble") if word == "ENSEMBLE" else word for word in arguments]
    refuses(["bench", *given], message, elsewhere)


COMPARE = ["--finetune.epochs=1", "--finetune.precision=fp32", "--members=3", "--evaluate.latency-repeats=0", "--ood"]


def test_compare_prints_a_table_of_the_methods_and_takes_up_what_is_there(elsewhere, capsys, contents) -> None:
    command = ["compare", "--methods", "msp", "random", "mc_dropout", "--seeds", "0", "--out=c", *COMPARE]
    cli.main(command)
    text = capsys.readouterr().out
    assert "digits on digits" in text
    for title in ("method", "acc. %", "NLL", "MACs", "msp", "random", "mc_dropout", "in c"):
        assert title in text
    left = {name for name in contents(elsewhere) if name.count("/") == 1}
    assert left == {"c/rows.jsonl", "c/curves.jsonl", "c/missing.json", "c/report.html"}
    rows = Path("c/rows.jsonl").read_bytes()
    cli.main(command)
    assert Path("c/rows.jsonl").read_bytes() == rows


def test_a_report_can_be_made_again(finished, capsys, contents, refuses, elsewhere) -> None:
    before = contents(finished)
    (finished / "report.html").unlink()
    cli.main(["report", str(finished)])
    assert f"report: {finished / 'report.html'}" in capsys.readouterr().out.replace("\n", "")
    assert contents(finished) == before
    refuses(["report", "nothing"], "nothing holds no figures yet", elsewhere)


def test_compare_says_what_is_missing_and_why(capsys) -> None:
    cli.main(["compare", "--methods", "msp", "random", "--seeds", "0", "--out=c", "--budget=0.001", *COMPARE])
    text = " ".join(capsys.readouterr().out.split())
    assert "(missing)" in text
    assert "random: budget 0.001 cannot be met with 3 members" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "method 'magic': expected one of msp, mc_dropout"),
        (["--methods"], "a comparison needs at least one method and one seed"),
        (["--members", "1"], "members is 1, expected at least 2"),
        (["--baselines.dropout", "1.5"], "baselines.dropout is 1.5"),
        (["--data", "npz:missing.npz"], "missing.npz: found nothing"),
        (["--backbone", "resnet99"], "no backbone 'resnet99'"),
    ],
)
def test_comparisons_that_cannot_be_made(elsewhere, refuses, arguments, message) -> None:
    refuses(["compare", "--out", "c", *arguments], message, elsewhere)


# What bad input gets
