"""What the user gave and cannot work: exit code 2, a message, and nothing lost."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import subnet_search.cli as cli
from subnet_search.backbones import load_backbone


def state_of_digits() -> dict[str, torch.Tensor]:
    return dict(load_backbone("digits").model.state_dict())


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
        (["--members", "1000"], "got 1000 members, but the widest group"),
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


def test_the_smallest_budget_that_is_named_can_be_met(capsys, tiny) -> None:
    with pytest.raises(SystemExit):
        cli.main(["search", "--out", "run", "--budget", "0.001", *tiny])
    words = capsys.readouterr().err.split()
    smallest = words[words.index("cost") + 1]
    cli.main(["search", "--out", "run", *tiny, "--budget", smallest])
    assert Path("run/masks.safetensors").exists()


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


def test_ctrl_c_promises_nothing_where_nothing_is_kept(capsys, monkeypatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "open_backbone", interrupted)
    with pytest.raises(SystemExit):
        cli.main(["inspect"])
    assert capsys.readouterr().err.strip() == "interrupted"
