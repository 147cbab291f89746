"""The command line as a user meets it: what it offers and what it refuses."""

import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import subnet_search.cli as cli
from subnet_search.backbones import load_backbone

TINY = ["--members=3", "--relevance.samples=16", "--relevance.nodes=2", "--finetune.epochs=1", "--evaluate.latency-repeats=0", "--ood", "--relevance.precision=fp32", "--finetune.precision=fp32"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the commands are started; what they leave there is seen."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli.console, "width", 160)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests leave it as it is."""
    out = tmp_path_factory.mktemp("finished") / "run"
    cli.main(["run", "--out", str(out), *TINY])
    return out


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Exit code 2 with the message, no traceback, and the folder as it was before."""

    def check(arguments: Sequence[str], message: str, folder: Path) -> None:
        before = contents(folder)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        assert stopped.value.code == 2
        captured = capsys.readouterr()
        # tyro breaks lines and draws a box around what it finds itself
        text = " ".join((captured.out + captured.err).replace("│", " ").split())
        assert message in text
        assert "Traceback" not in text
        assert contents(folder) == before

    return check


def state_of_digits() -> dict[str, torch.Tensor]:
    return dict(load_backbone("digits").model.state_dict())


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
        "predict",
        "bench",
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


def test_commands_take_the_settings_of_the_folder(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    cli.main(["score", "--out", str(out), *TINY])
    assert {path.name for path in out.iterdir()} == {"config.json", "inputs.json", "log.txt", "relevance.safetensors"}
    cli.main(["search", f"--out={out}", "--search.algorithm", "draft"])
    assert "draft: mean IoU of the members" in capsys.readouterr().out
    for command in ("finetune", "evaluate", "export"):
        cli.main([command, "--out", str(out)])
    settings = json.loads((out / "config.json").read_text())
    assert (settings["members"], settings["search"]["algorithm"], settings["finetune"]["epochs"]) == (3, "draft", 1)
    cli.main(["evaluate", "--out", str(out), "--test", "digits:train", "--ood", "noise=noise", "far=photos"])
    text = capsys.readouterr().out
    assert "OOD noise, AUROC by entropy" in text
    assert "OOD far, AUROC by entropy" in text


def test_a_kept_fraction_takes_the_place_of_the_budget(tmp_path) -> None:
    out = tmp_path / "run"
    cli.main(["search", "--out", str(out), "--keep", "0.5", *TINY])
    assert json.loads((out / "config.json").read_text())["budget"]["keep"] == 0.5


def test_inspect_needs_no_images(elsewhere, capsys) -> None:
    cli.main(["inspect"])
    assert "inner" in capsys.readouterr().out
    cli.main(["inspect", "--backbone", "resnet20", "--weights", "random"])
    assert "layer3.2.conv1" in capsys.readouterr().out
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("out", ["predictions.csv", "new/p.json"])
def test_predict_writes_what_other_programs_read(finished, elsewhere, capsys, out) -> None:
    cli.main(["predict", str(finished / "ensemble"), "digits:test", "--out", out])
    assert f"449 predictions in {out}" in capsys.readouterr().out
    assert list(contents(elsewhere)) == [out]


def test_predict_imports_code_only_where_it_is_told_to(tmp_path, monkeypatch, elsewhere, refuses) -> None:
    (tmp_path / "cli_net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--backbone=cli_net:build", "--input-shape", "1", "8", "8", "--classes", *"abcdefghij"]
    cli.main(["run", "--out", "run", *own, *TINY])
    sys.modules.pop("cli_net")
    refuses(["predict", "run/ensemble", "digits:test"], "(--import-code)", elsewhere)
    assert "cli_net" not in sys.modules
    cli.main(["predict", "run/ensemble", "digits:test", "--import-code"])
    assert Path("predictions.csv").exists()


def test_bench_prints_the_forms_and_writes_their_figures(finished, elsewhere, capsys, monkeypatch) -> None:
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


def test_compare_prints_a_table_of_the_methods_and_takes_up_what_is_there(elsewhere, capsys) -> None:
    command = ["compare", "--methods", "msp", "random", "mc_dropout", "--seeds", "0", "--out=c", *COMPARE]
    cli.main(command)
    text = capsys.readouterr().out
    assert "digits on digits" in text
    for title in ("method", "acc. %", "NLL", "MACs", "msp", "random", "mc_dropout", "in c"):
        assert title in text
    left = {name for name in contents(elsewhere) if "/cells/" not in name and "/figures/" not in name}
    assert left == {"c/rows.jsonl", "c/curves.jsonl", "c/missing.json"}
    rows = Path("c/rows.jsonl").read_bytes()
    cli.main(command)
    assert Path("c/rows.jsonl").read_bytes() == rows


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


def truncated(path: Path) -> None:
    save_file(state_of_digits(), path)
    path.write_bytes(path.read_bytes()[:1000])


def malicious(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {path.parent / 'executed'}",)

    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))


def of_another_network(path: Path) -> None:
    save_file(dict(load_backbone("resnet20", "random", width=4).model.state_dict()), path)


def not_finite(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = state_of_digits()
        name = next(name for name, tensor in state.items() if tensor.is_floating_point())
        state[name] = torch.full_like(state[name], value)
        save_file(state, path)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.safetensors", Path.exists, "missing.safetensors: found nothing, expected a .safetensors file"),
        ("cut.safetensors", truncated, "cut.safetensors: truncated or not a safetensors file"),
        ("evil.pt", malicious, "wants to execute code"),
        ("text.pt", lambda path: path.write_text("hello"), "truncated or not a PyTorch checkpoint"),
        ("other.safetensors", of_another_network, "are those of another architecture than DigitsNet"),
        ("nan.safetensors", not_finite(float("nan")), "are NaN or infinite"),
        ("inf.safetensors", not_finite(float("inf")), "are NaN or infinite"),
    ],
)
def test_weights_that_cannot_be_used(tmp_path, refuses, finished, name, write, message) -> None:
    write(tmp_path / name)
    refuses(["run", "--weights", str(tmp_path / name), "--out", str(tmp_path / "run")], message, tmp_path)
    assert not (tmp_path / "executed").exists()
    refuses(["inspect", "--weights", str(tmp_path / name)], message, tmp_path)
    refuses(
        ["run", "--weights", str(tmp_path / name), "--out", str(finished)], "holds a run with other settings", finished
    )


def test_the_first_mismatched_names_of_other_weights_are_told(tmp_path, refuses) -> None:
    of_another_network(tmp_path / "w.safetensors")
    names = [
        name
        for name in state_of_digits()
        if name not in load_backbone("resnet20", "random", width=4).model.state_dict()
    ]
    kept = next(name for name in names if not name.endswith("num_batches_tracked"))
    refuses(["inspect", "--weights", str(tmp_path / "w.safetensors")], kept, tmp_path)


IMAGES = np.linspace(0, 1, 40 * 64, dtype=np.float32).reshape(40, 8, 8)
LABELS = np.arange(40) % 10


def broken(images: np.ndarray, value: float) -> np.ndarray:
    changed = images.copy()
    changed[7, 3, 3] = value
    return changed


ALL = ("--data", "--test", "--ood")
BAD_IMAGES = [
    ("nan", broken(IMAGES, np.nan), LABELS, "1 of 40 images hold NaN or infinity, the first is image 7", ALL),
    ("infinity", broken(IMAGES, np.inf), LABELS, "1 of 40 images hold NaN or infinity, the first is image 7", ALL),
    ("range", IMAGES * 255, LABELS, "float images range from 0 to 255, expected [0, 1]", ALL),
    ("size", np.zeros((40, 9, 9), np.uint8), LABELS, "images have shape (1, 9, 9)", ALL),
    ("outside", IMAGES, LABELS + 1, "labels 10 are outside the classes, expected 0..9", ("--data", "--test")),
    ("one class", IMAGES, LABELS * 0, "all 40 labels are of class [0], expected at least two classes", ("--data",)),
    ("unlabelled", IMAGES, None, "label", ("--data", "--test")),
]


@pytest.mark.parametrize(
    ("option", "x", "y", "message"),
    [
        pytest.param(option, x, y, message, id=f"{option[2:]}-{name}")
        for name, x, y, message, options in BAD_IMAGES
        for option in options
    ],
)
def test_images_and_labels_that_cannot_be_used(tmp_path, refuses, option, x, y, message) -> None:
    np.savez(tmp_path / "a.npz", x=x, **({} if y is None else {"y": y}))
    source = f"{'far=' if option == '--ood' else ''}npz:{tmp_path / 'a.npz'}"
    refuses(["run", option, source, "--out", str(tmp_path / "run")], message, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "npz:missing.npz"], "missing.npz: found nothing"),
        (["--data", "npz:cut.npz"], "truncated or not an .npz archive"),
        (["--data", "folder:missing"], "missing: found nothing, expected a folder"),
        (["--data", "photos"], "have no label"),
        (["--data", "mnist"], "no data source 'mnist', expected one of digits"),
        (["--validation", "0"], "cannot hold out a fraction of 0.0"),
        (["--ood", "photos"], "expected NAME=SOURCE"),
        (["--members", "1"], "members is 1, expected at least 2"),
        (["--members", "0"], "members is 0, expected at least 2"),
        (["--members", "1000"], "got 1000 members, but group"),
        (["--budget", "0.001"], "times the dense network; raise the budget to that"),
        (["--budget", "-1"], "budget is -1.0, expected a positive number"),
        (["--budget", "nan"], "budget is nan, expected a positive number"),
        (["--min-width", "1000"], "min_width is 1000, but group"),
        (["--backbone", "resnet99"], "no backbone 'resnet99', expected digits, resnet20"),
        (["--backbone", "resnet20"], "comes without weights"),
        (["--backbone", "resnet20", "--weights", "random"], "digits:train: images have shape (1, 8, 8)"),
        (["--backbone", "no.such:thing"], "input_shape and classes are needed"),
        (["--backbone", "no.such:thing", "--input-shape", "1", "8", "8", "--classes", "a", "b"], "cannot be imported"),
        (["--mean", "1", "2"], "mean has 2 values, expected 1"),
        (["--std", "0"], "std is (0.0,), expected positive numbers"),
        (["--finetune.epochs", "-1"], "finetune.epochs is -1"),
        (["--relevance.samples", "0"], "relevance.samples is 0"),
        (["--search.algorithm", "magic"], "magic"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_met(elsewhere, refuses, arguments, message) -> None:
    np.savez("cut.npz", x=IMAGES, y=LABELS)
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:200])
    refuses(["run", "--out", "run", *arguments], message, elsewhere)


def test_the_smallest_budget_that_is_named_can_be_met(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["search", "--out", "run", "--budget", "0.001", *TINY])
    words = capsys.readouterr().err.split()
    smallest = words[words.index("cost") + 1]
    cli.main(["search", "--out", "run", *TINY, "--budget", smallest])


NETWORKS = """
import torch
from torch import nn

class OfItems(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)
    def features(self, x):
        return torch.relu(self.conv(x)).mean(dim=(2, 3))
class Detached(OfItems):
    def forward(self, x):
        return self.head(torch.from_numpy(self.features(x).detach().numpy()))
class Maps(OfItems):
    def forward(self, x):
        return self.conv(x)
class Pair(OfItems):
    def forward(self, x):
        return self.head(self.features(x)), x
class Raises(OfItems):
    def forward(self, x):
        raise RuntimeError("not like this")
class Few(OfItems):
    def forward(self, x):
        return self.head(self.features(x))[:, :3]

def number():
    return 3
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Detached", "no channels that can be searched"),
        ("Maps", "expected logits of shape (2, 10)"),
        ("Pair", "maps 2 images to tuple, expected logits"),
        ("Few", "maps 2 images to (2, 3), expected logits of shape (2, 10)"),
        ("Raises", "fails on images of shape (1, 8, 8) (RuntimeError: not like this)"),
        ("number", "returned a int, expected a torch.nn.Module"),
        ("missing", "has no callable 'missing'"),
    ],
)
def test_networks_that_cannot_be_searched(tmp_path, monkeypatch, elsewhere, refuses, name, message) -> None:
    (tmp_path / "bad_nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    own = [f"--backbone=bad_nets:{name}", "--input-shape", "1", "8", "8", "--classes", *"abcdefghij"]
    refuses(["inspect", *own], message, elsewhere)
    refuses(["run", "--out", "run", *own], message, elsewhere)


def test_folders_of_others_are_left_alone(finished, tmp_path, refuses) -> None:
    refuses(["run", "--out", str(finished), "--members", "4"], "members: 3 there, 4 asked for", finished)
    (tmp_path / "thesis.tex").write_text("years of work")
    refuses(["run", "--out", str(tmp_path)], "holds no run of this tool", tmp_path)
    refuses(["run", "--out", str(tmp_path / "thesis.tex")], "holds no run of this tool", tmp_path)


@pytest.mark.parametrize("name", ["config.json", "inputs.json", "masks.safetensors", "checkpoint.pt"])
def test_damaged_files_of_a_run_are_named(tmp_path, refuses, name, finished) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in finished.glob("*.*"):
        (run / path.name).write_bytes(path.read_bytes().replace(bytes(finished), bytes(run)))
    (run / name).write_bytes((finished / name).read_bytes()[:30])
    (run / "log.txt").unlink()
    (run / "log.txt").symlink_to(os.devnull)  # it may grow
    refuses(["run", "--out", str(run)], name, run)


@pytest.mark.parametrize(
    ("ensemble", "images", "more", "message"),
    [
        ("missing", "digits:test", [], "missing"),
        ("ensemble", "npz:missing.npz", [], "found nothing"),
        ("ensemble", "missing.png", [], "no data source 'missing.png'"),
        ("ensemble", "digits:test", ["--out", "p.txt"], "go to a .csv or .json file"),
        ("ensemble", "digits:test", ["--batch-size", "0"], "batch_size is 0"),
        ("ensemble", "digits:test", ["--out", "old.csv/p.csv"], "cannot be written"),
    ],
)
def test_predictions_that_cannot_be_made(finished, elsewhere, refuses, ensemble, images, more, message) -> None:
    Path("old.csv").write_text("old")
    refuses(["predict", str(finished / ensemble), images, *more], message, elsewhere)


# Interruptions


def test_ctrl_c_says_that_the_same_command_continues(elsewhere, refuses, monkeypatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    refuses(["run"], "interrupted: what was finished is kept; the same command continues there", elsewhere)
